import type { Direction, LabelSelector } from '#flows/model/model.ts';
import { type AddressSet, ALL_IPV4, ALL_IPV6, addressesOf } from '#flows/sets/addresses.ts';
import {
  ALL_CONNECTIONS,
  ALL_PORTS,
  type ConnectionSet,
  NO_CONNECTIONS,
  portRange,
  unionConnections,
} from '#flows/sets/connections.ts';
import { covers, intersect, subtract, union } from '#flows/sets/intervals.ts';
import type { NetworkPolicy, Place, Pod } from './cluster.ts';
import type { Endpoint } from './endpoint.ts';
import { selectorText, selects } from './label-selector.ts';
import { type NetworkPolicyPeer, type NetworkPolicyPort, PEERS_FIELD } from './network-policy.ts';

/**
 * How a CNI reads `ipBlock`: against every address, those of pods included (`any-ip`), or against addresses outside of the cluster only
 * (`external-only`), as Cilium does.
 */
export const IP_BLOCK_MODES = ['any-ip', 'external-only'] as const;
export type IpBlockMode = (typeof IP_BLOCK_MODES)[number];

/** Whether a rule is about a peer; `maybe` when a fact is missing. */
export type Match = 'no' | 'yes' | 'maybe';

/** Decides about one peer. */
export type PeerTest = (peer: Endpoint, mode: IpBlockMode) => Match;

/** One rule of any kind of policy, ready to be asked. */
export interface Rule {
  /** As in `NetworkPolicy shop/db ingress[0]`. */
  readonly label: string;
  readonly place: Place;
  readonly action: 'Allow' | 'Deny' | 'Pass';
  readonly matches: PeerTest;
  /** Who its peers are, in words. */
  readonly peersText: () => string;
  /** Which fact is missing when it matches maybe. */
  readonly doubt: string;
  /** The ports of the rule; the names among them are looked up on the destination. */
  readonly ports: (destination: Endpoint) => ConnectionSet;
  /** Whether the ports are the same for every destination. */
  readonly hasFixedPorts: boolean;
}

/** One policy of any kind. Tiers are asked in the order of this list. */
export interface Policy {
  readonly tier: 'admin' | 'namespace' | 'baseline' | 'foreign';
  /** As in `NetworkPolicy shop/db`. */
  readonly label: string;
  readonly place: Place;
  readonly selects: (pod: Pod) => boolean;
  /** Undefined for a direction it does not act on. */
  readonly ingress: readonly Rule[] | undefined;
  readonly egress: readonly Rule[] | undefined;
}

/** A NetworkPolicy as rules. `podRanges` is where pods are whose address is not given. */
export function networkPolicyRules(policy: NetworkPolicy, podRanges: AddressSet): Policy {
  const { spec, namespace, name, place } = policy;
  const label = `NetworkPolicy ${namespace}/${name}`;
  const rulesOf = (direction: Direction, type: 'Ingress' | 'Egress') => {
    if (!spec.policyTypes.includes(type)) return undefined;
    return spec[direction].map((rule, index): Rule => {
      const tests = rule.peers.map((peer) => peerTest(peer, namespace, podRanges));
      return {
        label: `${label} ${direction}[${index}]`,
        place: { ...place, path: `${place.path}/spec/${direction}/${index}` },
        action: 'Allow',
        matches: tests.length === 0 ? () => 'yes' : anyOf(tests),
        peersText: () => rule.peers.map((peer) => peerText(peer, namespace)).join('; or ') || 'everyone',
        doubt: `a pod's address is not known, which ${PEERS_FIELD[direction]} compares with an ipBlock`,
        ports: (destination) => portsOf(rule.ports, destination),
        hasFixedPorts: !rule.ports.some(({ port }) => typeof port === 'string'),
      };
    });
  };
  return {
    tier: 'namespace',
    label,
    place,
    selects: (pod) => pod.namespace.name === namespace && selects(spec.podSelector, pod.labels),
    ingress: rulesOf('ingress', 'Ingress'),
    egress: rulesOf('egress', 'Egress'),
  };
}

/** A test that holds when one of the tests holds. */
export function anyOf(tests: readonly PeerTest[]): PeerTest {
  return (peer, mode) => {
    let best: Match = 'no';
    for (const test of tests) {
      const match = test(peer, mode);
      if (match === 'yes') return match;
      if (match === 'maybe') best = match;
    }
    return best;
  };
}

/** Pods by selectors; a pod on the host's network has the node's address and is none. */
export function podTest(namespaces: (namespace: Pod['namespace']) => boolean, pods: LabelSelector): PeerTest {
  return (peer) => {
    if (peer.kind !== 'pod' || peer.pod.hostNetwork) return 'no';
    return namespaces(peer.pod.namespace) && selects(pods, peer.pod.labels) ? 'yes' : 'no';
  };
}

/** Addresses; those of a pod when they are known, else what holds for all pods of `podRanges`. */
export function addressTest(set: AddressSet, podRanges: AddressSet): PeerTest {
  const families = [ALL_IPV4, ALL_IPV6].filter((family) => intersect(set, family).length > 0);
  const possible = intersect(
    podRanges,
    families.reduce<AddressSet>((all, family) => union(all, family), []),
  );
  const unknown = possible.length > 0 && covers(set, possible) ? 'yes' : intersect(set, possible).length > 0 ? 'maybe' : 'no';
  return (peer) => {
    if (peer.kind === 'pod' && peer.pod.addresses.length === 0) return unknown;
    const addresses = peer.kind === 'pod' ? peer.pod.addresses : peer.addresses;
    return intersect(set, addresses).length > 0 ? 'yes' : 'no';
  };
}

/** What an ipBlock covers. */
export function blockAddresses({ cidr, except = [] }: NonNullable<NetworkPolicyPeer['ipBlock']>): AddressSet {
  return except.reduce((set, hole) => subtract(set, addressesOf(hole)), addressesOf(cidr));
}

/** One item of `from` or `to`, in a policy of a namespace. */
export function peerTest(peer: NetworkPolicyPeer, namespace: string, podRanges: AddressSet): PeerTest {
  if (peer.ipBlock) {
    const test = addressTest(blockAddresses(peer.ipBlock), podRanges);
    return (end, mode) => (mode === 'external-only' && end.kind === 'pod' ? 'no' : test(end, mode));
  }
  const { namespaceSelector, podSelector = {} } = peer;
  if (!namespaceSelector) return podTest(({ name }) => name === namespace, podSelector);
  return podTest(({ labels }) => selects(namespaceSelector, labels), podSelector);
}

/** A peer in words. */
function peerText({ ipBlock, namespaceSelector, podSelector = {} }: NetworkPolicyPeer, namespace: string): string {
  if (ipBlock) return `addresses of ${ipBlock.cidr}${(ipBlock.except ?? []).map((hole) => ` without ${hole}`).join(',')}`;
  const where = namespaceSelector ? `namespaces ${selectorText(namespaceSelector)}` : `namespace ${namespace}`;
  return `pods ${selectorText(podSelector)} in ${where}`;
}

function portsOf(ports: readonly NetworkPolicyPort[], destination: Endpoint): ConnectionSet {
  if (ports.length === 0) return ALL_CONNECTIONS;
  return ports.map((port) => portOf(port, destination)).reduce(unionConnections, NO_CONNECTIONS);
}

function portOf({ protocol, port, endPort }: NetworkPolicyPort, destination: Endpoint): ConnectionSet {
  if (port === undefined) return { ...NO_CONNECTIONS, [protocol]: ALL_PORTS };
  if (typeof port === 'number') return portRange(protocol, port, endPort ?? port);
  return namedPorts(destination, port, (declared) => declared === protocol);
}

/** The container ports of that name; nothing when the destination is no pod or has none. */
export function namedPorts(destination: Endpoint, name: string, wanted: (protocol: string) => boolean): ConnectionSet {
  if (destination.kind !== 'pod') return NO_CONNECTIONS;
  return destination.pod.ports
    .filter((declared) => declared.name === name && wanted(declared.protocol))
    .map((declared) => portRange(declared.protocol, declared.port))
    .reduce(unionConnections, NO_CONNECTIONS);
}
