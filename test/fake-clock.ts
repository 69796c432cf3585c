import { type Clock, TimeoutError } from '#lib/clock.ts';

interface Timer {
  readonly at: number;
  readonly fire: () => void;
}

/** A clock that stands still until a test moves it. Both of its times begin at `startMs`. */
export class FakeClock implements Clock {
  #now: number;
  readonly #timers = new Set<Timer>();

  constructor(startMs = 1_700_000_000_000) {
    this.#now = startMs;
  }

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now;
  }

  sleep(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason);
        return;
      }
      const onAbort = () => {
        this.#timers.delete(timer);
        reject(signal.reason);
      };
      const timer: Timer = {
        at: this.#now + ms,
        fire: () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      this.#timers.add(timer);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  deadline(ms: number, signal: AbortSignal) {
    const controller = new AbortController();
    const timer: Timer = { at: this.#now + ms, fire: () => controller.abort(new TimeoutError(`deadline of ${ms} ms exceeded`)) };
    const onAbort = () => controller.abort(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    this.#timers.add(timer);
    return {
      signal: controller.signal,
      [Symbol.dispose]: () => {
        this.#timers.delete(timer);
        signal.removeEventListener('abort', onAbort);
      },
    };
  }

  /** Milliseconds until the next timer; undefined when nobody waits. */
  get nextMs(): number | undefined {
    const [first] = [...this.#timers].sort((a, b) => a.at - b.at);
    return first && first.at - this.#now;
  }

  /** Moves time forward, timer by timer, and lets everything that was woken run after each. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await turn();
    for (;;) {
      const [next] = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at);
      if (!next) break;
      this.#now = Math.max(this.#now, next.at);
      this.#timers.delete(next);
      next.fire();
      await turn();
    }
    this.#now = end;
    await turn();
  }
}

/** Lets everything that is ready run: a few rounds of the event loop. */
export async function turn(): Promise<void> {
  for (let round = 0; round < 5; round++) await new Promise<void>((resolve) => setImmediate(resolve));
}
