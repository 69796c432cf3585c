import { compareEntries, isOpaque, keyString, type Manifest, type ManifestEntry, type ObjectKey } from '#lib/object.ts';
import { note, type Sending } from '../apply/sending.ts';
import { takeOver } from '../apply/takeover.ts';
import type { OwnedKey } from '../engine.ts';
import type { ManagedFieldsEntry, ObjectMeta, ObjectRef } from '../kube/objects.ts';
import { OWNER_ANNOTATION } from '../stack-identity.ts';

/**
 * Whether a manifest has an object, by its own namespace or by the default one. What a text that was stored unparsed holds is
 * not known: it has none.
 */
export function manifestHas(manifest: Manifest, object: OwnedKey, defaultNamespace: string): boolean {
  if (isOpaque(manifest)) return false;
  const { group, kind, namespace, name, namespaced } = object;
  const has = (inNamespace: string) => {
    const found = manifest[lowerBound(manifest, { group, kind, namespace: inNamespace, name, version: '' })];
    return found !== undefined && keyString(found) === keyString({ group, kind, namespace: inNamespace, name });
  };
  if (namespaced) return has(namespace) || (namespace === defaultNamespace && has(''));
  // A namespace on an object of a cluster-scoped kind means nothing.
  const first = lowerBound(manifest, { group, kind, namespace: '', name: '', version: '' });
  for (let index = first; ; index++) {
    const entry = manifest[index];
    if (entry?.group !== group || entry.kind !== kind) return false;
    if (entry.name === name) return true;
  }
}

/** Index of the first entry that is not before `key`, in the order of a manifest. */
function lowerBound(manifest: readonly ManifestEntry[], key: ObjectKey): number {
  let [low, high] = [0, manifest.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const entry = manifest[middle];
    if (entry && compareEntries(entry, key) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Moves an object here that other stacks of this agent (`managers`) have let go of, or left behind when they went: their fields become those of this stack's manager, under the
 * version read, so that the apply that follows changes label and owner without a conflict. The object keeps its UID and is at
 * no time without one of the inventories. False when somebody did not let go of it; true when it is to be sent again.
 */
export async function handOver(
  sending: Sending,
  ref: ObjectRef,
  live: ObjectMeta,
  managers: readonly string[],
  signal: AbortSignal,
): Promise<boolean> {
  const { run, object } = sending;
  const owner = live.annotations?.[OWNER_ANNOTATION];
  const from = managers.map((manager) => run.engine.releasedBy(manager, object, owner));
  if (from.includes(undefined)) return false;
  const isTheirs = ({ manager = '' }: ManagedFieldsEntry) => managers.includes(manager);
  if (!(await takeOver(run, ref, live, isTheirs, signal))) return true; // it changed meanwhile: the next answer tells
  sending.movedFrom = from.find((stack) => typeof stack === 'object');
  note(sending, sending.movedFrom ? 'handover' : 'taken_over', managers, []);
  return true;
}
