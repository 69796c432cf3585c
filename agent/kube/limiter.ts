import type { Clock } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import { classify, KubeError } from './errors.ts';

/** More sockets than this never help (APPLY §3.2: no gain beyond 32). */
const HARD_MAX = 64;
/** The limit moves at most once in this time, in either direction. */
const STEP_MS = 1000;
/** Calls whose 95th percentile is looked at. */
const WINDOW = 64;
const SLOW_P95_MS = 2000;
/** A server that asks for more is asked again after this. */
const MAX_RETRY_AFTER_MS = 60_000;
/** Calls waiting for a slot, over all priorities. */
const MAX_WAITING = 20_000;

/** Which calls go first: `high` for what others wait for, `low` for corrections and verification. */
export type Priority = 'high' | 'normal' | 'low';

const PRIORITIES = ['high', 'normal', 'low'] as const satisfies readonly Priority[];

/** Bounds of the number of calls in flight. */
export interface LimiterOptions {
  readonly start: number;
  readonly min: number;
  /** At most 64. */
  readonly max: number;
}

/** APPLY §4.2: 16 in flight, adaptive between 4 and 32. */
export const LIMITER_DEFAULTS: LimiterOptions = { start: 16, min: 4, max: 32 };

/**
 * How many calls to the API server may be in flight: halved when the server is in trouble (429, 5xx, lost connections, or a 95th percentile
 * above 2 s), one more for each second without trouble in which the limit was reached. After a `Retry-After` nothing starts until then.
 */
export class Limiter {
  readonly #clock: Clock;
  readonly #min: number;
  readonly #max: number;
  readonly #waiting: Readonly<Record<Priority, Set<() => void>>> = { high: new Set(), normal: new Set(), low: new Set() };
  #limit: number;
  #inFlight = 0;
  #saturated = false;
  #movedAt: number;
  #halvedAt: number | undefined;
  #pausedUntil = 0;
  #latencies: number[] = [];

  constructor(clock: Clock, { start, min, max }: LimiterOptions) {
    this.#clock = clock;
    this.#min = min;
    this.#max = Math.min(max, HARD_MAX);
    this.#limit = Math.min(start, this.#max);
    this.#movedAt = clock.monotonic();
  }

  /** Calls allowed in flight now. */
  get limit(): number {
    return this.#limit;
  }

  /** Calls in flight now. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /**
   * Runs one call when there is room, first come first served within a priority, and learns from how it went. Rejects as the call
   * does, with the signal's reason while waiting, or with `too_many_requests` when 20,000 wait already.
   */
  async run<T>(call: () => Promise<T>, priority: Priority, signal: AbortSignal): Promise<T> {
    await this.#enter(priority, signal);
    const startedAt = this.#clock.monotonic();
    try {
      const result = await call();
      this.#succeeded(this.#clock.monotonic() - startedAt);
      return result;
    } catch (error) {
      if (!signal.aborted) this.#failed(error);
      throw error;
    } finally {
      this.#leave();
    }
  }

  async #enter(priority: Priority, signal: AbortSignal): Promise<void> {
    for (;;) {
      await this.#slot(priority, signal);
      const pause = this.#pausedUntil - this.#clock.monotonic();
      if (pause <= 0 && !signal.aborted) break;
      this.#leave();
      await this.#clock.sleep(Math.max(0, pause), signal);
    }
    if (this.#inFlight >= this.#limit) this.#saturated = true;
  }

  /** Resolves with a slot already counted as taken, so that nobody overtakes a waiter that was just woken. */
  #slot(priority: Priority, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const waiting = PRIORITIES.reduce((sum, each) => sum + this.#waiting[each].size, 0);
    if (waiting === 0 && this.#inFlight < this.#limit) {
      this.#inFlight += 1;
      return Promise.resolve();
    }
    if (waiting >= MAX_WAITING)
      throw new BrokkrError('too_many_requests', `more than ${MAX_WAITING} calls wait for the API server`);
    return new Promise((resolve, reject) => {
      const queue = this.#waiting[priority];
      const grant = () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      const onAbort = () => {
        queue.delete(grant);
        reject(signal.reason);
      };
      queue.add(grant);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  #leave(): void {
    this.#inFlight -= 1;
    for (const priority of PRIORITIES) {
      const queue = this.#waiting[priority];
      for (const grant of queue) {
        if (this.#inFlight >= this.#limit) return;
        queue.delete(grant);
        this.#inFlight += 1;
        grant();
      }
    }
  }

  #succeeded(ms: number): void {
    this.#latencies.push(ms);
    if (this.#latencies.length >= WINDOW) {
      const sorted = this.#latencies.toSorted((a, b) => a - b);
      this.#latencies = [];
      if ((sorted[Math.floor(WINDOW * 0.95)] ?? 0) > SLOW_P95_MS) {
        this.#trouble();
        return;
      }
    }
    const now = this.#clock.monotonic();
    if (!this.#saturated || now - this.#movedAt < STEP_MS) return;
    this.#move(Math.min(this.#max, this.#limit + 1), now);
  }

  #failed(error: unknown): void {
    if (classify(error) !== 'transient') return;
    if (error instanceof KubeError && error.retryAfterMs !== undefined) {
      const wait = Math.min(error.retryAfterMs, MAX_RETRY_AFTER_MS);
      this.#pausedUntil = Math.max(this.#pausedUntil, this.#clock.monotonic() + wait);
    }
    this.#trouble();
  }

  /** Calls that were in flight together fail together: that is one trouble, not sixteen. */
  #trouble(): void {
    const now = this.#clock.monotonic();
    if (this.#halvedAt !== undefined && now - this.#halvedAt < STEP_MS) return;
    this.#halvedAt = now;
    this.#move(Math.max(this.#min, Math.floor(this.#limit / 2)), now);
  }

  #move(limit: number, now: number): void {
    this.#limit = limit;
    this.#movedAt = now;
    this.#saturated = false;
  }
}
