import { type ASTNode, Environment, EvaluationError, type ParseResult } from '@marcbachmann/cel-js';
import { RE2JS } from 're2js';
import { isMapping, type Value } from './object.ts';

/** Bytes of an expression. */
const MAX_BYTES = 2048;
/** Nodes of its syntax tree. */
const MAX_NODES = 500;
/** Loops within loops: `all`, `exists`, `exists_one`, `map` and `filter` each go over a whole list. */
const MAX_LOOPS = 2;
const LOOPS: ReadonlySet<string> = new Set(['all', 'exists', 'exists_one', 'map', 'filter']);
/** Patterns kept compiled in one thread. */
const MAX_PATTERNS = 128;
/** Name under which expressions get our `matches`: the library's own, on the engine's backtracking RegExp, cannot be replaced. */
const MATCHES = 'matchesRe2';

/** What an expression may result in. */
export type CelType = 'bool' | 'string';

/** An expression that cannot be used, or could not be evaluated. The message names the column and never quotes a value. */
export class CelError extends Error {
  override readonly name = 'CelError';
  /** 1-based, in UTF-16 units of the expression. */
  readonly column: number;
  /** It asked for a field, key or item that is not there. */
  readonly absent: boolean;

  constructor(message: string, column: number, absent = false) {
    super(`${message} (column ${column} of the expression)`);
    this.column = column;
    this.absent = absent;
  }
}

/** A checked expression. */
export interface CelProgram<Type extends CelType = CelType> {
  /** Evaluates it with values of its variables (see `celValue`); throws a `CelError`. Not bounded in time: see `eachBounded`. */
  evaluate(variables: Readonly<Record<string, unknown>>): Type extends 'bool' ? boolean : string;
}

/**
 * Compiles an expression over `variables` of any type. Throws a `CelError` when it is not CEL, uses what is not there, cannot result in
 * `type`, or exceeds the bounds: 2 KiB, 500 nodes, two loops within each other. Its `matches` is RE2, so no pattern backtracks.
 */
export function compileCel<Type extends CelType>(expression: string, variables: readonly string[], type: Type): CelProgram<Type> {
  const bytes = Buffer.byteLength(expression, 'utf8');
  if (bytes > MAX_BYTES) throw new CelError(`the expression has ${bytes} bytes, the limit is ${MAX_BYTES}`, 1);
  const environment = new Environment({ limits: { maxAstNodes: MAX_NODES } });
  for (const variable of variables) environment.registerVariable(variable, 'dyn');
  environment.registerFunction(`string.${MATCHES}(string): bool`, matches);
  let parsed: ParseResult;
  try {
    parsed = environment.parse(expression);
  } catch (error) {
    throw refused(error);
  }
  restrict(parsed.ast, 0);
  const checked = parsed.check();
  if (!checked.valid) throw refused(checked.error);
  if (checked.type !== type && checked.type !== 'dyn') {
    throw new CelError(`the result is of type ${checked.type}, not ${type}`, 1);
  }
  return {
    evaluate(values) {
      let result: unknown;
      try {
        result = parsed(values);
      } catch (error) {
        throw failed(error);
      }
      if (typeof result !== (type === 'bool' ? 'boolean' : 'string')) throw new CelError(`the result is not a ${type}`, 1);
      return result as Type extends 'bool' ? boolean : string;
    },
  };
}

/** A value as CEL takes it: whole numbers are its integers. */
export function celValue(value: Value): unknown {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? BigInt(value) : value;
  if (Array.isArray(value)) return value.map(celValue);
  if (!isMapping(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, celValue(item)]));
}

/** Refuses loops that are too deep and gives the expression our `matches`. */
function restrict(node: ASTNode, loops: number): void {
  if (node.op !== 'rcall') {
    visit(node.args, loops);
    return;
  }
  const [name, receiver, args] = node.args;
  // With names for values an expression of a few words could double a text a hundred times.
  if (name === 'bind') throw new CelError('bind is not available', node.pos + 1);
  if (name === 'matches') {
    node.args[0] = MATCHES;
    const [pattern] = args;
    if (pattern?.op === 'value' && typeof pattern.args === 'string') compilePattern(pattern.args, pattern.pos + 1);
  }
  const inner = LOOPS.has(name) ? loops + 1 : loops;
  if (inner > MAX_LOOPS) throw new CelError(`loops are nested deeper than ${MAX_LOOPS}`, node.pos + 1);
  visit(receiver, loops); // a loop over the result of a loop is not within it
  visit(args, inner);
}

function visit(part: unknown, loops: number): void {
  if (Array.isArray(part)) for (const item of part) visit(item, loops);
  else if (isNode(part)) restrict(part, loops);
}

function isNode(part: unknown): part is ASTNode {
  return typeof part === 'object' && part !== null && 'op' in part && 'args' in part;
}

const patterns = new Map<string, RE2JS>();

function matches(text: string, pattern: string): boolean {
  let compiled = patterns.get(pattern);
  if (!compiled) {
    compiled = compilePattern(pattern, 1);
    if (patterns.size >= MAX_PATTERNS) patterns.clear();
    patterns.set(pattern, compiled);
  }
  return compiled.matcher(text).find();
}

function compilePattern(pattern: string, column: number): RE2JS {
  try {
    return RE2JS.compile(pattern);
  } catch {
    throw new CelError('RE2 does not know such a pattern', column);
  }
}

/** The library's words about an expression, which quote nothing but the expression. */
function refused(error: unknown): CelError {
  if (error instanceof CelError) return error;
  if (!hasSummary(error)) throw error;
  return new CelError(lowerFirst(error.summary), (error.range?.start ?? 0) + 1);
}

/** Why an evaluation failed, from the library's codes alone: its words quote values. */
function failed(error: unknown): CelError {
  if (error instanceof CelError) return error;
  if (!(error instanceof EvaluationError)) return new CelError('the expression cannot be evaluated', 1);
  const absent = ABSENT.has(error.code);
  return new CelError(error.code.replaceAll('_', ' '), (error.range?.start ?? 0) + 1, absent);
}

const ABSENT: ReadonlySet<string> = new Set(['no_such_key', 'index_out_of_bounds']);

function hasSummary(
  error: unknown,
): error is { readonly summary: string; readonly range?: { readonly start: number } | undefined } {
  return typeof error === 'object' && error !== null && 'summary' in error && typeof error.summary === 'string';
}

function lowerFirst(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1);
}
