import { errorText } from '#lib/errors.ts';
import { Wakeup } from '#lib/signal.ts';
import { type ApplyOptions, type Health, type ObjectStatus, Phase } from '#proto/brokkr/v1/content_pb.js';
import type { StackStatus } from '#proto/brokkr/v1/sync_pb.js';
import { type Suspect, Suspects } from '../drift/suspects.ts';
import type { Engine, OwnedKey } from '../engine.ts';
import type { Outlook } from '../explain/state.ts';
import { countHealth, type HealthCount, type HealthSubject } from '../health/health.ts';
import { type HealthWait, SeenHealth } from '../health/seen.ts';
import type { WatchedStack } from '../health/watch.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { InventoryTakenError } from '../inventory/maps.ts';
import { rebuildInventory } from '../inventory/rebuild.ts';
import { classify, type ErrorClass } from '../kube/errors.ts';
import { manifestHas } from '../prune/handover.ts';
import { Terminating } from '../prune/terminating.ts';
import { type Proof, proveReach } from './confirmation.ts';
import type { WorkerEvents } from './events.ts';
import { FinishedJobs } from './finished-jobs.ts';
import { compareTarget, type Goal, isStale, unfinishedRemoval } from './goal.ts';
import { leaveStack } from './leave.ts';
import type { SyncEnd } from './sync-input.ts';
import type { StackTarget, StackTombstone } from './target.ts';
import { Trial } from './trial.ts';
import { Tries } from './tries.ts';
import { StackView } from './view.ts';

/** Until a lost inventory is looked for again, when not every kind could be asked. */
const REBUILD_RECHECK_MS = 60_000;
/** Should the watch of a kind not be allowed, the end of a deletion that a withdrawal waits for is seen this late. */
const UNWATCHED_MS = 300_000;

/** How the keys of namespaces begin. */
const NAMESPACE_KEY = '/Namespace//';

/**
 * Everything about one stack, in one loop: the newest target wins, an older one in work stops at the next object. Nothing a stack does
 * or waits for delays another one.
 */
export class StackWorker implements HealthSubject, WatchedStack {
  readonly inventory: Inventory;
  readonly suspects: Suspects;
  readonly terminating: Terminating;
  readonly seen = new SeenHealth();
  readonly #engine: Engine;
  readonly #events: WorkerEvents;
  readonly #wakeup = new Wakeup();
  #goal: Goal = { kind: 'none' };
  /** The goal is not reached, as far as is known. */
  #dirty = false;
  #job: AbortController | undefined;
  #suspended: string | undefined;
  #left = false;
  #asked = false;
  readonly #tries: Tries;
  readonly #view: StackView;
  readonly #jobs: FinishedJobs;
  readonly #trial: Trial;

  constructor(engine: Engine, inventory: Inventory, events: WorkerEvents) {
    this.#engine = engine;
    this.inventory = inventory;
    this.#events = events;
    this.suspects = new Suspects(engine, inventory);
    this.terminating = new Terminating(engine, inventory);
    this.#tries = new Tries(engine);
    this.#view = new StackView(engine, inventory);
    this.#jobs = new FinishedJobs(inventory);
    this.#trial = new Trial(engine, inventory, () => this.#counted);
  }

  get stackId(): string {
    return this.inventory.head.stackId;
  }

  /** That of what is applied; empty while no generation is, as a whole. */
  get deploymentObjectId(): string {
    const { appliedGeneration, receivedGeneration, deploymentObjectId, good } = this.inventory.head;
    if (appliedGeneration === receivedGeneration) return deploymentObjectId;
    return good?.generation === appliedGeneration ? good.deploymentObjectId : '';
  }

  /** How it is applied; undefined while it has no target. */
  get options(): ApplyOptions | undefined {
    return this.#goal.kind === 'target' ? this.#goal.target.options : undefined;
  }

  /** Monotonic time at which something that may have drifted is to be dealt with; never while the stack is paused or leaving. */
  get #suspectsAt(): number {
    const options = this.#goal.kind === 'target' && !this.#goal.target.options.paused ? this.#trial.options : undefined;
    return options ? this.suspects.dueAt(options) : Number.POSITIVE_INFINITY;
  }

  /** Whether the server has to serve more kinds before the stack can go on. */
  get waitsForKinds(): boolean {
    return this.#tries.waitsForKinds;
  }

  /** As last counted. */
  get health(): Health {
    return this.#view.health;
  }

  /** The state as it would be reported now. */
  get status(): StackStatus {
    return this.#view.status;
  }

  /** What is known, for explanations. */
  get outlook(): Outlook {
    const { clock } = this.#engine;
    const at = (this.#dirty ? this.#tries.at : undefined) ?? Number.POSITIVE_INFINITY;
    return {
      goal: this.#goal,
      inventory: this.inventory,
      seen: this.seen.states,
      problems: this.#view.problems,
      isSuspect: (key) => this.suspects.has(key),
      phase: this.#view.phase,
      message: this.#view.message,
      sinceMs: this.#view.sinceMs,
      retryAtMs: Number.isFinite(at) ? clock.now() + Math.max(0, at - clock.monotonic()) : undefined,
      suspended: this.#suspended,
    };
  }

  /** Takes a target unless a newer one, or a newer tombstone, is known. The same one again is only answered with the state. */
  offer(target: StackTarget): void {
    const verdict = compareTarget(this.#goal, target);
    if (verdict === 'same') this.#view.tell();
    if (verdict !== 'take') return;
    this.#goal = { kind: 'target', target };
    this.suspects.reconsider();
    this.#view.target = target;
    this.#trial.begin(target);
    if (!target.options.paused && this.#trial.settled && !this.inventory.inDoubt) {
      this.#dirty = false;
      this.#tries.clear();
      this.#view.applied();
      this.#events.changed();
      this.#wakeup.wake(); // what was seen before the target came
      return;
    }
    this.#begin(Phase.RECEIVED, 'superseded by a newer generation');
  }

  /** Takes a tombstone unless a newer target is known. */
  withdraw(tombstone: StackTombstone): void {
    if (isStale(this.#goal, tombstone)) return;
    this.#goal = { kind: 'tombstone', tombstone };
    this.#view.target = undefined;
    this.#trial.begin(undefined);
    this.#begin(Phase.PRUNING, 'the stack was withdrawn');
  }

  /** Stops writing at the next object, keeping everything; undefined goes on. */
  suspend(reason: string | undefined): void {
    this.#suspended = reason;
    if (reason !== undefined) this.#job?.abort(new Error(reason));
    else {
      this.#trial.resume();
      this.#wakeup.wake();
    }
  }

  /** Deletions are allowed again: what was kept only for that goes now. */
  releaseDeletions(): void {
    const waiting = this.#goal.kind === 'tombstone' || [...this.inventory.entries.values()].some(({ state }) => state === 'kept');
    if (!waiting) return;
    if (this.#goal.kind === 'none') this.#ask();
    else this.#begin(this.#view.phase, undefined);
  }

  /** Whether the newest target has an object; undefined while none is known. */
  wants(object: OwnedKey): boolean | undefined {
    const goal = this.#goal;
    if (goal.kind !== 'target') return goal.kind === 'tombstone' ? false : undefined;
    return manifestHas(goal.target.manifest, object, this.#engine.defaultNamespace);
  }

  /** What the stack waits for may have happened. */
  nudge(): void {
    if (this.#tries.at === undefined && this.#job === undefined) return;
    this.#tries.now();
    this.#wakeup.wake();
  }

  /** The server may serve new kinds. */
  kindsChanged(): void {
    if (this.waitsForKinds) this.#soon();
  }

  /** What the rules of the environment refused may be allowed now. */
  rulesChanged(): void {
    if (!this.#dirty || this.#tries.at === undefined) return;
    this.#tries.now();
    this.#wakeup.wake();
  }

  /** Something was seen that may need a correction. */
  wake(): void {
    if (this.#goal.kind === 'none') this.#ask();
    this.#wakeup.wake();
  }

  finished(key: string, uid: string): void {
    if (this.#jobs.note(key, uid)) this.#wakeup.wake();
  }

  /** An object left the watch, or was not among those listed. */
  missed(key: string): void {
    if (this.terminating.miss(key)) this.#wakeup.wake();
    else if (this.suspects.miss(key)) {
      if (key.startsWith(NAMESPACE_KEY)) this.#namespaceGone();
      this.wake();
    }
  }

  /** What could not be written into a namespace while it was terminating may be written now. */
  #namespaceGone(): void {
    this.suspects.retryNow();
    this.#soon();
  }

  /** What of the stack cannot be seen, in words. */
  unseen(what: readonly string[]): void {
    this.#view.unseen = what.length === 0 ? '' : `cannot see ${what.join(', ')}`;
  }

  count(): HealthCount | undefined {
    if (this.inventory.head.appliedGeneration === 0n || this.#goal.kind === 'tombstone') return undefined;
    return this.#counted;
  }

  get #counted(): HealthCount {
    return countHealth(this.inventory.entries.values(), this.seen.states, this.options?.healthRules);
  }

  healthChanged(count: HealthCount): void {
    this.#view.count = count;
    this.#view.tell();
    if (this.#trial.noticed(count)) this.#wakeup.wake();
  }

  /** Works until `signal` aborts or the stack has left. */
  async run(signal: AbortSignal): Promise<void> {
    const removal = this.#goal.kind === 'none' ? unfinishedRemoval(this.inventory) : undefined;
    if (removal) this.withdraw(removal);
    while (!signal.aborted) {
      await this.#wait(signal);
      if (this.#suspended !== undefined) continue;
      let left = false;
      await this.#events.run(async () => {
        left = await this.#step(signal);
        if (!left) await this.#jobs.store(this.#engine.log, signal);
      }, signal);
      if (left) return;
    }
  }

  async #wait(signal: AbortSignal): Promise<void> {
    const next = this.#tries.at ?? Number.POSITIVE_INFINITY;
    const { clock } = this.#engine;
    const at = Math.min(next, this.#suspectsAt, this.suspects.verifyAt, this.terminating.dueAt, this.#trial.dueAt);
    if (this.#suspended !== undefined || at === Number.POSITIVE_INFINITY) return await this.#wakeup.wait(signal);
    const ms = at - clock.monotonic();
    if (ms > 0) await this.#wakeup.waitAtMost(ms, clock, signal);
  }

  /** One piece of work, if any is due. True when the stack has left. */
  async #step(signal: AbortSignal): Promise<boolean> {
    if (this.#suspended !== undefined) return false;
    const state = await this.#tries.due(signal);
    if (state === 'waiting') return false;
    const due = state === 'due';
    const goal = this.#goal;
    if (this.suspects.verifyDue() && goal.kind === 'none') this.#ask();
    if (goal.kind === 'none' && this.terminating.dueAt === Number.POSITIVE_INFINITY) return false;
    const job = new AbortController();
    let suspects: ReadonlyMap<string, Suspect> = new Map();
    this.#job = job;
    try {
      if (await this.terminating.settle(signal)) this.#ended();
      if (goal.kind === 'tombstone') return due ? await this.#leave(goal.tombstone, job.signal, signal) : false;
      if (goal.kind === 'none') return false;
      const verdict = await this.#trial.review(signal);
      if (verdict === 'good') this.#view.tell();
      if (verdict === 'given_up') return this.#goBack();
      // A new generation goes first: looking at what it may change anyway would hold it up.
      if (!(due && this.#dirty) || this.#trial.settled) suspects = await this.#takeSuspects(goal.target, signal);
      if ((due && this.#dirty) || suspects.size > 0) {
        this.#tries.clear();
        const input = { engine: this.#engine, inventory: this.inventory, goal: goal.target, suspects, stop: job.signal };
        const healthy = (wait: HealthWait) => this.#healthy(wait, job.signal, signal);
        const prove = (target: StackTarget) => this.#prove(target, job.signal, signal);
        const end = await this.#trial.sync({ ...input, phase: (phase) => this.#view.show(phase), healthy, prove }, signal);
        this.#finished(end, job.signal.aborted);
        if (end.kind !== 'applied') this.#putBack(suspects);
        else if (this.inventory.head.partial) await this.#rebuild(job.signal, signal);
      } else if (due) this.#tries.clear();
    } catch (error) {
      signal.throwIfAborted();
      await this.#broken(error, signal);
      this.#putBack(suspects);
    } finally {
      this.#job = undefined;
      this.#view.drifted = this.suspects.drifted;
      if (!this.#left) this.#events.changed();
    }
    return false;
  }

  /** See `WaveGateInput.healthy`. Holds no place meanwhile, and needs the watches, which begin after the sync otherwise. */
  #healthy(wait: HealthWait, stop: AbortSignal, signal: AbortSignal): Promise<readonly ObjectStatus[]> {
    this.#events.watch();
    const tell = (message: string, unready: readonly ObjectStatus[]) => this.#view.show(Phase.APPLYING, message, unready);
    return this.#events.aside(() =>
      this.seen.ready(wait, { clock: this.#engine.clock, rules: this.options?.healthRules ?? [], stop, tell }, signal),
    );
  }

  /** Holds no place meanwhile. */
  #prove({ generation, options }: StackTarget, stop: AbortSignal, signal: AbortSignal): Promise<Proof> {
    this.#view.show(Phase.APPLYING, 'finding out whether the agent was cut off');
    const input = { generation, seconds: options.confirmSeconds, stop };
    return this.#events.aside(() => proveReach(this.#engine, input, signal));
  }

  async #takeSuspects(goal: StackTarget, signal: AbortSignal): Promise<ReadonlyMap<string, Suspect>> {
    if (this.#suspectsAt > this.#engine.clock.monotonic()) return new Map();
    return await this.suspects.take(await this.#trial.wanted(goal, signal), signal);
  }

  #putBack(suspects: ReadonlyMap<string, Suspect>): void {
    this.suspects.putBack(suspects, this.#tries.at);
  }

  #finished(end: SyncEnd, stopped: boolean): void {
    switch (end.kind) {
      case 'applied': {
        this.suspects.corrected(end.corrections);
        this.suspects.retryNow();
        this.#tries.succeeded();
        if (!this.#dirty && end.again === undefined && end.corrections.length === 0) return; // looked at and found as it should be
        this.#view.count = this.count();
        this.#dirty = end.again !== undefined || stopped;
        if (end.again !== undefined) this.#tries.kept(end.again);
        const statuses = [...end.kept, ...end.corrections.map(({ status }) => status)];
        const kept = end.kept.length > 0 ? `${end.kept.length} objects are kept` : '';
        this.#view.applied([end.proven, kept].filter(Boolean).join('; '), statuses);
        return;
      }
      case 'refused':
        this.#tries.refused(end.missing);
        this.#view.failed(Phase.REFUSED, end.message, end.objects);
        return;
      case 'failed':
        this.suspects.corrected(end.corrections);
        this.#failed(end.class, end.message, end.objects);
        return;
      case 'paused':
        this.#dirty = false;
        this.#view.show(this.#trial.settled ? Phase.APPLIED : Phase.RECEIVED, 'paused: nothing is applied');
        return;
      case 'given_up':
        if (!stopped) this.#goBack();
        return;
      case 'stopped':
        if (this.#suspended !== undefined) this.#tries.after(0);
        return;
    }
  }

  /** The target was given up: the good generation is applied next. */
  #goBack(): false {
    this.#begin(Phase.FAILED, undefined);
    return false;
  }

  #failed(kind: ErrorClass, message: string, objects: readonly ObjectStatus[]): void {
    this.#dirty = true;
    this.#tries.failed(kind);
    this.#view.failed(Phase.FAILED, message, objects);
  }

  /** The sync itself could not be carried out: the inventory could not be read or stored, or there is a bug. */
  async #broken(error: unknown, signal: AbortSignal): Promise<void> {
    this.#engine.log.warn({ stack: this.inventory.head.stackName, error: errorText(error) }, 'sync was not carried out');
    if (error instanceof InventoryTakenError) await this.inventory.reload(signal).catch(() => signal.throwIfAborted());
    this.#failed(classify(error), errorText(error), []);
  }

  async #leave(tombstone: StackTombstone, stop: AbortSignal, signal: AbortSignal): Promise<boolean> {
    this.#tries.clear();
    this.#view.show(Phase.PRUNING);
    const end = await leaveStack({ engine: this.#engine, inventory: this.inventory, tombstone, stop }, signal);
    if (end.kind === 'stopped') {
      if (this.#suspended !== undefined) this.#tries.after(0);
      return false;
    }
    if (end.kind === 'kept') {
      if (end.again) this.#tries.kept(end.again);
      this.#view.show(Phase.KEPT, end.message, end.objects);
      return false;
    }
    if (end.kind === 'waiting') {
      this.#tries.after(UNWATCHED_MS);
      this.#view.show(Phase.PRUNING, end.message);
      return false;
    }
    if (stop.aborted) return false; // a newer target came: the stack stays
    this.#view.show(Phase.PRUNED);
    await this.inventory.removeHead(signal);
    await this.#engine.content.dropWayBack(this.stackId);
    if (this.#goal.kind !== 'tombstone') return false;
    this.#left = true;
    this.#events.gone();
    return true;
  }

  /** Deletions have come to their end: what waited for that goes on. */
  #ended(): void {
    const isLeaving = this.#goal.kind === 'tombstone';
    if (isLeaving || this.#dirty) this.#tries.now();
    this.#view.tell();
  }

  /** Looks for what a lost inventory held; afterwards what is not wanted goes. */
  async #rebuild(stop: AbortSignal, signal: AbortSignal): Promise<void> {
    const problem = await rebuildInventory(this.#engine, this.inventory, stop, signal);
    if (stop.aborted) return;
    const isOver = problem === undefined && ![...this.inventory.entries.values()].some(({ state }) => state === 'kept');
    if (isOver) return;
    this.#dirty = true;
    if (problem === undefined) this.#tries.now();
    else {
      this.#engine.log.warn({ stack: this.inventory.head.stackName, problem }, 'inventory cannot be rebuilt completely');
      this.#tries.after(REBUILD_RECHECK_MS);
    }
  }

  #ask(): void {
    if (this.#asked) return;
    this.#asked = true;
    this.#engine.needTarget(this.stackId);
  }

  #begin(phase: Phase, reason: string | undefined): void {
    this.#dirty = true;
    this.#tries.restart();
    if (reason !== undefined) this.#job?.abort(new Error(reason));
    this.#view.show(phase);
    this.#wakeup.wake();
  }

  /** What is planned is tried at once. */
  #soon(): void {
    this.#tries.soon();
    this.#wakeup.wake();
  }
}
