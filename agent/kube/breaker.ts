import type { Clock } from '#lib/clock.ts';
import { abortable } from '#lib/signal.ts';

/** Failures in a row, over all requests, after which the server counts as down (APPLY §5.8). */
const MAX_FAILURES = 20;
/** Time between two probes of a server that is down. */
const PROBE_MS = 1000;

/** Not sent: the server is down, and only probes are sent to it. */
export class ServerDownError extends Error {
  override readonly name = 'ServerDownError';
}

/**
 * Spares a server that is down: after 20 failures in a row no request is sent but a probe each second, until one is answered. There is no
 * timer: whoever wants to send something when a probe is due waits for it, and everybody else is told at once.
 */
export class Breaker {
  readonly #clock: Clock;
  readonly #probe: (signal: AbortSignal) => Promise<boolean>;
  readonly #moved: (isOpen: boolean, failure?: unknown) => void;
  #failures = 0;
  #isOpen = false;
  #probeAt = 0;
  #probing: Promise<boolean> | undefined;

  /** `probe` says whether the server works and never rejects; `moved` is told when the circuit opens, with the last failure, or closes. */
  constructor(
    clock: Clock,
    {
      probe,
      moved,
    }: {
      readonly probe: (signal: AbortSignal) => Promise<boolean>;
      readonly moved: (isOpen: boolean, failure?: unknown) => void;
    },
  ) {
    this.#clock = clock;
    this.#probe = probe;
    this.#moved = moved;
  }

  /** Whether nothing but probes is sent now. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Resolves when a request may be sent. Rejects with a `ServerDownError`, or with the signal's reason. */
  async pass(signal: AbortSignal): Promise<void> {
    if (!this.#isOpen) return;
    if (this.#probing === undefined && this.#clock.monotonic() >= this.#probeAt) this.#probing = this.#ask();
    if (this.#probing !== undefined && (await abortable(this.#probing, signal))) return;
    throw new ServerDownError('the API server is down: nothing is sent to it until it says that it is ready');
  }

  /** A request was answered, whatever the answer said. */
  succeeded(): void {
    this.#failures = 0;
  }

  /** A request got no answer, or the server said that it is in trouble. */
  failed(failure: unknown): void {
    this.#failures += 1;
    if (this.#isOpen || this.#failures < MAX_FAILURES) return;
    this.#isOpen = true;
    this.#probeAt = this.#clock.monotonic() + PROBE_MS;
    this.#moved(true, failure);
  }

  /** Shared by all who wait for it, so that none of their signals may end it: its own deadline does. */
  async #ask(): Promise<boolean> {
    const isReady = await this.#probe(new AbortController().signal);
    this.#probing = undefined;
    this.#probeAt = this.#clock.monotonic() + PROBE_MS;
    if (isReady) {
      this.#isOpen = false;
      this.#failures = 0;
      this.#moved(false);
    }
    return isReady;
  }
}
