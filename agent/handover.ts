import { isOpaque, keyString, type Manifest } from '#lib/object.ts';
import type { OwnedKey } from './apply-engine.ts';
import { note, type Sending } from './apply-sending.ts';
import { takeOver } from './apply-takeover.ts';
import type { ManagedFieldsEntry, ObjectMeta, ObjectRef } from './kube/objects.ts';

/** Says whether a manifest has an object. What a text that was stored unparsed holds is not known: it has none. */
export class ManifestKeys {
  readonly #keys: ReadonlySet<string>;
  readonly #defaultNamespace: string;

  constructor(manifest: Manifest, defaultNamespace: string) {
    // A namespace on an object of a cluster-scoped kind means nothing, and only the object that is asked for tells which kinds those are.
    const entries = isOpaque(manifest) ? [] : manifest;
    this.#keys = new Set(entries.flatMap((entry) => [`n/${keyString(entry)}`, `c/${keyString({ ...entry, namespace: '' })}`]));
    this.#defaultNamespace = defaultNamespace;
  }

  /** Whether the object is in the manifest, by its own namespace or by the default one. */
  has(object: OwnedKey): boolean {
    const bare = keyString({ ...object, namespace: '' });
    if (!object.namespaced) return this.#keys.has(`c/${bare}`);
    const isDefault = object.namespace === this.#defaultNamespace;
    return this.#keys.has(`n/${keyString(object)}`) || (isDefault && this.#keys.has(`n/${bare}`));
  }
}

/**
 * Moves an object here that other stacks of this agent (`managers`) have let go of: their fields become those of this stack's manager, under the
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
  const from = managers.map((manager) => run.engine.releasedBy(manager, object));
  if (from.includes(undefined)) return false;
  const isTheirs = ({ manager = '' }: ManagedFieldsEntry) => managers.includes(manager);
  if (!(await takeOver(run, ref, live, isTheirs, signal))) return true; // it changed meanwhile: the next answer tells
  sending.movedFrom = from[0];
  note(sending, 'handover', managers, []);
  return true;
}
