import { CelError, type CelProgram, celValue, compileCel } from './cel.ts';
import type { ValueObject } from './object.ts';
import { eachBounded } from './watchdog.ts';

/** How the health of a kind is told: expressions over `object`, '' where there is none. See `HealthRule` of the contract. */
export interface HealthExpressions {
  readonly current: string;
  readonly progressing: string;
  readonly failed: string;
  /** A text. */
  readonly message: string;
}

/** An object and the rule for it. */
export interface HealthQuestion {
  readonly rule: HealthExpressions;
  readonly object: ValueObject;
}

/** What a rule says of an object. `killed`: it took too long and says nothing; `invalid`: it cannot be used, and why. */
export type HealthVerdict =
  | { readonly kind: 'judged'; readonly state: 'ready' | 'progressing' | 'failing'; readonly message: string }
  | { readonly kind: 'invalid'; readonly message: string }
  | { readonly kind: 'killed' };

/** How long a rule may work on one object. */
const HEALTH_RULE_MS = 50;

/** Judges objects by rules, in the order given. A rule that was killed once is not tried again in this call. */
export function judgeHealth(questions: readonly HealthQuestion[]): HealthVerdict[] {
  const compiled = new Map<HealthExpressions, Compiled>();
  for (const { rule } of questions) if (!compiled.has(rule)) compiled.set(rule, compile(rule));
  const killed = new Set<HealthExpressions>();
  const verdicts: HealthVerdict[] = questions.map(() => ({ kind: 'killed' }));
  const judge = (index: number) => {
    const question = questions[index];
    const programs = question && compiled.get(question.rule);
    if (!programs || killed.has(question.rule)) return;
    verdicts[index] = evaluate(programs, question.object);
  };
  eachBounded(questions.length, HEALTH_RULE_MS, judge, (index) => {
    const question = questions[index];
    if (question) killed.add(question.rule);
  });
  return verdicts;
}

/** Why a rule cannot be used; undefined when it can. */
export function healthRuleProblem(rule: HealthExpressions): string | undefined {
  const compiled = compile(rule);
  return 'invalid' in compiled ? compiled.invalid : undefined;
}

interface Programs {
  readonly failed: CelProgram<'bool'> | undefined;
  readonly progressing: CelProgram<'bool'> | undefined;
  readonly current: CelProgram<'bool'> | undefined;
  readonly message: CelProgram<'string'> | undefined;
}

type Compiled = Programs | { readonly invalid: string };

function compile(rule: HealthExpressions): Compiled {
  let field: keyof HealthExpressions = 'failed';
  const variables = ['object'];
  const bool = (name: 'failed' | 'progressing' | 'current') => {
    field = name;
    return rule[name] === '' ? undefined : compileCel(rule[name], variables, 'bool');
  };
  try {
    const [failed, progressing, current] = [bool('failed'), bool('progressing'), bool('current')];
    field = 'message';
    const message = rule.message === '' ? undefined : compileCel(rule.message, variables, 'string');
    return { failed, progressing, current, message };
  } catch (error) {
    if (error instanceof CelError) return { invalid: `${field}: ${error.message}` };
    throw error;
  }
}

function evaluate(programs: Compiled, object: ValueObject): HealthVerdict {
  if ('invalid' in programs) return { kind: 'invalid', message: programs.invalid };
  const variables = { object: celValue(object) };
  try {
    const state = holds(programs.failed, variables)
      ? 'failing'
      : !holds(programs.progressing, variables) && holds(programs.current, variables)
        ? 'ready'
        : 'progressing';
    return { kind: 'judged', state, message: textOf(programs.message, variables) };
  } catch (error) {
    if (error instanceof CelError) return { kind: 'invalid', message: error.message };
    throw error;
  }
}

/** What asks for a field that is not there does not hold: a status is filled in bit by bit. */
function holds(program: CelProgram<'bool'> | undefined, variables: Record<string, unknown>): boolean {
  return program !== undefined && unlessAbsent(() => program.evaluate(variables), false);
}

function textOf(program: CelProgram<'string'> | undefined, variables: Record<string, unknown>): string {
  return program === undefined ? '' : unlessAbsent(() => program.evaluate(variables), '');
}

function unlessAbsent<Result>(evaluated: () => Result, otherwise: Result): Result {
  try {
    return evaluated();
  } catch (error) {
    if (error instanceof CelError && error.absent) return otherwise;
    throw error;
  }
}
