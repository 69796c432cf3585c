import type { PolicyPeer } from './peers.ts';
import type { PolicyPort } from './policy-ports.ts';

/** A rule of a NetworkPolicy; without peers everybody is meant. */
export interface PolicyRule {
  readonly from?: readonly PolicyPeer[];
  readonly to?: readonly PolicyPeer[];
  readonly ports: readonly PolicyPort[];
}

/** A rule and the ids of the flows it is there for. */
export interface TracedRule {
  readonly ids: readonly string[];
  readonly rule: PolicyRule;
}

/** Rules of one direction. Those that are the same, and those that say less than one for everybody, become one with the flows of all. */
export function mergeRules(rules: readonly TracedRule[]): TracedRule[] {
  const open = rules.filter(({ rule }) => rule.from === undefined && rule.to === undefined);
  const merged = new Map<string, TracedRule>();
  for (const { ids, rule } of rules) {
    const kept =
      open.find((wider) => rule.ports.every((port) => wider.rule.ports.some((other) => covers(other, port))))?.rule ?? rule;
    const key = JSON.stringify(kept);
    merged.set(key, { ids: [...new Set([...(merged.get(key)?.ids ?? []), ...ids])], rule: kept });
  }
  return [...merged.values()];
}

function covers(wide: PolicyPort, narrow: PolicyPort): boolean {
  if (wide.protocol !== narrow.protocol) return false;
  if (wide.port === undefined) return true;
  if (typeof wide.port === 'string' || typeof narrow.port !== 'number') return wide.port === narrow.port;
  return wide.port <= narrow.port && (narrow.endPort ?? narrow.port) <= (wide.endPort ?? wide.port);
}
