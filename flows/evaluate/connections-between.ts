import type { Direction } from '#flows/model/model.ts';
import { ALL, type ConnectionId, type ConnectionTable, NONE } from '#flows/sets/connection-table.ts';
import type { Endpoint, PodEndpoint } from './endpoint.ts';
import type { PolicyIndex } from './policy-index.ts';
import type { IpBlockMode, Match, Policy, Rule } from './rules.ts';
import { isSamePod } from './verdict.ts';

/** What may be opened from one end to another, as sets of a `ConnectionTable`. */
export interface Connections {
  readonly allowed: ConnectionId;
  /** Neither allowed nor denied for certain; holds nothing of `allowed`. */
  readonly undecidable: ConnectionId;
}

/** Works out what may be opened from one end to another. */
export type ConnectionsBetween = (source: Endpoint, destination: Endpoint) => Connections;

const EVERYTHING: Connections = { allowed: ALL, undecidable: NONE };

/**
 * The whole set of ports between two ends at once. Says of every port what `judgeCell` says of it. What a rule makes of a pod is worked
 * out once, and what acts on a pod is gathered once, so that a pair takes a look-up for each rule that acts on it.
 */
export function createConnectionsBetween(
  policies: PolicyIndex,
  table: ConnectionTable,
  mode: IpBlockMode,
  podCount: number,
): ConnectionsBetween {
  const remembered = new Map<Rule, RememberedRule>();
  const remember = (rule: Rule): RememberedRule => {
    const known = remembered.get(rule);
    if (known) return known;
    const made = rememberRule(rule, table, mode, podCount);
    remembered.set(rule, made);
    return made;
  };
  const sides: Readonly<Record<Direction, (Side | undefined)[]>> = { ingress: [], egress: [] };
  const sideOf = ({ pod, index }: PodEndpoint, direction: Direction): Side => {
    const known = sides[direction][index];
    if (known) return known;
    const { foreign, admin, namespace, baseline } = policies(pod, direction);
    const rulesOf = (acting: readonly Policy[]) => acting.flatMap((policy) => policy[direction] ?? []).map(remember);
    const isolated = namespace.length > 0;
    const side = {
      isForeign: foreign.length > 0,
      admin: rulesOf(admin),
      isolated,
      last: rulesOf(isolated ? namespace : baseline),
    };
    sides[direction][index] = side;
    return side;
  };
  const judge = (direction: Direction, subject: Endpoint, peer: Endpoint, destination: Endpoint): Connections => {
    if (subject.kind !== 'pod') return EVERYTHING;
    const { isForeign, admin, isolated, last } = sideOf(subject, direction);
    if (isForeign) return { allowed: NONE, undecidable: ALL };
    if (admin.length === 0) return isolated ? added(table, last, peer, destination) : ordered(table, last, peer, destination);
    return ordered(table, admin, peer, destination, (rest) => {
      const next = isolated ? added(table, last, peer, destination) : ordered(table, last, peer, destination);
      return { allowed: table.intersect(rest, next.allowed), undecidable: table.intersect(rest, next.undecidable) };
    });
  };
  return (source, destination) => {
    if (isSamePod(source, destination)) return EVERYTHING;
    const egress = judge('egress', source, destination, destination);
    if (egress.allowed === NONE && egress.undecidable === NONE) return egress;
    return both(table, egress, judge('ingress', destination, source, destination));
  };
}

/** What acts on a pod in one direction. */
interface Side {
  readonly isForeign: boolean;
  readonly admin: readonly RememberedRule[];
  readonly isolated: boolean;
  /** Of NetworkPolicies when they isolate, else of the baseline. */
  readonly last: readonly RememberedRule[];
}

/** NetworkPolicies: rules only add, in no order. */
function added(table: ConnectionTable, rules: readonly RememberedRule[], peer: Endpoint, destination: Endpoint): Connections {
  let [allowed, maybe] = [NONE, NONE];
  for (const rule of rules) {
    const match = rule.match(peer);
    if (match === 'yes') allowed = table.union(allowed, rule.ports(destination));
    else if (match === 'maybe') maybe = table.union(maybe, rule.ports(destination));
  }
  return { allowed, undecidable: table.subtract(maybe, allowed) };
}

/** The admin tiers: of each port the first rule decides; `next` says what becomes of ports that none decides, or that are passed on. */
function ordered(
  table: ConnectionTable,
  rules: readonly RememberedRule[],
  peer: Endpoint,
  destination: Endpoint,
  next: (rest: ConnectionId) => Connections = (rest) => ({ allowed: rest, undecidable: NONE }),
): Connections {
  let [undecided, allowed, maybe, passed] = [ALL, NONE, NONE, NONE];
  for (const rule of rules) {
    const match = rule.match(peer);
    if (match === 'no') continue;
    const part = table.intersect(undecided, rule.ports(destination));
    undecided = table.subtract(undecided, part);
    if (match === 'maybe') maybe = table.union(maybe, part);
    else if (rule.action === 'Allow') allowed = table.union(allowed, part);
    else if (rule.action === 'Pass') passed = table.union(passed, part);
  }
  const rest = next(table.union(undecided, passed));
  return { allowed: table.union(allowed, rest.allowed), undecidable: table.union(maybe, rest.undecidable) };
}

function both(table: ConnectionTable, egress: Connections, ingress: Connections): Connections {
  const allowed = table.intersect(egress.allowed, ingress.allowed);
  if (egress.undecidable === NONE && ingress.undecidable === NONE) return { allowed, undecidable: NONE };
  const possible = table.intersect(
    table.union(egress.allowed, egress.undecidable),
    table.union(ingress.allowed, ingress.undecidable),
  );
  return { allowed, undecidable: table.subtract(possible, allowed) };
}

/** A rule that is asked about each pod once. */
interface RememberedRule {
  readonly action: Rule['action'];
  readonly match: (peer: Endpoint) => Match;
  readonly ports: (destination: Endpoint) => ConnectionId;
}

const MATCHES: readonly Match[] = ['no', 'yes', 'maybe'];
const NOT_ASKED = MATCHES.length;

function rememberRule(rule: Rule, table: ConnectionTable, mode: IpBlockMode, podCount: number): RememberedRule {
  const matches = new Uint8Array(podCount).fill(NOT_ASKED);
  const byAddresses = new WeakMap<Endpoint, Match>();
  const byPod: ConnectionId[] = [];
  const onAddresses = table.idOf(rule.ports({ kind: 'addresses', addresses: [] }));
  return {
    action: rule.action,
    match(peer) {
      const at = peer.kind === 'pod' ? matches[peer.index] : undefined;
      const known = at === undefined ? byAddresses.get(peer) : MATCHES[at];
      if (known !== undefined) return known;
      const match = rule.matches(peer, mode);
      if (peer.kind === 'pod') matches[peer.index] = MATCHES.indexOf(match);
      else byAddresses.set(peer, match);
      return match;
    },
    ports(destination) {
      if (rule.hasFixedPorts || destination.kind !== 'pod') return onAddresses;
      const id = byPod[destination.index] ?? table.idOf(rule.ports(destination));
      byPod[destination.index] = id;
      return id;
    },
  };
}
