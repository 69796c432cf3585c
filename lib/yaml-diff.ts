import { canonicalJson, isMapping, type Value } from './object.ts';
import { parseExact } from './object-body.ts';
import { jsonPointer } from './yaml-problems.ts';

/** One difference. `before` and `after` are JSON text, cut at 200 characters; absent for Secrets. */
export interface Change {
  /** JSON pointer; an item of a list of named items is `[name=web]` in place of its index. */
  readonly path: string;
  readonly kind: 'added' | 'removed' | 'changed';
  readonly before?: string;
  readonly after?: string;
}

/** Input of `diff`: two JSON texts; `secret` leaves all values out. */
export interface DiffInput {
  readonly before: string;
  readonly after: string;
  readonly secret: boolean;
}

/** Changes reported of one object; the rest is left out. */
const MAX_CHANGES = 200;

const MAX_VALUE_LENGTH = 200;
const ITEM_NAMES = ['name', 'key'];

/**
 * Structural difference for reports: correctness never depends on it. Items of lists whose items all have a name (or a
 * key) are matched by it, others by index. At most `MAX_CHANGES`, in the order of the keys.
 */
export function diff({ before, after, secret }: DiffInput): Change[] {
  const changes: Change[] = [];
  compare('', parseExact(before), parseExact(after), changes, secret);
  return changes;
}

function compare(path: string, before: Value | undefined, after: Value | undefined, changes: Change[], secret: boolean): void {
  if (changes.length >= MAX_CHANGES || before === after) return;
  if (isMapping(before) && isMapping(after)) {
    for (const key of [...new Set([...Object.keys(before), ...Object.keys(after)])].sort()) {
      compare(`${path}${jsonPointer(key)}`, before[key], after[key], changes, secret);
    }
  } else if (Array.isArray(before) && Array.isArray(after)) compareLists(path, before, after, changes, secret);
  else {
    const kind = before === undefined ? 'added' : after === undefined ? 'removed' : 'changed';
    const shown = secret ? {} : { ...show('before', before), ...show('after', after) };
    changes.push({ path, kind, ...shown });
  }
}

function compareLists(path: string, before: Value[], after: Value[], changes: Change[], secret: boolean): void {
  const name = ITEM_NAMES.find((field) => named(before, field) && named(after, field));
  if (name === undefined) {
    for (let index = 0; index < Math.max(before.length, after.length); index++) {
      compare(`${path}/${index}`, before[index], after[index], changes, secret);
    }
    return;
  }
  const left = byName(before, name);
  const right = byName(after, name);
  for (const id of new Set([...left.keys(), ...right.keys()])) {
    compare(`${path}${jsonPointer(`[${name}=${id}]`)}`, left.get(id), right.get(id), changes, secret);
  }
}

/** Whether every item has its own text under `field`. */
function named(items: readonly Value[], field: string): boolean {
  return items.every((item) => isMapping(item) && typeof item[field] === 'string') && byName(items, field).size === items.length;
}

function byName(items: readonly Value[], field: string): Map<string, Value> {
  return new Map(items.map((item) => [isMapping(item) ? String(item[field]) : '', item]));
}

function show(side: 'before' | 'after', value: Value | undefined): Partial<Pick<Change, 'before' | 'after'>> {
  if (value === undefined) return {};
  const text = canonicalJson(value);
  return { [side]: text.length > MAX_VALUE_LENGTH ? `${text.slice(0, MAX_VALUE_LENGTH)}…` : text };
}
