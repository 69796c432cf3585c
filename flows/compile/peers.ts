import type { Endpoint, LabelSelector, Zone } from '#flows/model/model.ts';
import { blocksOf, hostCidr } from '#flows/model/ranges.ts';
import type { CompileContext, Side } from './context.ts';

/** A peer of a NetworkPolicy. Namespace and pods stand in one item: as two they would be alternatives. */
export type PolicyPeer =
  | { readonly namespaceSelector: LabelSelector; readonly podSelector: LabelSelector }
  | { readonly ipBlock: { readonly cidr: string; readonly except?: readonly string[] } };

/**
 * The peers of one side of a connection. `everybody` only where the flow says so, or for webhooks, whose caller cannot be named while
 * the nodes' addresses are not known. Undefined when no NetworkPolicy can say it: a problem has been reported, or another kind says it.
 */
export function peersOf(context: CompileContext, side: Side): readonly PolicyPeer[] | 'everybody' | undefined {
  const { hop, peer: endpoint } = side;
  const { problems, model } = context;
  if (endpoint.peer.kind === 'any') return 'everybody';
  if (endpoint.peer.kind === 'kube-api' && side.direction === 'ingress') return webhookSources(context, side);
  const ciliumSaysIt = model.facts.cni === 'cilium' && (endpoint.peer.kind === 'names' || endpoint.peer.kind === 'kube-api');
  const peers = endpoint.peer.kind === 'names' && model.facts.cni === 'cilium' ? [] : namedPeers(context, endpoint);
  if (peers.length > 0 || ciliumSaysIt) return peers.length > 0 ? peers : undefined;
  problems.push({ place: hop.flow.place, message: `flow ${hop.flow.id}: ${whyNobody(context, endpoint)}` });
  return undefined;
}

function namedPeers(context: CompileContext, endpoint: Endpoint): readonly PolicyPeer[] {
  const { zones, facts } = context.model;
  const { peer } = endpoint;
  const zone = zones.get(endpoint.zone);
  const ofItsCluster = peer.kind === 'pods' || peer.kind === 'kube-api' || peer.kind === 'dns';
  if (ofItsCluster && zone !== undefined && zone.cluster !== context.cluster) return blocks(endpoint.firewall.cidrs);
  switch (peer.kind) {
    case 'pods':
      return [inNamespace(zone, peer.selector)];
    case 'namespaces':
      return [{ namespaceSelector: peer.namespaces, podSelector: peer.pods }];
    case 'addresses':
      return blocksOf(peer.cidrs, peer.except).map(({ cidr, except }) => ({
        ipBlock: { cidr, ...(except.length > 0 && { except }) },
      }));
    case 'names':
      return blocks(peer.cidrs);
    case 'dns':
      return [inNamespace({ namespace: facts.dns.namespace }, facts.dns.selector), ...addresses([facts.dns.nodeLocalIP])];
    case 'kube-api':
      return refuseBroad(context, endpoint, [...new Set([facts.apiServer.serviceIP, ...facts.apiServer.endpoints])]);
    case 'any':
      return [];
  }
}

function inNamespace(zone: Pick<Zone, 'namespace'> | undefined, podSelector: LabelSelector): PolicyPeer {
  // every namespace has this label; the API server sets it (Kubernetes 1.21)
  return { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': zone?.namespace ?? '' } }, podSelector };
}

function blocks(cidrs: readonly string[]): PolicyPeer[] {
  return cidrs.map((cidr) => ({ ipBlock: { cidr } }));
}

function addresses(ips: readonly string[]): PolicyPeer[] {
  return blocks(ips.filter((ip) => ip !== '').map(hostCidr));
}

function refuseBroad({ allowBroad, problems }: CompileContext, { name, place }: Endpoint, ips: readonly string[]): PolicyPeer[] {
  const broad = ips.find((ip) => ip.endsWith('/0'));
  if (broad !== undefined && !allowBroad)
    problems.push({
      place,
      message: `endpoint ${name}: ${broad} for the API server is every address; name its own, or allow it (--allow-broad)`,
    });
  return addresses(ips);
}

/** The API server calls webhooks from the nodes it runs on; no selector names it. */
function webhookSources({ model, notes }: CompileContext, { hop }: Side): readonly PolicyPeer[] | 'everybody' {
  const { nodeCIDRs, apiServer } = model.facts;
  notes.addFacts(hop.flow.id, ['nodeCIDRs', 'apiServer.endpoints']);
  if (nodeCIDRs.length > 0) return addresses([...new Set([...nodeCIDRs, ...apiServer.endpoints])]);
  const open = 'no selector names the API server and nodeCIDRs are not known, so the port is open to every source';
  notes.add(hop.flow.id, open);
  return 'everybody';
}

function whyNobody({ model }: CompileContext, { name, peer, zone }: Endpoint): string {
  switch (peer.kind) {
    case 'names':
      return `endpoint ${name} is known by names, which ${model.facts.cni} policies cannot match: give it cidr too`;
    case 'kube-api':
      return 'neither the address of the API server nor of its Service is known: declare apiServer in the facts';
    default:
      return `endpoint ${name} is in zone ${zone}, of another cluster: give its addresses in firewall.cidrs`;
  }
}
