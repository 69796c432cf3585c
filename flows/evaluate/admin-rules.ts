import type { Direction } from '#flows/model/model.ts';
import { PROTOCOLS } from '#flows/model/model.ts';
import { type AddressSet, addressesOf } from '#flows/sets/addresses.ts';
import { ALL_CONNECTIONS, type ConnectionSet, NO_CONNECTIONS, portRange, unionConnections } from '#flows/sets/connections.ts';
import { intersect, union } from '#flows/sets/intervals.ts';
import type { AdminPeer, AdminPort } from './admin-policy.ts';
import type { AdminPolicy, Cluster, ForeignPolicy, Pod } from './cluster.ts';
import type { Endpoint } from './endpoint.ts';
import { selects } from './label-selector.ts';
import { addressTest, anyOf, namedPorts, type PeerTest, type Policy, podTest, type Rule } from './rules.ts';

/**
 * A policy of the admin tiers as rules. Its `networks` are compared with the addresses of pods too, whatever the CNI makes of an ipBlock
 * (network-policy-api, `AdminNetworkPolicyEgressPeer`).
 */
export function adminPolicyRules(policy: AdminPolicy, cluster: Cluster, podRanges: AddressSet): Policy {
  const { spec, kind, name, place } = policy;
  const label = `${kind} ${name}`;
  const rulesOf = (direction: Direction) =>
    spec[direction].map(
      (rule, index): Rule => ({
        label: `${label} ${direction}[${index}]`,
        place: { ...place, path: `${place.path}/spec/${direction}/${index}` },
        action: rule.action,
        matches: anyOf(rule.peers.map((peer) => adminPeerTest(peer, cluster, podRanges))),
        peersText: () => JSON.stringify(rule.peers),
        doubt: 'an address is not known which the rule compares: of a pod, or of a node that is not among the documents',
        ports: (destination) => adminPorts(rule.ports, destination),
        hasFixedPorts: !rule.ports?.some(({ namedPort }) => namedPort !== undefined),
      }),
    );
  return {
    tier: kind === 'AdminNetworkPolicy' ? 'admin' : 'baseline',
    label,
    place,
    selects: (pod) => isSubject(spec.subject, pod),
    ingress: rulesOf('ingress'),
    egress: rulesOf('egress'),
  };
}

/** A policy that is not evaluated: its one rule matches maybe. See `ForeignPolicy` for those that reach outside only. */
export function foreignPolicyRules(policy: ForeignPolicy): Policy {
  const { kind, namespace, name, selector, directions, outsideOnly, place } = policy;
  const label = `${kind} ${namespace === '' ? '' : `${namespace}/`}${name}`;
  const isPod = (peer: Endpoint) => peer.kind === 'pod' && !peer.pod.hostNetwork;
  const rule: Rule = {
    label,
    place,
    action: 'Allow',
    matches: (peer) => (outsideOnly && isPod(peer) ? 'no' : 'maybe'),
    peersText: () => 'not known',
    doubt: `policies of kind ${kind} are not evaluated`,
    ports: () => ALL_CONNECTIONS,
    hasFixedPorts: true,
  };
  return {
    tier: outsideOnly ? 'namespace' : 'foreign',
    label,
    place,
    selects: (pod) => (namespace === '' || pod.namespace.name === namespace) && selects(selector, pod.labels),
    ingress: directions.includes('ingress') ? [rule] : undefined,
    egress: directions.includes('egress') ? [rule] : undefined,
  };
}

function isSubject({ namespaces, pods }: AdminPeer, pod: Pod): boolean {
  if (namespaces) return selects(namespaces, pod.namespace.labels);
  return pods !== undefined && selects(pods.namespaceSelector, pod.namespace.labels) && selects(pods.podSelector, pod.labels);
}

function adminPeerTest(peer: AdminPeer, cluster: Cluster, podRanges: AddressSet): PeerTest {
  const { namespaces, pods, nodes, networks } = peer;
  if (namespaces) return podTest(({ labels }) => selects(namespaces, labels), {});
  if (pods) return podTest(({ labels }) => selects(pods.namespaceSelector, labels), pods.podSelector);
  if (networks)
    return addressTest(
      networks.reduce<AddressSet>((set, cidr) => union(set, addressesOf(cidr)), []),
      podRanges,
    );
  return nodes ? nodeTest(nodes, cluster) : () => 'no';
}

/** Nodes and what runs on their network; without any Node among the documents every address may be one. */
function nodeTest(selector: NonNullable<AdminPeer['nodes']>, { nodes }: Cluster): PeerTest {
  const selected = nodes.filter(({ labels }) => selects(selector, labels));
  const addresses = selected.reduce<AddressSet>((set, node) => union(set, node.addresses), []);
  return (peer) => {
    if (peer.kind === 'pod' && !peer.pod.hostNetwork) return 'no';
    if (nodes.length === 0) return 'maybe';
    if (peer.kind === 'addresses') return intersect(addresses, peer.addresses).length > 0 ? 'yes' : 'no';
    const { nodeName } = peer.pod;
    if (nodes.some(({ name }) => name === nodeName)) return selected.some(({ name }) => name === nodeName) ? 'yes' : 'no';
    return selected.length === nodes.length ? 'yes' : selected.length === 0 ? 'no' : 'maybe';
  };
}

function adminPorts(ports: readonly AdminPort[] | undefined, destination: Endpoint): ConnectionSet {
  if (ports === undefined || ports.length === 0) return ALL_CONNECTIONS;
  return ports.map((port) => adminPort(port, destination)).reduce(unionConnections, NO_CONNECTIONS);
}

function adminPort({ portNumber, portRange: range, namedPort }: AdminPort, destination: Endpoint): ConnectionSet {
  if (portNumber) return portRange(portNumber.protocol, portNumber.port);
  if (range) return portRange(range.protocol, range.start, range.end);
  return namedPorts(destination, namedPort ?? '', (protocol) => PROTOCOLS.some((each) => each === protocol));
}
