import { CelError, type CelProgram, celValue, compileCel } from './cel.ts';
import { matchesGlob } from './glob.ts';
import { isMapping, type ObjectKey, type ValueObject } from './object.ts';
import { type Ceilings, checkWorkload } from './rules-workload.ts';
import { eachBounded } from './watchdog.ts';
import { jsonPointer } from './yaml-problems.ts';

/** What is allowed, by patterns with `*`; what is forbidden wins. Everything is allowed when nothing is said. */
export interface Allowance {
  readonly allowed?: readonly string[];
  readonly forbidden?: readonly string[];
}

/** The rules of an environment as its file gives them (docs/apply.md). Patterns of kinds are `Kind` or `group/Kind`, the core group is `core`. */
export interface Rules {
  readonly namespaces?: Allowance;
  readonly kinds?: Allowance;
  readonly labels?: readonly { readonly kinds?: readonly string[]; readonly required: readonly string[] }[];
  readonly ceilings?: Ceilings;
  readonly images?: { readonly allowed: readonly string[] };
  readonly expressions?: readonly Expression[];
}

/** A rule in CEL over `object` and `stack` (its `name`): what it is true for is allowed. */
export interface Expression {
  readonly name: string;
  readonly kinds?: readonly string[];
  readonly expression: string;
  readonly message: string;
}

/** An object to be judged, as it will be applied but for what Brokkr adds. */
export interface RuledObject {
  /** Namespace as it will be. */
  readonly key: ObjectKey;
  readonly object: ValueObject;
}

/** Takes what is against a rule. Messages are made of the rules alone and never quote the object. */
export type ReportRule<Item extends RuledObject> = (object: Item, rule: string, path: string, message: string) => void;

/** Variables of an expression. */
export const RULE_VARIABLES = ['object', 'stack'] as const;

/** How long one expression may work on one object. */
const EXPRESSION_MS = 50;

/** Judges objects of one stack by the rules of the environment and reports everything against them. Throws when an expression is invalid. */
export function checkRules<Item extends RuledObject>(
  rules: Rules,
  stackName: string,
  objects: readonly Item[],
  report: ReportRule<Item>,
): void {
  for (const item of objects) {
    const tell = (rule: string, path: string, message: string) => report(item, rule, path, message);
    checkPlace(rules, item.key, tell);
    checkLabels(rules, item, tell);
    checkWorkload(item.key, item.object, { ceilings: rules.ceilings, images: rules.images?.allowed }, tell);
  }
  if (rules.expressions) checkExpressions(rules.expressions, stackName, objects, report);
}

/** Takes what is against a rule of an object that is known. */
export type Tell = (rule: string, path: string, message: string) => void;

function checkPlace(rules: Rules, key: ObjectKey, tell: Tell): void {
  const own = key.kind === 'Namespace' && key.group === '';
  const namespace = own ? key.name : key.namespace;
  if (namespace !== '' && rules.namespaces && !allows(rules.namespaces, (pattern) => matchesGlob(pattern, namespace))) {
    tell('forbidden_namespace', own ? '/metadata/name' : '/metadata/namespace', 'the namespace is not allowed here');
  }
  if (rules.kinds && !allows(rules.kinds, (pattern) => matchesKind(pattern, key))) {
    tell('forbidden_kind', '/kind', 'the kind is not allowed here');
  }
}

function allows({ allowed, forbidden = [] }: Allowance, matches: (pattern: string) => boolean): boolean {
  return !forbidden.some(matches) && (allowed === undefined || allowed.some(matches));
}

/** Whether a pattern is for a kind: `Kind` for that of any group, or `group/Kind`. */
function matchesKind(pattern: string, { group, kind }: ObjectKey): boolean {
  return matchesGlob(pattern, pattern.includes('/') ? `${group || 'core'}/${kind}` : kind);
}

/** Without patterns a rule is for all kinds. */
function concerns(patterns: readonly string[] | undefined, key: ObjectKey): boolean {
  return patterns === undefined || patterns.some((pattern) => matchesKind(pattern, key));
}

function checkLabels({ labels = [] }: Rules, { key, object }: RuledObject, tell: Tell): void {
  const metadata = isMapping(object.metadata) ? object.metadata : {};
  const present = isMapping(metadata.labels) ? metadata.labels : {};
  const missing = new Set<string>();
  for (const { kinds, required } of labels) {
    if (!concerns(kinds, key)) continue;
    for (const label of required) if (!present[label]) missing.add(label);
  }
  for (const label of missing) tell('missing_label', jsonPointer('metadata', 'labels', label), 'the label is required here');
}

/** Expressions see every object of theirs, at most `EXPRESSION_MS` each. One that cannot be evaluated allows nothing. */
function checkExpressions<Item extends RuledObject>(
  expressions: readonly Expression[],
  stackName: string,
  objects: readonly Item[],
  report: ReportRule<Item>,
): void {
  const programs = expressions.map((rule) => ({ ...rule, program: compileCel(rule.expression, RULE_VARIABLES, 'bool') }));
  const stack = { name: stackName };
  for (const { name, kinds, program, message } of programs) {
    const items = objects.filter(({ key }) => concerns(kinds, key));
    const problems = new Map<number, string>();
    let killed = false;
    const judge = (index: number) => {
      const item = items[index];
      if (killed || !item) return; // it would take as long again for each of them, and one is enough to refuse all
      const problem = evaluate(program, { object: celValue(item.object), stack }, message);
      if (problem !== undefined) problems.set(index, problem);
    };
    eachBounded(items.length, EXPRESSION_MS, judge, (index) => {
      killed = true;
      problems.set(index, `the rule took longer than ${EXPRESSION_MS} ms on this object and was not tried on those after it`);
    });
    for (const [index, problem] of problems) report(items[index] as Item, `rule:${name}`, '', problem);
  }
}

function evaluate(program: CelProgram<'bool'>, variables: Record<string, unknown>, message: string): string | undefined {
  try {
    return program.evaluate(variables) ? undefined : message;
  } catch (error) {
    if (error instanceof CelError) return `the rule cannot be evaluated: ${error.message}`;
    throw error;
  }
}
