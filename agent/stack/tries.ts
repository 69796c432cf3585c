import { jitter } from '#lib/backoff.ts';
import type { WantedKind } from '../apply/content.ts';
import type { Engine } from '../engine.ts';
import type { ErrorClass } from '../kube/errors.ts';
import { type Next, stillWaiting } from './goal.ts';
import { doubled, retryMs, SCHEDULES } from './schedule.ts';

/** Recheck of objects that could not be removed yet; the wait doubles from these to the cap. */
const KEPT_SCHEDULES = {
  now: { baseMs: 0, capMs: 0 },
  soon: { baseMs: 2000, capMs: 1_800_000 },
  forbidden: SCHEDULES.permission,
  later: { baseMs: 30_000, capMs: 1_800_000 },
};

/** When one stack is worked on next without news of it. News that come while a try runs go before what the try plans at its end. */
export class Tries {
  readonly #engine: Engine;
  #next: Next | undefined;
  #failures = 0;
  /** In a row after which something was still kept. */
  #kept = 0;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Monotonic time of the next one; undefined when none is planned. */
  get at(): number | undefined {
    return this.#next?.at;
  }

  /** Whether the server has to serve more kinds before the next one. */
  get waitsForKinds(): boolean {
    return typeof this.#next?.until === 'object';
  }

  /** Whether the planned try is due; `waiting` when what it waits for is not there yet. Rejects with the signal's reason. */
  async due(signal: AbortSignal): Promise<'due' | 'waiting' | 'not_due'> {
    const next = this.#next;
    if (!next || next.at > this.#engine.clock.monotonic()) return 'not_due';
    const later = await stillWaiting(this.#engine, next, signal);
    if (!later) return 'due';
    if (this.#next === next) this.#next = later; // else there was news meanwhile
    return 'waiting';
  }

  /** Something new is to be done, at once: what failed before does not count. */
  restart(): void {
    this.#failures = 0;
    this.#kept = 0;
    this.now();
  }

  /** At once, whatever was waited for. */
  now(): void {
    this.#next = { at: 0 };
  }

  /** What is planned, at once, if what it waits for is there. */
  soon(): void {
    if (this.#next) this.#next = { ...this.#next, at: 0 };
  }

  /** The planned one begins, or is not needed any more. */
  clear(): void {
    this.#next = undefined;
  }

  /** One succeeded. */
  succeeded(): void {
    this.#failures = 0;
  }

  /** One failed. */
  failed(kind: ErrorClass): void {
    this.#failures += 1;
    this.after(retryMs(kind, this.#failures), kind === 'transient' ? 'server' : undefined);
  }

  /** The generation was refused: for kinds that are not served, or for good until somebody changes something. */
  refused(missing: readonly WantedKind[]): void {
    this.#failures += 1;
    if (missing.length > 0) this.after(this.#engine.kindRecheckMs, { kinds: missing });
    else this.after(retryMs('permanent', 1));
  }

  /** Something that should go was kept. */
  kept(when: keyof typeof KEPT_SCHEDULES): void {
    this.#kept += 1;
    this.after(doubled(KEPT_SCHEDULES[when], this.#kept));
  }

  /** Plans the next one, in `ms` varied by a fifth, unless news came meanwhile, which go first. */
  after(ms: number, until?: Next['until']): void {
    const { clock, random } = this.#engine;
    this.#next ??= { at: clock.monotonic() + jitter(ms, 0.2, random), ...(until !== undefined && { until }) };
  }
}
