import { type Direction, PROTOCOLS } from '#flows/model/model.ts';
import { hasPort, portsText } from '#flows/sets/connections.ts';
import type { Place } from './cluster.ts';
import { type Endpoint, endpointLabel } from './endpoint.ts';
import type { Evaluator } from './evaluator.ts';
import { PEERS_FIELD } from './network-policy.ts';
import { NAMESPACE_NAME_LABEL } from './read-cluster.ts';
import type { Rule } from './rules.ts';
import type { Cell } from './verdict.ts';

/** What the rule that comes nearest to admitting a connection would have to say. */
export interface NearestRule {
  /** The rule, or the policy when none of its rules has anything of it. */
  readonly label: string;
  readonly place: Place;
  /** Lines such as `ports would have to hold TCP 5432; it has TCP 5433`. */
  readonly changes: readonly string[];
}

/**
 * For a side that isolation denies: the rule that lacks least, the first of equals. A rule that lacks only ports comes before one that
 * lacks only the peer. Undefined when no NetworkPolicy isolates the side.
 */
export function nearestRule({ policies, ipBlockMode }: Evaluator, cell: Cell, direction: Direction): NearestRule | undefined {
  const subject = direction === 'egress' ? cell.source : cell.destination;
  const peer = direction === 'egress' ? cell.destination : cell.source;
  if (subject.kind !== 'pod') return undefined;
  const isolating = policies(subject.pod, direction).namespace;
  const [policy] = isolating;
  if (!policy) return undefined;
  const rules = isolating.flatMap((each) => each[direction] ?? []);
  const judged = rules.map((rule) => ({
    rule,
    hasPeer: rule.matches(peer, ipBlockMode) === 'yes',
    hasPort: hasPort(rule.ports(cell.destination), cell.protocol, cell.port),
  }));
  const nearest = judged.find((each) => each.hasPeer) ?? judged.find((each) => each.hasPort);
  const field = PEERS_FIELD[direction];
  const [wantedPeer, wantedPort] = [peerWords(peer), `${cell.protocol} ${cell.port}`];
  if (!nearest) {
    const change = `would need a rule in ${direction}: ${field} ${wantedPeer}, ports ${wantedPort}`;
    return { label: policy.label, place: policy.place, changes: [change] };
  }
  const changes: string[] = [];
  if (!nearest.hasPeer) changes.push(`${field} would have to name ${wantedPeer}; it names ${nearest.rule.peersText()}`);
  if (!nearest.hasPort) changes.push(`ports would have to hold ${wantedPort}; it has ${portsOf(nearest.rule, cell.destination)}`);
  return { label: nearest.rule.label, place: nearest.rule.place, changes };
}

/** A peer as a rule would name it. */
function peerWords(peer: Endpoint): string {
  if (peer.kind === 'addresses') return `an ipBlock with ${endpointLabel(peer)}`;
  const { namespace, labels } = peer.pod;
  const pods = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
  return `pods ${pods.join(',') || '(without labels)'} in namespaces ${NAMESPACE_NAME_LABEL}=${namespace.name}`;
}

/** The ports of a rule at a destination, as in `TCP 80,443, UDP 53`. */
export function portsOf(rule: Rule, destination: Endpoint): string {
  const ports = rule.ports(destination);
  const texts = PROTOCOLS.filter((protocol) => ports[protocol].length > 0).map(
    (protocol) => `${protocol} ${portsText(ports[protocol])}`,
  );
  return texts.join(', ') || `none that ${endpointLabel(destination)} has`;
}
