import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { Inventory } from '../inventory/inventory.ts';

/**
 * Jobs that were seen to be complete. The inventory remembers them, also over a restart, so that one which its time to live removes
 * afterwards is not missed and run again.
 */
export class FinishedJobs {
  readonly #inventory: Inventory;
  /** UIDs by key, of jobs whose apply is not confirmed yet. */
  readonly #early = new Map<string, string>();
  #unsaved = false;

  constructor(inventory: Inventory) {
    this.#inventory = inventory;
  }

  /** A job is complete. Cheap when that is known. True when `store` has something to do. */
  note(key: string, uid: string): boolean {
    const entry = this.#inventory.entries.get(key);
    if (entry?.state === 'pending') this.#early.set(key, uid);
    else if (entry?.uid === uid && !entry.finished) {
      this.#inventory.entries.set(key, { ...entry, finished: true });
      this.#unsaved = true;
    }
    return this.#unsaved;
  }

  /** Stores what is new; what cannot be stored is stored with the next call. Not while anything else saves the inventory. */
  async store(log: Logger, signal: AbortSignal): Promise<void> {
    const early = [...this.#early];
    this.#early.clear();
    for (const [key, uid] of early) this.note(key, uid);
    if (!this.#unsaved) return;
    try {
      await this.#inventory.save(signal);
      this.#unsaved = false;
    } catch (error) {
      signal.throwIfAborted();
      log.warn({ stack: this.#inventory.head.stackName, error: errorText(error) }, 'finished jobs could not be stored');
    }
  }
}

/** The entry of an object that was applied once more: a job that was complete before is so still, unless it is another one by now. */
export function keepFinished(entry: InventoryEntry, before: InventoryEntry | undefined): InventoryEntry {
  return before?.finished && before.uid === entry.uid ? { ...entry, finished: true } : entry;
}
