import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Task } from '#lib/run.ts';
import { Wakeup } from '#lib/signal.ts';
import type { Database } from '../database.ts';
import { type ChangeRow, type Position, readChanges, readPosition } from './store.ts';

/** What the feed needs. */
export interface FeedDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Upper bound of the time until a change of another replica is seen when notifications are lost. */
const POLL_INTERVAL_MS = 1000;
/** After a commit here, the row may hide behind an older transaction for a moment. */
const RETRY_MS = [2, 5, 10, 20, 50, 100, 200] as const;
/** Notifications to other replicas, at most this often. */
const NOTIFY_INTERVAL_MS = 50;
const BATCH = 1000;
const CHANNEL = 'change';

/**
 * Tails the change log in commit-safe order (rows below the oldest running transaction, cursor (xid, seq)) and hands
 * batches to its subscribers, in order, one at a time. Woken by `committed` after local commits, by notifications of
 * other replicas, and by a poll each second.
 */
export class ChangeFeed implements Task {
  readonly name = 'change feed';
  readonly #deps: FeedDeps;
  readonly #wakeup = new Wakeup();
  readonly #notify = new Wakeup();
  readonly #subscribers: ((changes: readonly ChangeRow[]) => Promise<void>)[] = [];
  #begun: Promise<Position> | undefined;
  #position: Position | undefined;
  #hurry = 0;

  constructor(deps: FeedDeps) {
    this.#deps = deps;
  }

  /** Subscribe before `run`. A subscriber that fails is called again with the same changes, within a second. */
  subscribe(handler: (changes: readonly ChangeRow[]) => Promise<void>): void {
    this.#subscribers.push(handler);
  }

  /** Call after a commit that wrote change-log rows. */
  committed(): void {
    this.#hurry = RETRY_MS.length;
    this.#wakeup.wake();
    this.#notify.wake();
  }

  /**
   * Fixes where the feed begins, once. What reads a snapshot and then relies on the feed for what follows it must await
   * this first: a change between its snapshot and a later beginning would be lost to it.
   */
  async begin(): Promise<Position> {
    this.#begun ??= readPosition(this.#deps.db);
    try {
      return await this.#begun;
    } catch (error) {
      this.#begun = undefined;
      throw error;
    }
  }

  async run(signal: AbortSignal): Promise<void> {
    const woken = () => {
      this.#hurry = RETRY_MS.length;
      this.#wakeup.wake();
    };
    const listen = this.#deps.db.listen(CHANNEL, woken, signal).catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
    await Promise.all([this.#tail(signal), this.#notifyOthers(signal), listen]); // the first that fails fails the task
  }

  async #tail(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const progressed = await this.#step().catch((error: unknown) => {
        this.#deps.log.warn({ error: errorText(error) }, 'change feed interrupted, trying again');
        return 0;
      });
      if (progressed === BATCH) continue;
      if (progressed > 0) this.#hurry = 0;
      await this.#pause(signal);
    }
  }

  /** One read; returns the number of rows handed out. */
  async #step(): Promise<number> {
    const { db } = this.#deps;
    const changes = await readChanges(db, this.#position ?? (await this.begin()), BATCH);
    const last = changes.at(-1);
    if (!last) return 0;
    // a failure leaves the position where it is: the same changes come again, and looking twice is harmless
    for (const subscriber of this.#subscribers) await subscriber(changes);
    this.#position = last;
    return changes.length;
  }

  async #pause(signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    const hurry = this.#hurry > 0 ? RETRY_MS[RETRY_MS.length - this.#hurry--] : undefined;
    using deadline = clock.deadline(hurry ?? POLL_INTERVAL_MS, signal);
    await this.#wakeup.wait(deadline.signal).catch(() => undefined);
  }

  async #notifyOthers(signal: AbortSignal): Promise<void> {
    const { db, clock } = this.#deps;
    while (!signal.aborted) {
      try {
        await this.#notify.wait(signal);
        await db.notify(CHANNEL, '');
        await clock.sleep(NOTIFY_INTERVAL_MS, signal);
      } catch {
        await clock.sleep(POLL_INTERVAL_MS, signal).catch(() => undefined); // the others poll meanwhile
      }
    }
  }
}
