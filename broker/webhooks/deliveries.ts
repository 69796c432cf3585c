import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Task } from '#lib/run.ts';
import { abortable, Wakeup } from '#lib/signal.ts';
import type { FailureKind, Outcome, Send } from '#lib/webhook-send.ts';
import type { Database } from '../database.ts';
import { type ClaimedDelivery, claimDeliveries, releaseDelivery, renewLeases } from './delivery-store.ts';
import { recordOutcome } from './record.ts';
import { messageOf, requestOf } from './request.ts';
import type { SecretBox, WebhookSecrets } from './secrets.ts';
import { resealAll } from './webhooks.ts';

/** What deliveries need. */
export interface DeliveriesDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
  readonly replicaId: string;
  readonly secrets: SecretBox;
  readonly send: Send;
  /** Told of every attempt that ended; `seconds` is how long it took. */
  readonly attempted: (result: 'delivered' | FailureKind, seconds: number) => void;
  /** Tells agents of what waits for them. */
  readonly tellAgents: () => Promise<void>;
}

/** Bounds of deliveries. */
export interface DeliveriesOptions {
  /** Rows claimed at a time. */
  readonly batchSize: number;
  /** How late a due delivery is seen when nothing wakes this replica. */
  readonly intervalMs: number;
  /** How long after the death of a replica another one takes over. Renewed three times in that time. */
  readonly leaseMs: number;
}

/** A delivery that is being sent. */
interface Flight {
  readonly stop: AbortController;
  readonly ended: Promise<void>;
  /** Monotonic time at which the lease began at the latest. */
  heldFromMs: number;
}

/** Attempts under way in this process. */
const IN_ALL = 100;
/** Shortest wait for a retry, so that rows due at this instant do not spin. */
const MIN_WAIT_MS = 10;
/** What is under way gets this long when the process stops. */
const DRAIN_MS = 5_000;
const CHANNEL = 'webhook';

/**
 * Sends deliveries. A commit that queues some wakes every replica; each claims what is due under leases, at most
 * `batchSize` at a time, and renews these while it sends. At least once: a replica that dies between sending and recording
 * leaves the row to another one, which sends the same event under the same ids.
 */
export class Deliveries implements Task {
  readonly name = 'webhooks';
  readonly #deps: DeliveriesDeps;
  readonly #options: DeliveriesOptions;
  readonly #wakeup = new Wakeup();
  readonly #flights = new Map<string, Flight>();

  constructor(deps: DeliveriesDeps, options: DeliveriesOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Attempts under way now. */
  get inFlight(): number {
    return this.#flights.size;
  }

  /** Looks for what is due at once. */
  wake(): void {
    this.#wakeup.wake();
  }

  async run(signal: AbortSignal): Promise<void> {
    const { db, clock } = this.#deps;
    const drained = new AbortController();
    const listening = db
      .listen(CHANNEL, () => this.wake(), signal)
      .catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
    const sending = this.#sendDue(signal).then(async () => {
      using grace = clock.deadline(DRAIN_MS, new AbortController().signal);
      grace.signal.addEventListener('abort', () => this.#cutOff(), { once: true });
      await Promise.all([...this.#flights.values()].map(({ ended }) => ended));
      drained.abort();
    });
    await Promise.all([listening, sending, this.#keepLeases(drained.signal)]);
  }

  async #sendDue(signal: AbortSignal): Promise<void> {
    const { clock, log, tellAgents } = this.#deps;
    const { batchSize, intervalMs } = this.#options;
    await this.#reseal();
    while (!signal.aborted) {
      let waitMs = intervalMs;
      try {
        await tellAgents();
        const { claimed, dueMs } = await this.#claim();
        if (claimed === batchSize) continue;
        waitMs = Math.max(MIN_WAIT_MS, Math.min(intervalMs, dueMs));
      } catch (error) {
        log.warn({ error: errorText(error) }, 'webhook deliveries could not be claimed, trying again');
      }
      await this.#wakeup.waitAtMost(waitMs, clock, signal).catch(() => undefined);
    }
  }

  /** A new key takes over what the old one encrypts; what cannot be read stays, and says so when it is to be sent. */
  async #reseal(): Promise<void> {
    const { db, log, secrets } = this.#deps;
    try {
      const { resealed, problems } = await db.transaction((tx) => resealAll(tx, secrets));
      if (resealed > 0)
        log.info({ webhooks: resealed, key: secrets.keyId }, 'secrets of webhooks encrypted with the present key');
      for (const error of problems) log.error({ error }, 'secrets of a webhook cannot be read');
    } catch (error) {
      log.error({ error: errorText(error) }, 'secrets of webhooks could not be encrypted with the present key');
    }
  }

  /** Takes a batch and begins to send it; returns its size, and when the next delivery that waits for its time is due. */
  async #claim(): Promise<{ readonly claimed: number; readonly dueMs: number }> {
    const { db, clock, replicaId: id } = this.#deps;
    const { batchSize, leaseMs } = this.#options;
    const limit = Math.min(batchSize, IN_ALL - this.#flights.size);
    if (limit === 0) return { claimed: 0, dueMs: Number.POSITIVE_INFINITY }; // the next one that ends wakes us
    const heldFromMs = clock.monotonic();
    const { deliveries, dueMs } = await claimDeliveries(db, { kind: 'replica', id }, { limit, leaseMs });
    if (this.#isLate(heldFromMs))
      throw new Error('the database took too long: what was claimed is due again when the lease is over');
    for (const delivery of deliveries) {
      const stop = new AbortController();
      const ended = this.#deliver(delivery, stop.signal).finally(() => {
        this.#flights.delete(delivery.id);
        this.wake();
      });
      this.#flights.set(delivery.id, { stop, ended, heldFromMs });
    }
    return { claimed: deliveries.length, dueMs };
  }

  /** One attempt, from the secrets to its record. Never rejects: what cannot be recorded is sent again by whoever claims it. */
  async #deliver(delivery: ClaimedDelivery, signal: AbortSignal): Promise<void> {
    const { db, clock, log, replicaId, attempted } = this.#deps;
    const { id, attempts } = delivery;
    const beganMs = clock.monotonic();
    try {
      const outcome = await this.#attempt(delivery, signal);
      attempted(outcome.kind === 'delivered' ? 'delivered' : outcome.failure, (clock.monotonic() - beganMs) / 1000);
      await recordOutcome(this.#deps, replicaId, delivery, outcome);
    } catch (error) {
      if (!signal.aborted) log.warn({ delivery: id, error: errorText(error) }, 'end of a webhook attempt not recorded');
      else await releaseDelivery(db, { id, holderId: replicaId, attempts }).catch(() => undefined); // its lease runs out by itself
    }
  }

  async #attempt(delivery: ClaimedDelivery, signal: AbortSignal): Promise<Outcome> {
    const { secrets, send, clock } = this.#deps;
    let opened: WebhookSecrets;
    try {
      opened = secrets.open(delivery.subscription);
    } catch (error) {
      return { kind: 'failed', failure: 'key', message: errorText(error) };
    }
    return await send(requestOf(opened, messageOf(delivery), clock.now()), signal);
  }

  /**
   * Renews leases until everything under way has ended. What is lost, or may be, is cut off: another replica may send it. At the
   * latest 23/24 of a lease after it began: a look comes every third, lasts an eighth at most, and takes nothing past the half.
   */
  async #keepLeases(drained: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    while (!drained.aborted) {
      await clock.sleep(this.#options.leaseMs / 3, drained).catch(() => undefined);
      const flights = [...this.#flights];
      if (flights.length === 0) continue;
      const renewedMs = clock.monotonic();
      const held = await this.#renew(flights.map(([id]) => id));
      for (const [id, flight] of flights) {
        if (held?.includes(id)) flight.heldFromMs = renewedMs;
        else if (held || this.#isLate(flight.heldFromMs)) flight.stop.abort(new Error('the lease was lost'));
      }
    }
  }

  /** Those that are still held; undefined when the database does not say in time. */
  async #renew(ids: readonly string[]): Promise<readonly string[] | undefined> {
    const { db, clock, log, replicaId } = this.#deps;
    const { leaseMs } = this.#options;
    try {
      using deadline = clock.deadline(leaseMs / 8, new AbortController().signal);
      return await abortable(renewLeases(db, replicaId, ids, leaseMs), deadline.signal);
    } catch (error) {
      log.warn({ error: errorText(error) }, 'leases of webhook deliveries not renewed');
      return undefined;
    }
  }

  #isLate(heldFromMs: number): boolean {
    return this.#deps.clock.monotonic() - heldFromMs > this.#options.leaseMs / 2;
  }

  #cutOff(): void {
    for (const { stop } of this.#flights.values()) stop.abort(new Error('the broker is stopping'));
  }
}
