import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { Clock } from '#lib/clock.ts';
import { Wakeup } from '#lib/signal.ts';
import type { HealthRule, ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { objectStatus, statusText } from '../apply/report.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import { stateOf } from './health.ts';
import type { Readiness } from './readiness.ts';

/** A wait for objects of earlier waves. */
export interface HealthWait {
  readonly wave: number;
  readonly entries: readonly InventoryEntry[];
  readonly timeoutMs: number;
}

/** What a wait is given beside its subject. */
export interface ReadyOptions {
  readonly clock: Clock;
  /** Health rules of the stack. */
  readonly rules: readonly HealthRule[];
  /** Ends the wait without a result. */
  readonly stop: AbortSignal;
  readonly tell: (message: string, unready: readonly ObjectStatus[]) => void;
}

/** What the watches have seen of the health of one stack's objects, and the wait for it to become good. Keys are those of the inventory. */
export class SeenHealth {
  readonly #states = new Map<string, Readiness>();
  readonly #changed = new Wakeup();

  /** By key. */
  get states(): ReadonlyMap<string, Readiness> {
    return this.#states;
  }

  /** An object was seen. True when that is news. */
  see(key: string, seen: Readiness): boolean {
    const before = this.#states.get(key);
    if (before && JSON.stringify(before) === JSON.stringify(seen)) return false;
    this.#states.set(key, seen);
    this.#changed.wake();
    return true;
  }

  /** An object was deleted, or is ours no longer. True when it was known. */
  drop(key: string): boolean {
    return this.#states.delete(key);
  }

  /**
   * Waits until all entries are ready as they were applied, at most `timeoutMs`. Resolves with what is not ready by then, or with nothing
   * once `stop` aborts; tells what it waits for. Rejects with the signal's reason. One wait at a time.
   */
  async ready(
    { wave, entries, timeoutMs }: HealthWait,
    { clock, rules, stop, tell }: ReadyOptions,
    signal: AbortSignal,
  ): Promise<readonly ObjectStatus[]> {
    const until = clock.monotonic() + timeoutMs;
    let open = entries;
    let told = '';
    const either = AbortSignal.any([stop, signal]);
    for (;;) {
      let unready = this.#unready(open, rules);
      if (unready.length === 0 && open !== entries) unready = this.#unready(entries, rules); // one may have fallen back meanwhile
      const [first] = unready;
      if (!first) {
        if (told !== '') tell('', []);
        return [];
      }
      open = unready.map(({ entry }) => entry);
      const statuses = unready.map(({ status }) => status);
      const message = `wave ${wave} waits for ${statusText(first.status)}${open.length > 1 ? ` (and ${open.length - 1} more)` : ''}`;
      if (message !== told) tell(message, statuses);
      told = message;
      try {
        if (!(await this.#changed.waitAtMost(Math.max(0, until - clock.monotonic()), clock, either))) return statuses;
      } catch (error) {
        if (signal.aborted || !stop.aborted) throw error;
        return [];
      }
    }
  }

  #unready(
    entries: readonly InventoryEntry[],
    rules: readonly HealthRule[],
  ): { readonly entry: InventoryEntry; readonly status: ObjectStatus }[] {
    return entries.flatMap((entry) => {
      const { state, reason, message, sinceMs } = stateOf(entry, this.#states, rules);
      if (state === 'ready') return [];
      const since = sinceMs === undefined ? {} : { since: timestampFromMs(sinceMs) };
      return [{ entry, status: objectStatus(entry, 'not_ready', reason, message === '' ? reason : message, since) }];
    });
  }
}
