import type { Value } from './object.ts';

/**
 * How kubectl reads an unquoted scalar: the rules of sigs.k8s.io/yaml 1.6 (go.yaml.in/yaml/v2, resolve.go), so YAML 1.1
 * without base 60 and dates. The golden table in yaml-schema.test.ts was printed by that library.
 */

const WORDS = new Map<string, null | boolean | number>([
  ...spell(['', '~', 'null', 'Null', 'NULL'], null),
  ...spell(['y', 'Y', 'yes', 'Yes', 'YES', 'true', 'True', 'TRUE', 'on', 'On', 'ON'], true),
  ...spell(['n', 'N', 'no', 'No', 'NO', 'false', 'False', 'FALSE', 'off', 'Off', 'OFF'], false),
  ...spell(['.nan', '.NaN', '.NAN'], Number.NaN),
  ...spell(['.inf', '.Inf', '.INF', '+.inf', '+.Inf', '+.INF'], Number.POSITIVE_INFINITY),
  ...spell(['-.inf', '-.Inf', '-.INF'], Number.NEGATIVE_INFINITY),
]);

const LONGEST_WORD = 5;
const WORD = 1;
const NUMBER = 2;
const HINTS = hints();

const INTEGER = /^[-+]?(?:0[bB][01]+|0[oO]?[0-7]+|0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)$/;
const FLOAT = /^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$/;
const OCTAL_LOOK = /^[-+]?0[0-9_]+$/;
const BASE60_LOOK = /^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$/;
const BOOLEAN_WORD = /^(?:true|false)$/i;

/** Longer than any 64-bit integer in any base; the work for longer ones would grow with the square. */
const MAX_LITERAL = 70;

const MAX_INT64 = 2n ** 63n - 1n;
const MIN_INT64 = -(2n ** 63n);
const MAX_UINT64 = 2n ** 64n - 1n;

/**
 * Value of a plain scalar. NaN and the infinities are returned as such; the caller rejects them. Integers a double
 * cannot hold exactly are bigints up to 64 bits, and floats beyond, as in Go.
 */
export function resolvePlain(text: string): Exclude<Value, object> | null {
  const first = text.charCodeAt(0);
  if (text === '') return null;
  const hint = first < HINTS.length ? HINTS[first] : 0;
  if (!hint) return text;
  if (text.length <= LONGEST_WORD) {
    const word = WORDS.get(text);
    if (word !== undefined) return word;
  }
  return hint === NUMBER ? resolveNumber(text) : text;
}

/** What an unquoted scalar may have been meant to be: the rule of the warning, or undefined. `value` is what it was read as. */
export function lookAlike(text: string, value: Value): { rule: string; message: string } | undefined {
  if (typeof value === 'boolean') {
    if (BOOLEAN_WORD.test(text)) return undefined;
    return {
      rule: 'ambiguous_boolean',
      message: 'unquoted y, n, yes, no, on and off are read as true or false; quote the word or write true or false',
    };
  }
  const first = text.charCodeAt(0);
  if (first > 0x39 || text.length < 2) return undefined;
  if (typeof value !== 'string') {
    if (!OCTAL_LOOK.test(text)) return undefined;
    return {
      rule: 'octal_number',
      message: 'a number with a leading zero is read as octal (as decimal if it has an 8 or 9); write it in decimal, or quote it',
    };
  }
  if (!text.includes(':') || !BASE60_LOOK.test(text)) return undefined;
  return { rule: 'sexagesimal_text', message: 'read as text, but as a base 60 number by other YAML 1.1 readers; quote it' };
}

/**
 * Text of a mapping key that was not written as a string: booleans as true and false, integers in decimal, floats as Go
 * prints a 32-bit float. `text` is the key as written. Undefined for a null key, which kubectl refuses.
 */
export function keyText(text: string, value: Exclude<Value, object> | null): string | undefined {
  if (typeof value === 'string') return value;
  if (value === null) return undefined;
  if (typeof value === 'number' && !INTEGER.test(text.replaceAll('_', ''))) return floatKey(value);
  return String(value);
}

function resolveNumber(text: string): Exclude<Value, object> {
  const plain = text.includes('_') ? text.replaceAll('_', '') : text;
  if (INTEGER.test(plain)) {
    const integer = parseInteger(plain);
    if (integer !== undefined) return integer;
  }
  if (FLOAT.test(plain)) {
    const float = Number(plain);
    if (Number.isFinite(float)) return float;
  }
  return text;
}

function parseInteger(plain: string): number | bigint | undefined {
  const signed = plain.startsWith('-') || plain.startsWith('+');
  const digits = signed ? plain.slice(1) : plain;
  const octal = digits.length > 1 && digits.startsWith('0') && digits.charCodeAt(1) <= 0x39;
  const literal = octal ? `0o${digits.slice(1)}` : digits;
  const small = Number(literal);
  if (Number.isSafeInteger(small)) return plain.startsWith('-') && small !== 0 ? -small : small;
  if (literal.length > MAX_LITERAL) return undefined;
  const big = plain.startsWith('-') ? -BigInt(literal) : BigInt(literal);
  if (big < MIN_INT64 || big > (signed ? MAX_INT64 : MAX_UINT64)) return undefined;
  return big;
}

/** Go's `strconv.FormatFloat(value, 'g', -1, 32)`. */
function floatKey(value: number): string {
  const single = Math.fround(value);
  if (single === 0) return '0';
  let digits = 1;
  while (digits < 9 && Math.fround(Number(single.toPrecision(digits))) !== single) digits++;
  const [mantissa = '', exponent = '0'] = single.toExponential(digits - 1).split('e');
  const power = Number(exponent);
  if (power >= -4 && power < 6) return single.toFixed(Math.max(0, digits - 1 - power));
  return `${mantissa}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`;
}

function spell<T>(words: readonly string[], value: T): [string, T][] {
  return words.map((word) => [word, value]);
}

function hints(): Uint8Array {
  const table = new Uint8Array(128);
  for (const char of 'yYnNtTfFoO~') table[char.charCodeAt(0)] = WORD;
  for (const char of '+-.0123456789') table[char.charCodeAt(0)] = NUMBER;
  return table;
}
