import type { Direction, Protocol } from '#flows/model/model.ts';
import { hasPort } from '#flows/sets/connections.ts';
import type { Place } from './cluster.ts';
import { type Endpoint, endpointLabel } from './endpoint.ts';
import type { ActingPolicies, PolicyIndex } from './policy-index.ts';
import type { IpBlockMode, Match, Policy, Rule } from './rules.ts';

/** Whether a connection can be opened; `undecidable` when a fact is missing. */
export type Outcome = 'allowed' | 'denied' | 'undecidable';

/** What decided: a rule or a policy, and where it is. */
export interface Decider {
  readonly label: string;
  readonly place: Place;
}

/** What one side says: egress at the source or ingress at the destination. */
export interface SideVerdict {
  readonly outcome: Outcome;
  /** One line, such as `no-ingress-rule: NetworkPolicy shop/db isolates shop/db and no rule of it admits shop/api on TCP 80`. */
  readonly reason: string;
  /** Rules that decided; without one, the policies that isolate. Empty when nothing acts on the side. */
  readonly by: readonly Decider[];
}

/** The verdict about one cell in one mode. */
export interface CellVerdict {
  readonly verdict: Outcome;
  /** One line; of a denied cell, what each side that denies says. */
  readonly reason: string;
  readonly egress: SideVerdict;
  readonly ingress: SideVerdict;
}

/** One connection that is asked about. */
export interface Cell {
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly protocol: Protocol;
  /** 1 to 65535. */
  readonly port: number;
}

/** Whether both ends are one and the same pod; a workload to itself is one replica to another. */
export function isSamePod(source: Endpoint, destination: Endpoint): boolean {
  return source.kind === 'pod' && destination.kind === 'pod' && source.index === destination.index && source.pod.kind === 'Pod';
}

/** Judges one cell rule by rule, as the API says it (NetworkPolicy v1, AdminNetworkPolicy v1alpha1). */
export function judgeCell(policies: PolicyIndex, cell: Cell, mode: IpBlockMode): CellVerdict {
  const { source, destination } = cell;
  if (isSamePod(source, destination)) {
    const side: SideVerdict = { outcome: 'allowed', reason: 'a pod always reaches itself', by: [] };
    return { verdict: 'allowed', reason: side.reason, egress: side, ingress: side };
  }
  const egress = judgeSide(policies, cell, 'egress', mode);
  const ingress = judgeSide(policies, cell, 'ingress', mode);
  const verdict = worse(egress.outcome, ingress.outcome);
  const reasons = [egress, ingress].filter(({ outcome }) => outcome === verdict).map(({ reason }) => reason);
  return { verdict, reason: [...new Set(reasons)].join('; '), egress, ingress };
}

function worse(a: Outcome, b: Outcome): Outcome {
  if (a === 'denied' || b === 'denied') return 'denied';
  return a === 'undecidable' ? a : b;
}

function judgeSide(policies: PolicyIndex, cell: Cell, direction: Direction, mode: IpBlockMode): SideVerdict {
  const subject = direction === 'egress' ? cell.source : cell.destination;
  if (subject.kind !== 'pod') return open(`${endpointLabel(subject)} is no pod`);
  if (subject.pod.hostNetwork) return open(`${endpointLabel(subject)} is on the host's network`);
  const acting = policies(subject.pod, direction);
  const doubted = acting.foreign[0]?.[direction]?.[0];
  if (doubted) return undecidable(doubted);
  const peer = direction === 'egress' ? cell.destination : cell.source;
  const match = (rule: Rule): Match => {
    if (!hasPort(rule.ports(cell.destination), cell.protocol, cell.port)) return 'no';
    return rule.matches(peer, mode);
  };
  const byAdmin = firstOf(acting.admin, direction, match);
  if (byAdmin) return byAdmin;
  if (acting.namespace.length > 0) return judgeIsolated(acting, cell, direction, match);
  return firstOf(acting.baseline, direction, match) ?? open(`no policy isolates ${endpointLabel(subject)} for ${direction}`);
}

/** NetworkPolicies: rules only add, in no order. */
function judgeIsolated(acting: ActingPolicies, cell: Cell, direction: Direction, match: (rule: Rule) => Match): SideVerdict {
  const rules = acting.namespace.flatMap((policy) => policy[direction] ?? []);
  const admitting = rules.filter((rule) => match(rule) === 'yes');
  if (admitting.length > 0) {
    return { outcome: 'allowed', reason: `${admitting.map(({ label }) => label).join(', ')} allows it`, by: admitting };
  }
  const maybe = rules.find((rule) => match(rule) === 'maybe');
  if (maybe) return undecidable(maybe);
  const labels = acting.namespace.map(({ label }) => label).join(', ');
  const [subject, peer] = [cell.source, cell.destination].map(endpointLabel);
  const what =
    direction === 'egress'
      ? `no-egress-rule: ${labels} isolates ${subject}, and no rule lets it open ${cell.protocol} ${cell.port} to ${peer}`
      : `no-ingress-rule: ${labels} isolates ${peer}, and no rule admits ${subject} on ${cell.protocol} ${cell.port}`;
  return { outcome: 'denied', reason: what, by: acting.namespace };
}

/** The admin tiers: the first rule that matches decides; undefined when none does, or when it passes on. */
function firstOf(policies: readonly Policy[], direction: Direction, match: (rule: Rule) => Match): SideVerdict | undefined {
  for (const rule of policies.flatMap((policy) => policy[direction] ?? [])) {
    const matched = match(rule);
    if (matched === 'no') continue;
    if (matched === 'maybe') return undecidable(rule);
    if (rule.action === 'Pass') return undefined;
    const outcome = rule.action === 'Allow' ? 'allowed' : 'denied';
    return { outcome, reason: `${rule.label} ${rule.action === 'Allow' ? 'allows' : 'denies'} it`, by: [rule] };
  }
  return undefined;
}

function open(why: string): SideVerdict {
  return { outcome: 'allowed', reason: why, by: [] };
}

function undecidable(rule: Rule): SideVerdict {
  return { outcome: 'undecidable', reason: `${rule.label}: ${rule.doubt}`, by: [rule] };
}
