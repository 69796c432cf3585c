import { canonicalJson, isMapping, type Value } from '#lib/object.ts';
import { type FieldSet, isWhole, pathText } from '../apply/managed-fields.ts';
import { fieldsOf, ownEntry } from '../apply/takeover.ts';
import type { ManagedFieldsEntry, ObjectMeta } from '../kube/objects.ts';

/** A field of an object as we want it that is not, or no longer, ours as we set it. */
export interface FieldChange {
  /** As the server writes it in conflicts: `.spec.template.spec.containers[name="web"].image`. */
  readonly path: string;
  /** As it is; undefined when it is gone. */
  readonly live: Value | undefined;
  readonly wanted: Value;
  /** False: still ours, with another value, so that somebody used our field manager. */
  readonly lost: boolean;
  /** Entries of `managedFields` that own it now. */
  readonly owners: readonly ManagedFieldsEntry[];
}

interface Owner {
  readonly entry: ManagedFieldsEntry;
  readonly set: FieldSet;
}

/** What the server does not keep in `managedFields`. */
const UNTRACKED = new Set(['.apiVersion', '.kind', '.metadata.name', '.metadata.namespace']);

/**
 * Compares an object as we want it with the live one, field by field as far as `managedFields` tell fields apart. Fields we own and that
 * differ in nothing but their spelling (`1000m`, `1`) may be among the result with `lost` false. For reports; nothing is decided by it.
 */
export function changedFields(wanted: Value, live: Value, metadata: ObjectMeta, fieldManager: string): FieldChange[] {
  const own = ownEntry(metadata, fieldManager);
  const others = (metadata.managedFields ?? [])
    .filter((entry) => entry !== own && entry.subresource !== 'status')
    .map((entry) => ({ entry, set: fieldsOf(entry) }));
  const changes: FieldChange[] = [];
  compareFields('', wanted, live, own && fieldsOf(own), others, changes);
  return changes;
}

function compareFields(
  path: string,
  wanted: Value,
  live: Value | undefined,
  own: FieldSet | undefined,
  others: readonly Owner[],
  changes: FieldChange[],
): void {
  if (UNTRACKED.has(path)) return;
  const known = [...(own ? [own] : []), ...others.map(({ set }) => set)].filter((set) => !isWhole(set));
  const apart = known.length > 0 && !(own && isWhole(own));
  if (apart && isMapping(wanted)) {
    for (const [key, value] of Object.entries(wanted)) {
      const there = isMapping(live) ? live[key] : undefined;
      const segment = `f:${key}`;
      compareFields(
        `${path}.${key}`,
        value,
        there,
        own?.[segment],
        owning(others, () => segment),
        changes,
      );
    }
  } else if (apart && Array.isArray(wanted) && known.some((set) => Object.keys(set).some(isItem))) {
    for (const item of wanted) {
      const segment = (set: FieldSet) => Object.keys(set).find((name) => names(name, item));
      const name = known.map(segment).find((found) => found !== undefined);
      const there = Array.isArray(live) ? live.find((candidate) => same(candidate, item, name)) : undefined;
      const mine = own && segment(own);
      const next = mine === undefined ? undefined : own?.[mine];
      compareFields(
        `${path}${pathText([name ?? `v:${canonicalJson(item)}`])}`,
        item,
        there,
        next,
        owning(others, segment),
        changes,
      );
    }
  } else if (own === undefined || canonicalJson(live ?? null) !== canonicalJson(wanted)) {
    changes.push({ path, live, wanted, lost: own === undefined, owners: others.map(({ entry }) => entry) });
  }
}

/** Those of `owners` that own the part named by `segment`; who owns a leaf owns all below it. */
function owning(owners: readonly Owner[], segment: (set: FieldSet) => string | undefined): Owner[] {
  return owners.flatMap(({ entry, set }) => {
    const part = isWhole(set) ? set : set[segment(set) ?? ''];
    return part ? [{ entry, set: part }] : [];
  });
}

function isItem(segment: string): boolean {
  return segment.startsWith('k:') || segment.startsWith('v:');
}

/** Whether a segment names an item. Keys that the item leaves to their default are not compared. */
function names(segment: string, item: Value): boolean {
  if (segment.startsWith('v:')) return segment.slice(2) === canonicalJson(item);
  if (!segment.startsWith('k:') || !isMapping(item)) return false;
  return Object.entries(JSON.parse(segment.slice(2)) as Record<string, Value>).every(
    ([key, value]) => item[key] === undefined || canonicalJson(item[key]) === canonicalJson(value),
  );
}

/** Whether two items are the same one, by the segment that names the second. */
function same(candidate: Value, item: Value, segment: string | undefined): boolean {
  return segment === undefined ? canonicalJson(candidate) === canonicalJson(item) : names(segment, candidate);
}
