import { type ManagerKind, managerKind } from '../apply/field-managers.ts';
import { type FieldSet, isWhole } from '../apply/managed-fields.ts';
import type { ApplyRun } from '../apply/run.ts';
import { fieldsOf, ownEntry, takeOver } from '../apply/takeover.ts';
import { forEachLimited } from '../engine.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { KubeObject, ManagedFieldsEntry, ObjectMeta } from '../kube/objects.ts';
import type { StackIdentity } from '../stack-identity.ts';
import { entryRef } from './inspect.ts';

/** Whose additions the mode `strict` removes, as opposed to controllers, whose additions are part of how a cluster works. */
const PEOPLE: ReadonlySet<ManagerKind> = new Set(['person', 'applier', 'initial']);

/** Entries of people that own fields which we do not. Status is never among it. */
export function additions(metadata: ObjectMeta, { fieldManager }: StackIdentity): ManagedFieldsEntry[] {
  const own = fieldsOf(ownEntry(metadata, fieldManager));
  return (metadata.managedFields ?? []).filter(
    (entry) => PEOPLE.has(managerKind(entry, fieldManager)) && hasMore(fieldsOf(entry), own),
  );
}

/**
 * Makes what people added to objects under the mode `strict` our own, so that the apply that follows removes it as fields no longer wanted.
 * An object that changed since it was read is left out: the watch tells of it again.
 */
export async function takeAdditions(
  run: ApplyRun,
  suspects: ReadonlyMap<
    string,
    { readonly entry: InventoryEntry; readonly live: KubeObject | undefined; readonly strict: boolean }
  >,
  signal: AbortSignal,
): Promise<void> {
  const strict = [...suspects].filter(([, suspect]) => suspect.strict);
  await forEachLimited(strict, run.engine.share, async ([key, { entry, live }]) => {
    const theirs = live ? additions(live.metadata, run.identity) : [];
    if (!live || theirs.length === 0) return;
    const taken = await takeOver(run, entryRef(entry), live.metadata, (each) => theirs.includes(each), signal);
    // Compared with nothing: what the apply removes now is a change, though no fingerprint need show it.
    if (taken) run.seen.set(key, { ...live.metadata, generation: -1 });
  });
}

/** Whether `set` has a field that `known` has not. A whole of `known` has all that is below it; what holds fields is no field itself. */
function hasMore(set: FieldSet, known: FieldSet): boolean {
  return Object.entries(set).some(([element, below]) => {
    const there = known[element];
    if (element === '.') return false;
    if (!there) return true;
    return !isWhole(there) && hasMore(below, there);
  });
}
