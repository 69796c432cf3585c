import type { Clock } from '#lib/clock.ts';
import { Wakeup } from '#lib/signal.ts';

/** Status stored by another replica is seen after this time at the latest. */
const FALLBACK_MS = 1000;

/** Wakes watchers of stack status when this replica stores some; never later than a second. */
export class StatusChanges {
  readonly #clock: Clock;
  readonly #waiters = new Map<string, Set<Wakeup>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Tells that the status of these stacks was stored. */
  changed(stackIds: ReadonlySet<string>): void {
    for (const stackId of stackIds) for (const waiter of this.#waiters.get(stackId) ?? []) waiter.wake();
  }

  /** Resolves when the stack's status may have changed; rejects when `signal` aborts. */
  async wait(stackId: string, signal: AbortSignal): Promise<void> {
    const wakeup = new Wakeup();
    const waiters = this.#waiters.get(stackId) ?? new Set();
    this.#waiters.set(stackId, waiters.add(wakeup));
    try {
      using deadline = this.#clock.deadline(FALLBACK_MS, signal);
      await wakeup.wait(deadline.signal).catch(() => signal.throwIfAborted());
    } finally {
      waiters.delete(wakeup);
      if (waiters.size === 0) this.#waiters.delete(stackId);
    }
  }
}
