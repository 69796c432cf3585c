import { BlockList, isIPv6 } from 'node:net';
import type { LabelSelector } from '../../flows/model/model.ts';

/** A NetworkPolicy as written. */
interface WrittenPolicy {
  readonly metadata: { readonly namespace: string };
  readonly spec: {
    readonly podSelector: LabelSelector;
    readonly policyTypes?: readonly string[];
    readonly ingress?: readonly WrittenRule[];
    readonly egress?: readonly WrittenRule[];
  };
}

interface WrittenRule {
  readonly from?: readonly WrittenPeer[];
  readonly to?: readonly WrittenPeer[];
  readonly ports?: readonly { readonly protocol?: string; readonly port?: number | string; readonly endPort?: number }[];
}

interface WrittenPeer {
  readonly podSelector?: LabelSelector;
  readonly namespaceSelector?: LabelSelector;
  readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] };
}

/** One end: a pod with its labels, or an address alone. */
export interface NaiveEnd {
  readonly namespace?: { readonly name: string; readonly labels: Readonly<Record<string, string>> };
  readonly labels?: Readonly<Record<string, string>>;
  readonly hostNetwork?: boolean;
  readonly ports?: readonly { readonly name: string; readonly protocol: string; readonly port: number }[];
  readonly addresses: readonly string[];
}

/**
 * NetworkPolicy v1 read off its API documentation, one cell at a time: no sets, no index, no memory, addresses by the platform. The
 * evaluator is compared with it, in meaning and in speed.
 */
export function naivelyAllowed(
  policies: readonly unknown[],
  source: NaiveEnd,
  destination: NaiveEnd,
  protocol: string,
  port: number,
  mode: string,
): boolean {
  const side = (own: NaiveEnd, other: NaiveEnd, type: 'Ingress' | 'Egress') => {
    const acting = (policies as readonly WrittenPolicy[]).filter((policy) => actsOn(policy, own, type));
    if (acting.length === 0) return true;
    return acting.some(({ metadata, spec }) =>
      (type === 'Ingress' ? (spec.ingress ?? []) : (spec.egress ?? [])).some((rule) => {
        const peers = (type === 'Ingress' ? rule.from : rule.to) ?? [];
        const hasPeer = peers.length === 0 || peers.some((peer) => isPeer(peer, other, metadata.namespace, mode));
        return hasPeer && hasPort(rule.ports ?? [], destination, protocol, port);
      }),
    );
  };
  return side(source, destination, 'Egress') && side(destination, source, 'Ingress');
}

function actsOn({ metadata, spec }: WrittenPolicy, { namespace, labels, hostNetwork }: NaiveEnd, type: string): boolean {
  if (namespace?.name !== metadata.namespace || labels === undefined || hostNetwork === true) return false;
  const types = spec.policyTypes ?? ['Ingress', ...((spec.egress ?? []).length > 0 ? ['Egress'] : [])];
  return types.includes(type) && isSelected(spec.podSelector, labels);
}

function isPeer(peer: WrittenPeer, end: NaiveEnd, policyNamespace: string, mode: string): boolean {
  if (peer.ipBlock) {
    if (end.namespace && mode === 'external-only') return false;
    const { cidr, except = [] } = peer.ipBlock;
    return end.addresses.some((address) => isInside(address, cidr) && !except.some((hole) => isInside(address, hole)));
  }
  if (!end.namespace || !end.labels || end.hostNetwork === true) return false;
  const inNamespace = peer.namespaceSelector
    ? isSelected(peer.namespaceSelector, end.namespace.labels)
    : end.namespace.name === policyNamespace;
  return inNamespace && isSelected(peer.podSelector ?? {}, end.labels);
}

function hasPort(ports: NonNullable<WrittenRule['ports']>, destination: NaiveEnd, protocol: string, port: number): boolean {
  if (ports.length === 0) return true;
  return ports.some((item) => {
    if ((item.protocol ?? 'TCP') !== protocol) return false;
    if (item.port === undefined) return true;
    if (typeof item.port === 'number') return port >= item.port && port <= (item.endPort ?? item.port);
    return (destination.ports ?? []).some((own) => own.name === item.port && own.protocol === protocol && own.port === port);
  });
}

function isSelected(
  { matchLabels = {}, matchExpressions = [] }: LabelSelector,
  labels: Readonly<Record<string, string>>,
): boolean {
  if (Object.entries(matchLabels).some(([key, value]) => labels[key] !== value)) return false;
  return matchExpressions.every(({ key, operator, values = [] }) => {
    if (operator === 'Exists') return key in labels;
    if (operator === 'DoesNotExist') return !(key in labels);
    return (key in labels && values.includes(labels[key] ?? '')) === (operator === 'In');
  });
}

function isInside(address: string, cidr: string): boolean {
  const [network = '', size] = cidr.split('/');
  if (isIPv6(network) !== isIPv6(address)) return false;
  const list = new BlockList();
  list.addSubnet(network, Number(size), isIPv6(network) ? 'ipv6' : 'ipv4');
  return list.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
}
