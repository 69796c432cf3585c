import { clone } from '@bufbuild/protobuf';
import { errorText } from '#lib/errors.ts';
import { isOpaque } from '#lib/object.ts';
import { type ApplyOptions, ApplyOptionsSchema, Health, type ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { shortDigest } from '../apply/plan.ts';
import { statusText } from '../apply/report.ts';
import type { Engine } from '../engine.ts';
import type { HealthCount } from '../health/health.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { ErrorClass } from '../kube/errors.ts';
import type { Proof } from './confirmation.ts';
import { isSettled, sameContent } from './goal.ts';
import { asGivenUp, asGood, isGivenUp, isOnTrial, isReceived, nothingOf } from './good-generation.ts';
import { syncStack } from './sync.ts';
import type { SyncEnd, SyncInput } from './sync-input.ts';
import { ContentUnavailableError, type StackTarget } from './target.ts';

/** `failure_deadline_seconds` when it is 0 (content.proto). */
const DEFAULT_DEADLINE_MS = 300_000;
/** The time under trial is counted in steps of this; an outage of the API server makes it wrong by one step at most. */
const STEP_MS = 15_000;
const LEAST_STEP_MS = 1000;

/** Failures after which the same content would fail again. */
const FINAL: ReadonlySet<ErrorClass> = new Set(['permanent', 'denied', 'size', 'policy']);
/** Failures that say nothing about the content: while the last attempt ended so, the deadline stands still. */
const BLAMELESS: ReadonlySet<ErrorClass> = new Set(['transient', 'credential', 'race', 'expired']);

/** What a trial adds to a sync. */
type OwnInput = 'target' | 'restores' | 'prepareReturn' | 'prove' | 'proof';

/**
 * Judges the newest generation of one stack. Once applied and healthy it is the good one; under the policy `rollback`, one that fails
 * for good, or is not good in time, is given up for the good one before it, and not tried again. So is, whatever the policy, one that has to
 * be confirmed and is not. What is decided is in the inventory head; the time is counted anew after a restart.
 */
export class Trial {
  readonly #engine: Engine;
  readonly #inventory: Inventory;
  readonly #health: () => HealthCount;
  #target: StackTarget | undefined;
  /** Of the good generation, when this process has seen it: going back to it then needs nothing from the broker. */
  #manifest: Pick<StackTarget, 'manifest' | 'manifestDigest'> | undefined;
  #spentMs = 0;
  #steppedAt = 0;
  #blameless = false;
  /** It was seen healthy and that is not stored yet. */
  #proven = false;

  constructor(engine: Engine, inventory: Inventory, health: () => HealthCount) {
    this.#engine = engine;
    this.#inventory = inventory;
    this.#health = health;
  }

  /** Another target, or none while the stack leaves. */
  begin(target: StackTarget | undefined): void {
    this.#target = target;
    this.#spentMs = 0;
    this.#blameless = false;
    this.#proven = false;
    this.#remember();
    this.resume();
  }

  /** The time that passed until now is not counted: nothing was done about the stack. */
  resume(): void {
    this.#steppedAt = this.#engine.clock.monotonic();
  }

  /** Whether the inventory says that what has to be applied was applied as a whole. */
  get settled(): boolean {
    if (!this.#target) return false;
    const { head } = this.#inventory;
    if (!isGivenUp(head, this.#target)) return isSettled(this.#inventory, this.#target);
    if (head.attempt !== undefined || !sameContent(head, this.#target)) return false;
    if (head.good) return head.appliedGeneration === head.good.generation;
    return [...this.#inventory.entries.values()].every(({ state }) => state === 'kept' || state === 'deleting');
  }

  /** Monotonic time of the next `review`. */
  get dueAt(): number {
    if (this.#proven) return 0;
    if (!this.#target || !isOnTrial(this.#inventory.head, this.#target)) return Number.POSITIVE_INFINITY;
    const left = deadlineMs(this.#target) - this.#spentMs;
    return this.#steppedAt + Math.max(LEAST_STEP_MS, Math.min(STEP_MS, left));
  }

  /** Applies the target, or the good generation in its place, and judges the target by how that ended. Rejects as `syncStack`. */
  async sync(
    input: Omit<SyncInput, OwnInput> & { readonly prove: (goal: StackTarget) => Promise<Proof> },
    signal: AbortSignal,
  ): Promise<SyncEnd> {
    const { goal } = input;
    const target = await this.wanted(goal, signal);
    const prove = () => input.prove(goal);
    const prepareReturn =
      goal === target && goal.options.confirmSeconds > 0 ? () => this.#prepareReturn(goal, signal) : undefined;
    const restores = goal !== target && this.#inventory.head.failed?.cutOff === true;
    const proof = (applied: StackTarget) =>
      applied === this.#target && this.#health().health === Health.HEALTHY ? asGood(applied) : {};
    const end = await syncStack({ ...input, target, restores, prepareReturn, prove, proof }, signal);
    this.#blameless = end.kind === 'failed' && BLAMELESS.has(end.class);
    const hopeless = end.kind === 'refused' ? end.missing.length === 0 : end.kind === 'failed' && FINAL.has(end.class);
    if (hopeless && 'message' in end && isOnTrial(this.#inventory.head, goal)) {
      await this.#giveUp(goal, end.message, signal);
      return { kind: 'given_up' };
    }
    if ((end.kind === 'failed' || end.kind === 'refused') && this.#inventory.head.unconfirmed) {
      const result = await prove(); // some of it is written
      if (result.kind === 'cut_off') {
        await this.#giveUp(goal, result.message, signal, true);
        return { kind: 'given_up' };
      }
    }
    if (end.kind === 'applied' && goal === target) await this.#engine.content.dropWayBack(goal.stackId);
    this.#remember();
    this.noticed(this.#health());
    return end;
  }

  /** Takes the health of the stack. True when it proves the target good, and that is still to be stored by `review`. */
  noticed({ health }: HealthCount): boolean {
    const target = this.#target;
    const { head } = this.#inventory;
    this.#proven =
      target !== undefined &&
      health === Health.HEALTHY &&
      !target.options.paused &&
      isReceived(head, target) &&
      head.appliedGeneration === target.generation &&
      head.good?.generation !== target.generation;
    return this.#proven;
  }

  /** Counts the time and decides; what was decided is stored. Rejects when the inventory cannot be stored. */
  async review(signal: AbortSignal): Promise<'pending' | 'good' | 'given_up'> {
    const target = this.#target;
    const { clock, kube } = this.#engine;
    if (!target || clock.monotonic() < this.dueAt) return 'pending';
    if (this.noticed(this.#health())) {
      this.#proven = false;
      this.#inventory.head = { ...this.#inventory.head, ...asGood(target) };
      this.#remember();
      await this.#inventory.save(signal);
      return 'good';
    }
    const { head } = this.#inventory;
    if (!isOnTrial(head, target)) return 'pending';
    const counts = !this.#blameless && (await kube.ready(signal));
    const now = clock.monotonic();
    if (counts) this.#spentMs += now - this.#steppedAt;
    this.#steppedAt = now;
    if (this.#spentMs < deadlineMs(target)) return 'pending';
    const applied = head.appliedGeneration === target.generation;
    const message = `not ${applied ? 'healthy' : 'applied'} within ${deadlineMs(target) / 1000} s${this.#unready()}`;
    await this.#giveUp(target, message, signal);
    return 'given_up';
  }

  /** What has to be applied: the goal, or the good generation in its place. Throws a `ContentUnavailableError`. */
  async wanted(goal: StackTarget, signal: AbortSignal): Promise<StackTarget> {
    return !goal.options.paused && isGivenUp(this.#inventory.head, goal) ? await this.#fallback(goal, signal) : goal;
  }

  /** How it has to be applied; undefined without a target. */
  get options(): ApplyOptions | undefined {
    const { head } = this.#inventory;
    return this.#target && isGivenUp(head, this.#target) ? head.good?.options : this.#target?.options;
  }

  /** The good generation, as a target in place of `goal`. Throws a `ContentUnavailableError`. */
  async #fallback(goal: StackTarget, signal: AbortSignal): Promise<StackTarget> {
    const { good } = this.#inventory.head;
    if (!good) return nothingOf(goal);
    const { generation, deploymentObjectId, manifestDigest } = good;
    const options = clone(ApplyOptionsSchema, good.options);
    options.approveDeletes = 0; // was for the head it came with
    try {
      if (!this.#manifest || Buffer.compare(this.#manifest.manifestDigest, manifestDigest) !== 0) {
        const manifest = await this.#engine.content.manifest(goal.stackId, generation, manifestDigest, signal);
        this.#manifest = { manifest, manifestDigest };
      }
    } catch (error) {
      signal.throwIfAborted();
      throw new ContentUnavailableError(`generation ${generation} cannot be had: ${errorText(error)}`, { cause: error });
    }
    return { ...goal, ...this.#manifest, generation, deploymentObjectId, options };
  }

  #remember(): void {
    const { head } = this.#inventory;
    const target = this.#target;
    if (target && head.good?.generation === target.generation && isReceived(head, target))
      this.#manifest = { manifest: target.manifest, manifestDigest: target.manifestDigest };
  }

  /** The first object that is not ready, in words. */
  #unready(): string {
    const [object]: readonly ObjectStatus[] = this.#health().objects;
    return object ? `: ${statusText({ ...object, message: object.message || object.reason })}` : '';
  }

  async #giveUp(target: StackTarget, message: string, signal: AbortSignal, cutOff = false): Promise<void> {
    this.#inventory.head = { ...this.#inventory.head, ...asGivenUp(target, { message, ...(cutOff && { cutOff }) }) };
    await this.#inventory.save(signal);
  }

  /** Has the good generation, and this one, at hand without the broker: what of each is not in the cluster, or not any more soon. */
  async #prepareReturn(goal: StackTarget, signal: AbortSignal): Promise<void> {
    const { head, entries } = this.#inventory;
    const good = head.good && (await this.#fallback(goal, signal));
    const held = new Set([...entries.values()].filter(({ state }) => state === 'applied').map(({ digest }) => digest));
    const later = digestsOf(goal, () => true);
    const digests = [
      ...digestsOf(goal, (digest) => !held.has(digest)).values(),
      ...(good ? digestsOf(good, (digest) => !held.has(digest) || !later.has(digest)).values() : []),
    ];
    await this.#engine.content.keepWayBack({ goal, good }, [...new Set(digests)], signal);
  }
}

/** Digests of the sources of those objects whose digest, as the inventory has it, is wanted; by that digest. */
function digestsOf({ manifest }: StackTarget, isWanted: (digest: string) => boolean): ReadonlyMap<string, string> {
  if (isOpaque(manifest)) return new Map([['', manifest.opaqueSourceDigest]]);
  const pairs = manifest.map(({ objectDigest, sourceDigest }) => [shortDigest(objectDigest), sourceDigest] as const);
  return new Map(pairs.filter(([digest]) => isWanted(digest)));
}

function deadlineMs({ options }: StackTarget): number {
  return options.failureDeadlineSeconds * 1000 || DEFAULT_DEADLINE_MS;
}
