import { keyString } from '#lib/object.ts';
import type { Plan, PlannedObject } from '../apply/plan.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { type Attempt, openAttempt } from './attempt.ts';
import type { StackTarget } from './target.ts';

/** Of a sync, what its intent is about. */
export interface IntentInput {
  readonly inventory: Inventory;
  /** Keys of objects that are applied again though their content may be the same. */
  readonly suspects: { has(key: string): boolean };
  readonly target: StackTarget;
}

/**
 * Marks and stores what is about to be written, so that a crash leaks nothing and nothing half-written counts as applied. `terminating` are
 * keys of objects that wait for the end of their deletion. Written before every sync, also one that only corrects: the version it is written
 * at tells a process that was cut off that another one has taken over.
 */
export async function recordIntent(
  { inventory, suspects, target }: IntentInput,
  attempt: Attempt,
  plan: Plan,
  removals: readonly InventoryEntry[],
  terminating: { has(key: string): boolean },
  signal: AbortSignal,
): Promise<void> {
  for (const entry of removals) {
    if (entry.state !== 'deleting') inventory.entries.set(keyString(entry), { ...entry, digest: '', state: 'pending' });
  }
  for (const object of plan.changes) {
    const key = keyString(object);
    if (terminating.has(key)) continue; // nothing is sent before its end
    const held = inventory.entries.get(key);
    if (held && suspects.has(key) && held.digest === object.digest) continue; // the same content again: what is stored stays true
    inventory.entries.set(key, pendingEntry(object, held));
  }
  inventory.head = { ...inventory.head, attempt: openAttempt(attempt), impersonate: target.options.impersonate };
  await inventory.save(signal);
}

function pendingEntry(object: PlannedObject, held: InventoryEntry | undefined): InventoryEntry {
  const { group, version, kind, namespace, name, namespaced, wave, resource } = object;
  const plural = resource?.plural ?? held?.plural ?? '';
  const last = { uid: held?.uid ?? '', print: held?.print, marks: held?.marks ?? object.marks } as const;
  return { ...{ group, version, kind, namespace, name, namespaced, wave }, plural, ...last, digest: '', state: 'pending' };
}
