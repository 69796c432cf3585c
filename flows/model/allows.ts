import { ipBlockModeOf } from '#flows/evaluate/evaluator.ts';
import { type Labels, selects } from '#flows/evaluate/label-selector.ts';
import type { IpBlockMode } from '#flows/evaluate/rules.ts';
import { addressesOf, hasAddress, parseAddress } from '#flows/sets/addresses.ts';
import { type Hop, hopsOf } from './hops.ts';
import type { Direction, Endpoint, Model, PortSpec, Protocol } from './model.ts';

/** One end of a connection: a pod, with its address where one is known, or an address outside. */
export type ModelNode =
  | {
      readonly kind: 'pod';
      readonly namespace: string;
      readonly namespaceLabels: Labels;
      readonly labels: Labels;
      readonly ip: string | undefined;
    }
  | { readonly kind: 'address'; readonly ip: string };

/**
 * What a model means, cell by cell and without policies: a connection is allowed when both ends agree. An end agrees when its namespace
 * does not deny that direction, or when a flow from it (or to it) names the other end. A reference for tests: it is not fast. A pod and
 * itself are two replicas here, and the set is about one cluster. Of names outside, the addresses beside them count, where the network plugin does not match names itself.
 */
export function modelAllows(
  model: Model,
  ends: { readonly src: ModelNode; readonly dst: ModelNode },
  protocol: Protocol,
  port: number,
  mode: IpBlockMode = ipBlockModeOf(model.facts.cni),
): boolean {
  const { src, dst } = ends;
  const fits = (hop: Hop) => hop.protocols.includes(protocol) && hop.ports.some((spec) => hasPort(spec, hop, protocol, port));
  const hops = () => model.flows.flatMap((flow) => hopsOf(model, flow)).filter(fits);
  const leaves = () => hops().some(({ from, to }) => isPodOf(model, from, src) && isPeer(model, to, dst, 'egress', mode));
  const enters = () => hops().some(({ from, to }) => isPodOf(model, to, dst) && isPeer(model, from, src, 'ingress', mode));
  return (!isIsolated(model, src, 'egress') || leaves()) && (!isIsolated(model, dst, 'ingress') || enters());
}

function hasPort(spec: PortSpec, { to }: Hop, protocol: Protocol, port: number): boolean {
  if (spec.kind === 'all') return true;
  if (spec.kind === 'range') return spec.first <= port && port <= spec.last;
  const named = to.namedPorts[spec.name];
  return named?.protocol === protocol && named.port === port;
}

function isIsolated({ zones }: Model, node: ModelNode, direction: Direction): boolean {
  if (node.kind === 'address') return false;
  return [...zones.values()].some(({ namespace, isolate }) => namespace === node.namespace && isolate.includes(direction));
}

function isPodOf({ zones }: Model, { zone, peer }: Endpoint, node: ModelNode): boolean {
  if (node.kind === 'address' || peer.kind !== 'pods') return false;
  return zones.get(zone)?.namespace === node.namespace && selects(peer.selector, node.labels);
}

function isPeer(model: Model, endpoint: Endpoint, node: ModelNode, direction: Direction, mode: IpBlockMode): boolean {
  const { apiServer, dns, nodeCIDRs, cni } = model.facts;
  const inRanges = (ranges: readonly string[]) => isAddressIn(node, ranges, mode);
  const { peer } = endpoint;
  switch (peer.kind) {
    case 'any':
      return true;
    case 'pods':
      return isPodOf(model, endpoint, node);
    case 'namespaces':
      return node.kind === 'pod' && selects(peer.namespaces, node.namespaceLabels) && selects(peer.pods, node.labels);
    case 'addresses':
      return inRanges(peer.cidrs) && !inRanges(peer.except);
    case 'names':
      return cni !== 'cilium' && inRanges(peer.cidrs);
    case 'dns':
      if (node.kind === 'pod' && node.namespace === dns.namespace && selects(dns.selector, node.labels)) return true;
      return dns.nodeLocalIP !== '' && inRanges([dns.nodeLocalIP]);
    case 'kube-api':
      if (direction === 'egress') return inRanges([apiServer.serviceIP, ...apiServer.endpoints].filter((ip) => ip !== ''));
      // a webhook's caller has the address of a node; while those are not known, it may be anybody
      return nodeCIDRs.length === 0 || inRanges([...nodeCIDRs, ...apiServer.endpoints]);
  }
}

function isAddressIn(node: ModelNode, ranges: readonly string[], mode: IpBlockMode): boolean {
  if (node.ip === undefined || (node.kind === 'pod' && mode === 'external-only')) return false;
  const address = parseAddress(node.ip);
  return address !== undefined && ranges.some((range) => hasAddress(addressesOf(range), address));
}
