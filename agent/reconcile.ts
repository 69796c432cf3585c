import { createHash } from 'node:crypto';
import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { runTasks, type Task } from '#lib/run.ts';
import { Wakeup } from '#lib/signal.ts';
import type { YamlPool } from '#lib/yaml-pool.ts';
import type { ExplainQuery, Explanation } from '#proto/brokkr/v1/explain_pb.js';
import type { StackStatus } from '#proto/brokkr/v1/sync_pb.js';
import { KindWatch } from './apply/kind-watch.ts';
import { type Census, takeCensus } from './census.ts';
import { ObjectWatch, type WatchedKind } from './drift/watch.ts';
import type { Engine, OwnedKey, StackRef, VerifyCounts } from './engine.ts';
import { explainStack } from './explain/explain.ts';
import { HealthReporter } from './health/health.ts';
import { HealthWatch } from './health/watch.ts';
import { Inventory, loadInventories } from './inventory/inventory.ts';
import type { InventoryPlace } from './inventory/maps.ts';
import { MarkedObjectSearch } from './inventory/rebuild.ts';
import type { Kube } from './kube/kube.ts';
import type { KubeObject } from './kube/objects.ts';
import type { Reach } from './reach.ts';
import { Slots } from './slots.ts';
import type { WorkerEvents } from './stack/events.ts';
import { isCutOff, isReceived } from './stack/good-generation.ts';
import type { ContentSource, HeldStack, ReportSink, StackTarget, StackTombstone } from './stack/target.ts';
import { StackWorker } from './stack/worker.ts';
import { MANAGER_PREFIX, STACK_LABEL, stackIdentity } from './stack-identity.ts';

/** What the reconciler needs. */
export interface ReconcilerDeps {
  readonly kube: Kube;
  readonly yaml: YamlPool;
  readonly content: ContentSource;
  readonly report: ReportSink;
  /** What the agent has to reach; see `createReach`. */
  readonly reach: Reach;
  readonly clock: Clock;
  readonly log: Logger;
  /** In [0, 1). */
  readonly random: () => number;
  /**
   * Called when a stack that was restored from its inventory has work to do (drift to correct, a deletion no longer held) but was not
   * offered since the start: its target is wanted. At most once a stack.
   */
  readonly needTarget?: (stackId: string) => void;
  /** Told what happens, for metrics. */
  readonly observe: Engine['observe'];
  /** See `EnvironmentRules.current`; without it there are no rules. */
  readonly rules?: Engine['rules'];
  /** Random ids, of attempts and of this process. */
  readonly newId: () => string;
}

/** Settings of the reconciler. */
export interface ReconcilerOptions {
  readonly agentId: string;
  /** Namespace of the inventories; created when it does not exist. */
  readonly namespace: string;
  /** For namespaced objects that name none. */
  readonly defaultNamespace: string;
  /** Digest of the key the agent shows to the broker; with another one nothing is deleted before a complete apply. */
  readonly credential?: string;
  /** Whether kinds are watched in the whole cluster where RBAC allows it; true unless given. */
  readonly clusterWide?: boolean;
  /** Stacks worked on at a time; 16 unless given. */
  readonly concurrency?: number;
  /** Time between two looks for kinds the server did not know, in milliseconds; 15 s unless given. */
  readonly kindRecheckMs?: number;
  /** How long the end of an object that is to be created anew is waited for, in milliseconds; 60 s unless given. */
  readonly recreateWaitMs?: number;
  /** Every object is verified once in this time, in milliseconds, at most 7 days; 24 h unless given. */
  readonly verifyIntervalMs?: number;
}

const CONCURRENCY = 16;
const KIND_RECHECK_MS = 15_000;
const RECREATE_WAIT_MS = 60_000;
const VERIFY_INTERVAL_MS = 24 * 3_600_000;
/** Slots of the limiter that one stack alone leaves to others. */
const SPARE_CALLS = 2;

/** The apply engine of an agent: one worker a stack, shared watches, shared health. Starts nothing before `run`. */
export function openReconciler(deps: ReconcilerDeps, options: ReconcilerOptions): Reconciler {
  return new Reconciler(deps, options);
}

/** Keeps the stacks of this agent as the broker wants them. Call `load` before anything else. */
export class Reconciler implements Task {
  readonly name = 'reconciler';
  readonly #engine: Engine;
  readonly #place: InventoryPlace;
  readonly #workers = new Map<string, StackWorker>();
  readonly #byShort = new Map<string, StackWorker>();
  readonly #watch: ObjectWatch;
  readonly #health: HealthReporter;
  readonly #states: HealthWatch;
  readonly #kinds: KindWatch;
  readonly #clusterWide: boolean;
  readonly #slots: Slots;
  readonly #started = new Set<StackWorker>();
  readonly #arrivals = new Wakeup();
  #suspended: string | undefined;
  #deletionsHeld = true;
  #damaged: ReadonlyMap<string, readonly KubeObject[]> = new Map();

  constructor(deps: ReconcilerDeps, options: ReconcilerOptions) {
    const { agentId, namespace, defaultNamespace, credential = '', concurrency = CONCURRENCY } = options;
    const { kindRecheckMs = KIND_RECHECK_MS, recreateWaitMs = RECREATE_WAIT_MS } = options;
    const { clusterWide = true, verifyIntervalMs = VERIFY_INTERVAL_MS } = options;
    this.#place = { kube: deps.kube, log: deps.log, agentId, namespace, writer: deps.newId() };
    this.#slots = new Slots(concurrency);
    this.#clusterWide = clusterWide;
    const marked = new MarkedObjectSearch(deps);
    this.#engine = {
      ...deps,
      ...{ agentId, namespace, defaultNamespace, kindRecheckMs, recreateWaitMs, verifyIntervalMs },
      verification: { verified: 0, skipped: 0 },
      needTarget: (stackId) => deps.needTarget?.(stackId),
      rules: () => deps.rules?.(),
      deletionsHeld: () => this.#deletionsHeld,
      share: () => this.#share(),
      usesNamespace: (name, except) => this.#usesNamespace(name, except),
      claimedBy: (object, except) => this.#claimedBy(object, except),
      releasedBy: (fieldManager, object, owner) => this.#releasedBy(fieldManager, object, owner),
      nudge: (stackId) => this.#workers.get(stackId)?.nudge(),
      findMarked: (search, signal) => marked.find(search, signal),
      origin: (incarnation) => createHash('sha256').update(`${credential}\n${incarnation}`).digest('hex').slice(0, 16),
    };
    this.#watch = new ObjectWatch(
      { ...deps, clusterWide },
      {
        seen: (kind, key, object) => this.#seen(kind, key, object),
        left: (key) => this.#left(key),
        listed: (kind, name, keys) => this.#listed(kind, name, keys),
        blinded: () => {
          for (const worker of this.#workers.values()) worker.unseen(this.#watch.unseenBy(worker.stackId));
        },
      },
    );
    this.#health = new HealthReporter(deps);
    this.#states = new HealthWatch(deps, ({ stackId }) => {
      const worker = this.#workers.get(stackId);
      if (worker) this.#health.touch(worker);
    });
    this.#kinds = new KindWatch({
      ...deps,
      changed: () => {
        for (const worker of this.#workers.values()) worker.kindsChanged();
      },
    });
  }

  /** Reads the inventories from the cluster; what they say is what the agent holds. Call once, first. Rejects when the server cannot be asked. */
  async load(signal: AbortSignal): Promise<HeldStack[]> {
    const { inventories, damaged } = await loadInventories(this.#place, signal);
    this.#damaged = damaged;
    for (const inventory of inventories) this.#add(inventory);
    const open = inventories.filter(({ head }) => head.unconfirmed || isCutOff(head)).map(({ head }) => head.stackId);
    for (const { goal } of await this.#engine.content.loadWayBacks(new Set(open))) this.#resume(goal);
    return inventories.map(({ head }) => head);
  }

  /** Goes on, without the broker, with what was not confirmed yet, or with the way back from it. */
  #resume(goal: StackTarget): void {
    const worker = this.#workers.get(goal.stackId);
    if (worker && isReceived(worker.inventory.head, goal)) worker.offer(goal);
  }

  /** A stack as it is to be. Free when that is so already. */
  offer(target: StackTarget): void {
    this.#worker(target, target.generation === 1n).offer(target);
  }

  /** A stack that has to leave. */
  withdraw(tombstone: StackTombstone): void {
    this.#worker(tombstone, false).withdraw(tombstone);
  }

  /** Writes nothing any more, and keeps everything, until `resume`. Writes in flight end. */
  suspend(reason: string): void {
    this.#suspended = reason;
    for (const worker of this.#workers.values()) worker.suspend(reason);
  }

  /** Goes on after `suspend`. */
  resume(): void {
    this.#suspended = undefined;
    for (const worker of this.#workers.values()) worker.suspend(undefined);
  }

  /** While held (as at the start), nothing at all is deleted: the history of the broker is in doubt, or it has not spoken yet. */
  holdDeletions(held: boolean): void {
    if (held === this.#deletionsHeld) return;
    this.#deletionsHeld = held;
    if (!held) for (const worker of this.#workers.values()) worker.releaseDeletions();
  }

  /** The rules of the environment are others: what waits is tried again at once. */
  rulesChanged(): void {
    for (const worker of this.#workers.values()) worker.rulesChanged();
  }

  /** Time between two health reports of everything, in milliseconds; 60 s unless set. */
  set healthIntervalMs(ms: number) {
    this.#health.intervalMs = ms;
  }

  /** Looks at every object of a stack anew, whatever is known of it, at low priority. */
  verify(stackId: string): void {
    const worker = this.#workers.get(stackId);
    worker?.suspects.verify();
    worker?.wake();
  }

  /** What came of verifying objects since the start. */
  get verification(): Readonly<VerifyCounts> {
    return this.#engine.verification;
  }

  /** Kinds in use that cannot be watched now, in words. */
  get unseen(): readonly string[] {
    return this.#watch.unseen;
  }

  /** Everything held, counted. */
  census(): Census {
    return takeCensus(this.#workers.values(), this.#engine.clock.now());
  }

  /** How long each kind's watches have heard nothing, in milliseconds, by plural. */
  silenceMs(): ReadonlyMap<string, number> {
    const now = this.#engine.clock.monotonic();
    return new Map([...this.#watch.heardAt].map(([plural, at]) => [plural, now - at]));
  }

  /** State of every stack. */
  stacks(): StackStatus[] {
    return [...this.#workers.values()].map(({ status }) => status);
  }

  /** Why objects of a stack are as they are. Rejects when the stack is not here, and as `explainStack` does. */
  async explain(query: ExplainQuery, signal: AbortSignal): Promise<Explanation> {
    const worker = this.#workers.get(query.stackId);
    if (!worker) throw new Error('the agent has nothing of this stack, nor was it told of it');
    return await explainStack(this.#engine, worker.outlook, query, signal);
  }

  async run(signal: AbortSignal): Promise<void> {
    const workers: Task = { name: 'stack workers', run: (inner) => this.#runWorkers(inner) };
    const kinds = this.#clusterWide ? [this.#kinds] : []; // definitions are in no namespace
    await runTasks([this.#watch, this.#states, this.#health, ...kinds, workers], signal);
  }

  /** Starts a loop for each stack as it arrives, and waits for all of them at the end. */
  async #runWorkers(signal: AbortSignal): Promise<void> {
    const running = new Set<Promise<void>>();
    let failure: { readonly error: unknown } | undefined;
    while (!signal.aborted && !failure) {
      for (const worker of this.#workers.values()) {
        if (this.#started.has(worker)) continue;
        this.#started.add(worker);
        const run: Promise<void> = worker
          .run(signal)
          .catch((error: unknown) => {
            if (signal.aborted) return;
            failure = { error };
            this.#arrivals.wake();
          })
          .finally(() => running.delete(run));
        running.add(run);
      }
      await this.#arrivals.wait(signal).catch(() => undefined);
    }
    if (failure) throw failure.error;
    await Promise.all(running);
  }

  /**
   * The worker of a stack. One without an inventory may have lost it, unless this is the first generation there ever was: what it had
   * is looked for before anything is deleted.
   */
  #worker({ stackId, stackName }: StackRef, isFirst: boolean): StackWorker {
    const known = this.#workers.get(stackId);
    if (known) return known;
    const inventory = new Inventory(this.#place, stackId, stackName);
    const damaged = this.#damaged.get(inventory.identity.headName);
    if (damaged) inventory.restore(damaged);
    else inventory.head = { ...inventory.head, partial: !isFirst };
    return this.#add(inventory);
  }

  #add(inventory: Inventory): StackWorker {
    const events: WorkerEvents = {
      changed: () => {
        events.watch();
        this.#health.touch(worker);
        this.#kinds.use(worker.stackId, worker.waitsForKinds);
      },
      watch: () => this.#watch.use(worker.stackId, worker.inventory.entries.values(), worker.options?.healthRules),
      gone: () => {
        this.#workers.delete(worker.stackId);
        this.#byShort.delete(worker.inventory.identity.short);
        this.#started.delete(worker);
        this.#watch.use(worker.stackId, []);
        this.#states.forget(worker);
        this.#health.forget(worker);
        this.#kinds.use(worker.stackId, false);
      },
      run: (work, signal) => this.#slots.run(work, signal),
      aside: (wait) => this.#slots.aside(wait),
    };
    const worker = new StackWorker(this.#engine, inventory, events);
    if (this.#suspended !== undefined) worker.suspend(this.#suspended);
    this.#workers.set(worker.stackId, worker);
    this.#byShort.set(inventory.identity.short, worker);
    if (inventory.entries.size > 0) events.changed();
    this.#arrivals.wake();
    return worker;
  }

  #share(): number {
    const { taken } = this.#slots;
    const { limit } = this.#engine.kube.limiter;
    return Math.max(2, taken <= 1 ? limit - SPARE_CALLS : Math.floor(limit / taken));
  }

  #claimedBy(object: OwnedKey, except: string): StackRef | undefined {
    for (const worker of this.#workers.values()) {
      if (worker.stackId !== except && worker.wants(object)) return worker.inventory.head;
    }
    return undefined;
  }

  #releasedBy(fieldManager: string, object: OwnedKey, owner: string | undefined): StackRef | 'gone' | undefined {
    const worker = this.#byShort.get(fieldManager.slice(MANAGER_PREFIX.length));
    if (worker) return worker.wants(object) === false ? worker.inventory.head : undefined;
    const { agentId, namespace } = this.#engine;
    const [agent, stackId = ''] = owner?.split('/') ?? [];
    const isOurs = agent === agentId && stackIdentity(agentId, stackId, namespace).fieldManager === fieldManager;
    return isOurs ? 'gone' : undefined;
  }

  #usesNamespace(namespace: string, except: string): boolean {
    for (const { stackId, inventory } of this.#workers.values()) {
      if (stackId === except) continue;
      for (const entry of inventory.entries.values()) if (entry.namespaced && entry.namespace === namespace) return true;
    }
    return false;
  }

  #seen(kind: WatchedKind, key: string, object: KubeObject): void {
    const worker = this.#byShort.get(object.metadata.labels?.[STACK_LABEL] ?? '');
    if (!worker?.inventory.entries.has(key)) return;
    this.#states.see(worker, kind, key, object);
    if (worker.suspects.see(key, object.metadata)) worker.wake();
  }

  #left(key: string): void {
    for (const worker of this.#workers.values()) {
      this.#states.left(worker, key);
      worker.missed(key);
    }
  }

  #listed({ group, kind }: WatchedKind, namespace: string | undefined, keys: ReadonlySet<string>): void {
    for (const worker of this.#workers.values()) {
      for (const [key, entry] of worker.inventory.entries) {
        if (entry.group !== group || entry.kind !== kind || keys.has(key)) continue;
        if (namespace !== undefined && entry.namespace !== namespace) continue;
        worker.missed(key);
      }
    }
  }
}
