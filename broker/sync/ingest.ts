import { create, toBinary } from '@bufbuild/protobuf';
import { timestampMs as protoMs } from '@bufbuild/protobuf/wkt';
import type { Clock } from '#lib/clock.ts';
import { BrokkrError, errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Task } from '#lib/run.ts';
import { Wakeup } from '#lib/signal.ts';
import { traceparentOf } from '#lib/tracing.ts';
import { Health, type ObjectStatus, Phase } from '#proto/brokkr/v1/content_pb.js';
import { type AttemptEvent, type StackHealth, type StackStatus, StackStatusSchema } from '#proto/brokkr/v1/sync_pb.js';
import type { Database } from '../database.ts';
import {
  type Delivered,
  type EventInsert,
  type HealthUpsert,
  insertEvents,
  type StatusUpdate,
  updateStatuses,
  upsertHealth,
} from './ingest-store.ts';
import { type TracedEvent, traceEvent } from './traced-event.ts';

/** What the ingestion path needs. `changed` is told the stacks whose status was stored, `delivered` how far generations have come. */
export interface IngestDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly log: Logger;
  readonly changed: (stackIds: ReadonlySet<string>) => void;
  readonly delivered: (items: readonly Delivered[]) => void;
}

/** Whose report it is. */
export interface Reporter {
  readonly agentId: string;
  readonly epoch: bigint;
}

interface PendingEvents {
  readonly reporter: Reporter;
  readonly bootId: string;
  readonly events: readonly TracedEvent[];
  readonly settled: PromiseWithResolvers<bigint | undefined>;
}

/** Events waiting over all agents; past it a batch is refused and its agent sends it again. */
const MAX_PENDING_EVENTS = 50_000;
/** Events stored in one transaction. */
const BATCH_EVENTS = 5_000;
const RETRY_MS = 500;
const MESSAGE_BYTES = 4096;

/**
 * The one way of reports into the database, for every transport. Statuses and health: newest wins per (agent, stack),
 * written in sets. Events: stored once each (cursor per agent and boot, attempt id), acknowledged after the commit.
 * One flush at a time, so that load makes batches larger and not more.
 */
export class Ingest implements Task {
  readonly name = 'ingest';
  readonly #deps: IngestDeps;
  readonly #wakeup = new Wakeup();
  #statuses = new Map<string, StatusUpdate>();
  #health = new Map<string, HealthUpsert>();
  readonly #events: PendingEvents[] = [];
  #pendingEvents = 0;

  constructor(deps: IngestDeps) {
    this.#deps = deps;
  }

  /** Events taken and not stored yet. */
  get pendingEvents(): number {
    return this.#pendingEvents;
  }

  /** Takes the state of stacks; replaces what waits for the same pair. */
  status(reporter: Reporter, items: readonly StackStatus[]): void {
    for (const item of items) this.#statuses.set(`${reporter.agentId}/${item.stackId}`, toUpdate(reporter, item));
    this.#wakeup.wake();
  }

  /** Takes the health of stacks; replaces what waits for the same deployment object. */
  health(reporter: Reporter, items: readonly StackHealth[]): void {
    for (const item of items) {
      if (item.deploymentObjectId !== '')
        this.#health.set(`${reporter.agentId}/${item.deploymentObjectId}`, toHealth(reporter, item));
    }
    this.#wakeup.wake();
  }

  /**
   * Stores events and resolves with the highest number stored of that boot; undefined when the epoch is over. Rejects
   * with `too_many_requests` when too much waits.
   */
  async events(reporter: Reporter, bootId: string, events: readonly AttemptEvent[]): Promise<bigint | undefined> {
    if (this.#pendingEvents + events.length > MAX_PENDING_EVENTS)
      throw new BrokkrError('too_many_requests', `${MAX_PENDING_EVENTS} events are waiting to be stored`);
    const settled = Promise.withResolvers<bigint | undefined>();
    const traced = events.map((event) => traceEvent(reporter.agentId, event));
    this.#pendingEvents += events.length;
    this.#events.push({ reporter, bootId, events: traced, settled });
    this.#wakeup.wake();
    try {
      return await settled.promise;
    } finally {
      for (const item of traced) item.traced?.span.end();
    }
  }

  /** Runs until aborted and everything taken is written (or one last attempt failed). */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    while (!signal.aborted) {
      await this.#wakeup.wait(signal).catch(() => undefined);
      try {
        await this.#flush();
      } catch (error) {
        log.warn({ error: errorText(error) }, 'reports could not be stored, trying again');
        await clock.sleep(RETRY_MS, signal).catch(() => undefined);
        this.#wakeup.wake();
      }
    }
    await this.#flush().catch((error: unknown) => log.warn({ error: errorText(error) }, 'last reports could not be stored'));
    for (const { settled } of this.#events.splice(0)) settled.reject(new BrokkrError('draining', 'the broker is stopping'));
  }

  async #flush(): Promise<void> {
    while (this.#events.length > 0 || this.#statuses.size > 0 || this.#health.size > 0) {
      await this.#flushEvents();
      await this.#flushStatuses();
      await this.#flushHealth();
    }
  }

  async #flushEvents(): Promise<void> {
    const batch: PendingEvents[] = [];
    let count = 0;
    while (this.#events[0] && count < BATCH_EVENTS) {
      const pending = this.#events.shift();
      if (!pending) break;
      batch.push(pending);
      count += pending.events.length;
    }
    if (batch.length === 0) return;
    try {
      const stored = await this.#deps.db.transaction((tx) =>
        insertEvents(
          tx,
          batch.map(({ reporter, bootId, events }) => ({ ...reporter, bootId, events: events.map((event) => toInsert(event)) })),
        ),
      );
      this.#pendingEvents -= count;
      for (const [index, { settled }] of batch.entries()) settled.resolve(stored[index]);
    } catch (error) {
      if (isPassing(error)) {
        this.#events.unshift(...batch);
        throw error;
      }
      for (const pending of batch) await this.#storeAlone(pending); // one of them cannot be stored: its agent is told, others go on
    }
  }

  /** One agent's bad batch must not hold up the others. */
  async #storeAlone(pending: PendingEvents): Promise<void> {
    const { reporter, bootId, events, settled } = pending;
    this.#pendingEvents -= events.length;
    try {
      const [through] = await this.#deps.db.transaction((tx) =>
        insertEvents(tx, [{ ...reporter, bootId, events: events.map((event) => toInsert(event)) }]),
      );
      settled.resolve(through);
    } catch (error) {
      settled.reject(error);
    }
  }

  async #flushStatuses(): Promise<void> {
    const statuses = this.#statuses;
    if (statuses.size === 0) return;
    this.#statuses = new Map();
    try {
      const { stackIds, delivered } = await this.#deps.db.transaction((tx) => updateStatuses(tx, [...statuses.values()]));
      this.#deps.changed(new Set(stackIds));
      this.#deps.delivered(delivered);
    } catch (error) {
      if (!isPassing(error)) return this.#dropReports('status', [...statuses.keys()], error);
      for (const [key, value] of statuses) if (!this.#statuses.has(key)) this.#statuses.set(key, value);
      throw error;
    }
  }

  async #flushHealth(): Promise<void> {
    const health = this.#health;
    if (health.size === 0) return;
    this.#health = new Map();
    try {
      const changed = await this.#deps.db.transaction((tx) => upsertHealth(tx, [...health.values()]));
      this.#deps.changed(new Set(changed));
    } catch (error) {
      if (!isPassing(error)) return this.#dropReports('health', [...health.keys()], error);
      for (const [key, value] of health) if (!this.#health.has(key)) this.#health.set(key, value);
      throw error;
    }
  }

  /** A set that can never be stored must not be tried for ever; agents repeat their state with the next report. */
  #dropReports(what: 'status' | 'health', keys: readonly string[], error: unknown): void {
    this.#deps.log.error(
      { what, reports: keys.length, first: keys[0], error: errorText(error) },
      'reports cannot be stored and are dropped',
    );
  }
}

/** True when the same statement may succeed later. */
function isPassing(error: unknown): boolean {
  return (
    error instanceof BrokkrError &&
    (error.code === 'database_unavailable' || error.code === 'unavailable' || error.code === 'deadline_exceeded')
  );
}

/** Names of phases in the database. */
export const PHASES: Readonly<Record<Phase, string>> = {
  [Phase.UNSPECIFIED]: 'pending',
  [Phase.PENDING]: 'pending',
  [Phase.RECEIVED]: 'received',
  [Phase.VALIDATED]: 'validated',
  [Phase.APPLYING]: 'applying',
  [Phase.APPLIED]: 'applied',
  [Phase.FAILED]: 'failed',
  [Phase.REFUSED]: 'refused',
  [Phase.PRUNING]: 'pruning',
  [Phase.PRUNED]: 'pruned',
  [Phase.KEPT]: 'kept',
  [Phase.ROLLED_BACK]: 'rolled_back',
};

/** Names of healths in the database. */
export const HEALTHS: Readonly<Record<Health, HealthUpsert['status']>> = {
  [Health.UNSPECIFIED]: 'unknown',
  [Health.UNKNOWN]: 'unknown',
  [Health.HEALTHY]: 'healthy',
  [Health.DEGRADED]: 'degraded',
  [Health.FAILING]: 'failing',
};

function toUpdate(reporter: Reporter, item: StackStatus): StatusUpdate {
  return {
    ...reporter,
    stackId: item.stackId,
    receivedGeneration: item.receivedGeneration,
    receivedManifestDigest: item.receivedManifestDigest,
    appliedGeneration: item.appliedGeneration,
    phase: PHASES[item.phase],
    health: HEALTHS[item.health],
    message: textOf(item.message),
    objects: packObjects(item.objects),
    total: item.objectsTotal,
    ready: item.objectsReady,
    refusedGeneration: item.refusedGeneration,
    goodGeneration: item.goodGeneration,
    awaitingApproval: item.awaitingApproval,
  };
}

function toHealth(reporter: Reporter, item: StackHealth): HealthUpsert {
  const summary = {
    pods_ready: item.podsReady,
    pods_total: item.podsTotal,
    conditions: item.objects.map((object) => object.reason),
    resources: item.objects.map(({ kind, name, namespace, message }) => ({ kind, name, namespace, ready: false, message })),
  };
  return {
    ...reporter,
    stackId: item.stackId,
    deploymentObjectId: item.deploymentObjectId,
    status: HEALTHS[item.health],
    summary: JSON.stringify(summary),
    checkedAtMs: item.checkedAt ? protoMs(item.checkedAt) : undefined,
    total: item.objectsTotal,
    ready: item.objectsReady,
    objects: packObjects(item.objects),
  };
}

function toInsert({ event, traced }: TracedEvent): EventInsert {
  return {
    seq: event.seq,
    attemptId: event.attemptId,
    stackId: event.stackId === '' ? null : event.stackId,
    deploymentObjectId: event.deploymentObjectId === '' ? null : event.deploymentObjectId,
    generation: event.generation,
    eventType: event.eventType === '' ? 'APPLY' : event.eventType,
    success: event.success,
    message: textOf(event.message),
    objects: packObjects(event.objects),
    counts: JSON.stringify(event.counts),
    durationMs: event.durationMs,
    occurredAtMs: event.at ? protoMs(event.at) : undefined,
    traceparent: traced && traceparentOf(traced),
  };
}

/** Text from a cluster, as the database can hold it: bounded, without null characters. */
function textOf(message: string): string | null {
  return message === '' ? null : message.slice(0, MESSAGE_BYTES).replaceAll('\0', '');
}

/** Objects are kept in their wire form, inside the message they came in. */
function packObjects(objects: readonly ObjectStatus[]): Uint8Array | null {
  return objects.length === 0 ? null : toBinary(StackStatusSchema, create(StackStatusSchema, { objects: [...objects] }));
}
