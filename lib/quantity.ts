/** A quantity of Kubernetes, exactly: `units` × 10^-`scale`. */
export interface Quantity {
  readonly units: bigint;
  readonly scale: number;
}

const FORM = /^([+-]?)(\d+)?(?:\.(\d*))?(?:(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E)|[eE]([+-]?\d{1,2}))?$/;
/** Longer ones are none: 2^63 has 19 digits. */
const MAX_LENGTH = 64;

const DECIMAL: Readonly<Record<string, number>> = { n: -9, u: -6, m: -3, k: 3, M: 6, G: 9, T: 12, P: 15, E: 18 };
const BINARY = ['Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];

/**
 * Reads a quantity as Kubernetes writes it (k8s.io/apimachinery, pkg/api/resource: decimal and binary suffixes, or an exponent), as text or
 * as a number. Undefined when it is none.
 */
export function parseQuantity(value: unknown): Quantity | undefined {
  if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'bigint') return undefined;
  const text = String(value);
  if (text.length > MAX_LENGTH) return undefined;
  const [, sign, whole = '', fraction = '', suffix = '', exponent = '0'] = FORM.exec(text) ?? [];
  if (sign === undefined || whole + fraction === '') return undefined;
  const digits = BigInt(whole + fraction) * BigInt(sign === '-' ? -1 : 1);
  const power = BINARY.indexOf(suffix) + 1;
  const units = digits * 1024n ** BigInt(power);
  const scale = fraction.length - (DECIMAL[suffix] ?? 0) - Number(exponent);
  return scale >= 0 ? { units, scale } : { units: units * 10n ** BigInt(-scale), scale: 0 };
}

/** Negative, 0 or positive as `a` is less than, equal to or more than `b`. */
export function compareQuantities(a: Quantity, b: Quantity): number {
  const left = a.units * 10n ** BigInt(b.scale);
  const right = b.units * 10n ** BigInt(a.scale);
  return left < right ? -1 : Number(left > right);
}
