import { keyString, type ManifestEntry, type ObjectKey } from '#lib/object.ts';
import type { Marks } from '#lib/object-marks.ts';
import type { ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { DIGEST_DIGITS, type InventoryEntry } from '../inventory/codec.ts';
import type { Resource } from '../kube/resource.ts';

/** An object to be applied. */
export interface PlannedObject extends ObjectKey {
  /** Undefined while the definition of its kind, part of the same stack, is not applied. */
  readonly resource: Resource | undefined;
  readonly namespaced: boolean;
  /** As kept in the inventory. */
  readonly digest: string;
  readonly wave: number;
  readonly marks: Marks;
  /** Keys (`keyString`) of objects that have to be applied before; those that are not in the stack do not count. */
  readonly needs: readonly string[];
  /** Body of the apply. */
  readonly json: string;
}

/** What one sync has to do. */
export interface Plan {
  /** Keys (`keyString`) of everything the stack consists of. */
  readonly wanted: ReadonlySet<string>;
  readonly changes: readonly PlannedObject[];
  /** In the inventory and no longer wanted. */
  readonly removals: readonly InventoryEntry[];
  readonly unchanged: number;
  /** Objects to be applied of kinds whose API group cannot be discovered now, by key as far as it is known. */
  readonly undiscovered: ReadonlyMap<string, ObjectStatus>;
}

/** An entry of a manifest with its namespace as it will be in the cluster. */
export function resolveNamespace(entry: ManifestEntry, namespaced: boolean, defaultNamespace: string): ManifestEntry {
  if (!namespaced) return entry.namespace === '' ? entry : { ...entry, namespace: '' };
  return entry.namespace === '' ? { ...entry, namespace: defaultNamespace } : entry;
}

/** Whether the inventory says that exactly this was applied. */
export function isApplied(
  entry: Pick<ObjectKey, 'version'> & { readonly digest: string },
  held: InventoryEntry | undefined,
): held is InventoryEntry {
  return held?.state === 'applied' && held.version === entry.version && held.digest === shortDigest(entry.digest);
}

/** The part of an object digest that the inventory keeps. */
export function shortDigest(digest: string): string {
  return digest.slice(0, DIGEST_DIGITS);
}

/** The plan for `objects` (all that may have changed and can be sent) of a stack whose keys are `wanted`. */
export function planOf(
  wanted: ReadonlySet<string>,
  objects: readonly PlannedObject[],
  undiscovered: Plan['undiscovered'],
  entries: ReadonlyMap<string, InventoryEntry>,
  suspects: ReadonlySet<string>,
): Plan {
  const changes = objects.filter((object) => {
    const key = keyString(object);
    return suspects.has(key) || !isApplied(object, entries.get(key));
  });
  const removals = [...entries].filter(([key]) => !wanted.has(key)).map(([, entry]) => entry);
  return { wanted, changes, removals, unchanged: wanted.size - changes.length - undiscovered.size, undiscovered };
}
