import type { Clock } from './clock.ts';

/** Many coarse timeouts with one timer: cheap to set and to drop, late by up to `SWEEP_MS`. */
export class Timeouts {
  readonly #clock: Clock;
  readonly #pending = new Set<{ readonly at: number; readonly expired: () => void }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls `expired` after `ms` unless the returned function is called before. */
  add(ms: number, expired: () => void): () => void {
    const entry = { at: this.#clock.monotonic() + ms, expired };
    this.#pending.add(entry);
    return () => void this.#pending.delete(entry);
  }

  /** Looks after the timeouts until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#clock.sleep(SWEEP_MS, signal).catch(() => undefined);
      const now = this.#clock.monotonic();
      for (const entry of this.#pending) {
        if (entry.at > now) continue;
        this.#pending.delete(entry);
        entry.expired();
      }
    }
  }
}

/** How late a timeout may be, milliseconds. */
const SWEEP_MS = 250;
