import { keyString } from '#lib/object.ts';
import type { InventoryEntry } from '../inventory/codec.ts';

/** Objects verified at a time on average: few enough not to be felt, enough to be worth starting a YAML thread for. */
const BATCH = 32;

/**
 * When the objects of one stack are verified: each once in every period of `intervalMs`, in batches spread evenly over it. Batch and time
 * follow from the wall clock, the stack and the object's UID alone, so a restart goes on where the schedule is and never catches up in a
 * burst; an object comes one batch later every period, so that an agent that is away at the same hour every day misses nobody for long.
 */
export class VerifySchedule {
  readonly #intervalMs: number;
  readonly #offsetMs: number;

  /** `seed`: hex digits of the stack, so that stacks do not take turns together. */
  constructor(intervalMs: number, seed: string) {
    this.#intervalMs = intervalMs;
    this.#offsetMs = (Number.parseInt(seed.slice(0, 8), 16) / 2 ** 32) * intervalMs;
  }

  /** Milliseconds from the wall-clock time `nowMs` until the next batch of a stack of so many objects. */
  nextIn(nowMs: number, objects: number): number {
    const slotMs = this.#intervalMs / slotsFor(objects);
    return slotMs - ((nowMs + this.#offsetMs) % slotMs);
  }

  /** Keys of the batch whose time began last. */
  batch(nowMs: number, entries: ReadonlyMap<string, InventoryEntry>): string[] {
    const slots = slotsFor(entries.size);
    const at = nowMs + this.#offsetMs;
    const period = Math.floor(at / this.#intervalMs);
    const slot = Math.floor((at % this.#intervalMs) / (this.#intervalMs / slots));
    const keys: string[] = [];
    for (const entry of entries.values()) {
      // UIDs are random (RFC 4122 version 4), so their digits deal the objects evenly.
      const dealt = (Number.parseInt(entry.uid.slice(0, 8), 16) + period) % slots;
      if (entry.state === 'applied' && dealt === slot) keys.push(keyString(entry));
    }
    return keys;
  }
}

function slotsFor(objects: number): number {
  return Math.max(1, Math.ceil(objects / BATCH));
}
