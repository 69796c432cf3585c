import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { abortable } from '#lib/signal.ts';
import type { Database } from '../database.ts';
import { countFleet, type FleetCounts } from './store.ts';

/** Two replicas of Prometheus and a person at the page are one query. */
const LEAST_AGE_MS = 10_000;
/** The query takes at most a twentieth of the time: after one of a second nobody asks again for 20. */
const REST_FACTOR = 20;
/** Shorter than the time limit of a scrape (10 s unless set): the other metrics matter most when the database is slow. */
const WAIT_MS = 3_000;

/** Counts the fleet when metrics are scraped, and seldom enough to cost next to nothing. */
export class Fleet {
  readonly #deps: { readonly db: Database; readonly clock: Clock; readonly log: Logger };
  #last: { readonly counts: Promise<FleetCounts | undefined>; restsUntilMs: number } | undefined;

  constructor(deps: { readonly db: Database; readonly clock: Clock; readonly log: Logger }) {
    this.#deps = deps;
  }

  /** The numbers, at most some seconds old; undefined when the database does not tell them within 3 s. Never rejects. */
  async counts(): Promise<FleetCounts | undefined> {
    const { clock } = this.#deps;
    const now = clock.monotonic();
    if (!this.#last || now >= this.#last.restsUntilMs)
      this.#last = { counts: this.#count(now), restsUntilMs: Number.POSITIVE_INFINITY };
    using deadline = clock.deadline(WAIT_MS, new AbortController().signal);
    return await abortable(this.#last.counts, deadline.signal).catch(() => undefined);
  }

  async #count(sinceMs: number): Promise<FleetCounts | undefined> {
    const { db, clock, log } = this.#deps;
    try {
      return await countFleet(db);
    } catch (error) {
      log.warn({ error: errorText(error) }, 'the fleet could not be counted for metrics');
      return undefined;
    } finally {
      const now = clock.monotonic();
      if (this.#last) this.#last.restsUntilMs = now + Math.max(LEAST_AGE_MS, (now - sinceMs) * REST_FACTOR);
    }
  }
}
