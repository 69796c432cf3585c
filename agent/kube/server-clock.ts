import type { Clock } from '#lib/clock.ts';

/** The `Date` header has whole seconds, cut off: on average it is this late. */
const HALF_SECOND_MS = 500;
/** An answer that took longer says too little about when it was written. */
const MAX_ROUND_TRIP_MS = 2000;

/**
 * How far the clock of the API server is from ours, by the `Date` of its answers (RFC 9110, 6.6.1). For what carries a time of the server's
 * side, such as the expiry of a credential, and for metrics; waits are measured on our monotonic clock alone.
 */
export class ServerClock {
  readonly #clock: Clock;
  /** Server's wall clock minus our monotonic one, so that a jump of our wall clock does not matter. */
  #base: number | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Server minus agent, in milliseconds, good to a second; undefined before the first answer. */
  get offsetMs(): number | undefined {
    return this.#base === undefined ? undefined : Math.round(this.now() - this.#clock.now());
  }

  /** Wall-clock time of the server, ours before the first answer. */
  now(): number {
    return this.#base === undefined ? this.#clock.now() : this.#clock.monotonic() + this.#base;
  }

  /** An answer came with this `Date`, so long after its request was sent. */
  heard(date: string | undefined, roundTripMs: number): void {
    const serverMs = Date.parse(date ?? '');
    if (Number.isNaN(serverMs) || roundTripMs > MAX_ROUND_TRIP_MS) return;
    this.#base = serverMs + HALF_SECOND_MS + roundTripMs / 2 - this.#clock.monotonic();
  }
}
