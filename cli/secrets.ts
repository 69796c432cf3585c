import { dump } from 'js-yaml';
import { canonicalJson, isMapping, type Value, type ValueObject } from '#lib/object.ts';

/** kubectl writes whole objects, values included, into this annotation. */
const LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration';

/**
 * The two sides of a difference with every value of a Secret masked, when either side is (or, as a List, holds) one;
 * undefined otherwise. A value that differs is marked as changed on the new side. Comments are lost on purpose: they may
 * hold what was commented out.
 */
export function secretTexts(before: Value | undefined, after: Value | undefined): [string, string] | undefined {
  if (!holdsSecret(before) && !holdsSecret(after)) return undefined;
  return [render(masked(before, undefined)), render(masked(after, before))];
}

function holdsSecret(value: Value | undefined): boolean {
  if (!isMapping(value)) return false;
  return value.kind === 'Secret' || (Array.isArray(value.items) && value.items.some(holdsSecret));
}

function render(value: Value | undefined): string {
  return value === undefined ? '' : dump(value, { lineWidth: -1 });
}

function masked(value: Value | undefined, other: Value | undefined): Value | undefined {
  if (!isMapping(value)) return value;
  const { items } = value;
  if (Array.isArray(items)) {
    const others = isMapping(other) && Array.isArray(other.items) ? other.items : [];
    return { ...value, items: items.map((item, index) => masked(item, others[index]) ?? null) };
  }
  if (value.kind !== 'Secret') return value;
  const result: ValueObject = { ...value };
  for (const field of ['data', 'stringData']) {
    if (result[field] !== undefined) result[field] = maskedValues(result[field], isMapping(other) ? other[field] : undefined);
  }
  const { metadata } = value;
  if (isMapping(metadata) && isMapping(metadata.annotations) && LAST_APPLIED in metadata.annotations) {
    result.metadata = { ...metadata, annotations: { ...metadata.annotations, [LAST_APPLIED]: '***' } };
  }
  return result;
}

function maskedValues(values: Value, others: Value | undefined): Value {
  if (!isMapping(values)) return '***';
  const known = isMapping(others) ? others : undefined;
  const mask = ([key, value]: [string, Value]): [string, Value] => {
    const old = known?.[key];
    return [key, old !== undefined && canonicalJson(old) !== canonicalJson(value) ? '*** (changed)' : '***'];
  };
  return Object.fromEntries(Object.entries(values).map(mask));
}
