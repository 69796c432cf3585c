import type { Clause, Term } from './selector.ts';

/** What selectors look at in an agent. */
export interface AgentTraits {
  readonly labels: readonly string[];
  readonly annotations: Readonly<Record<string, string>>;
  /** What it reported, its `kubernetes_version` included. */
  readonly capabilities: Readonly<Record<string, string>>;
}

/**
 * The version at the front of a text: `v1.36.3-rc.1` is [1, 36, 3], what is left out is 0. Undefined when there is none. The
 * same as `version_numbers` in the database.
 */
export function versionNumbers(text: string): readonly [number, number, number] | undefined {
  const match = /^v?([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:\.([0-9]{1,9}))?(?:[-+].*)?$/s.exec(text);
  return match ? [Number(match[1]), Number(match[2] ?? 0), Number(match[3] ?? 0)] : undefined;
}

/** Whether a term holds for an agent; the same as the view `selected` in the database, which decides. */
export function termHolds({ source, key, operator, operands }: Term, traits: AgentTraits): boolean {
  const values = valuesOf(source, key, traits);
  const some = values.some((value) => operands.includes(value));
  switch (operator) {
    case 'every':
      return true;
    case 'in':
      return some;
    case 'not_in':
      return !some;
    case 'exists':
      return values.length > 0;
    case 'does_not_exist':
      return values.length === 0;
    case 'gte':
      return ordered(values[0], operands[0], (order) => order >= 0);
    case 'lt':
      return ordered(values[0], operands[0], (order) => order < 0);
  }
}

/** Of several clauses the one that holds, or else the one of which the fewest terms fail, with those. */
export function nearestClause(
  clauses: readonly Clause[],
  traits: AgentTraits,
): { readonly clause: Clause; readonly failing: readonly Term[] } | undefined {
  return clauses
    .map((clause) => ({ clause, failing: clause.filter((term) => !termHolds(term, traits)) }))
    .sort((a, b) => a.failing.length - b.failing.length)[0];
}

/** A term for people, for example `annotation region in (eu, us)`. */
export function termText({ source, key, operator, operands }: Term): string {
  const name = key === '' ? source : source === 'capability' ? key : `${source} ${key}`;
  const list = operands.length === 1 && source === 'label' ? operands[0] : `(${operands.join(', ')})`;
  switch (operator) {
    case 'every':
      return 'every agent';
    case 'in':
      return source === 'label' && operands.length === 1 ? `label ${list}` : `${name} in ${list}`;
    case 'not_in':
      return source === 'label' && operands.length === 1 ? `not label ${list}` : `${name} not in ${list}`;
    case 'exists':
      return name;
    case 'does_not_exist':
      return `no ${name}`;
    case 'gte':
      return `${name} >= ${operands[0]}`;
    case 'lt':
      return `${name} < ${operands[0]}`;
  }
}

/** What an agent has where a term looks, for people. */
export function foundText({ source, key }: Term, traits: AgentTraits): string {
  const values = valuesOf(source, key, traits);
  if (source === 'label') return values.length === 0 ? 'no labels' : values.join(', ');
  return values.length === 0 ? `no ${key}` : `${key}=${values[0]}`;
}

function valuesOf(source: Term['source'], key: string, { labels, annotations, capabilities }: AgentTraits): readonly string[] {
  if (source === 'label') return labels;
  const pairs = source === 'annotation' ? annotations : source === 'capability' ? capabilities : {};
  return Object.hasOwn(pairs, key) ? [pairs[key] ?? ''] : [];
}

function ordered(value: string | undefined, bound: string | undefined, fits: (order: number) => boolean): boolean {
  const [a, b] = [versionNumbers(value ?? ''), versionNumbers(bound ?? '')];
  if (!a || !b) return false;
  return fits(a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
}
