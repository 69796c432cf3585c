import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { keyString } from '#lib/object.ts';
import { Health, type ObjectStatus, Phase } from '#proto/brokkr/v1/content_pb.js';
import { type StackStatus, StackStatusSchema } from '#proto/brokkr/v1/sync_pb.js';
import { MAX_OBJECTS } from '../apply/report.ts';
import type { Engine } from '../engine.ts';
import type { HealthCount } from '../health/health.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { awaitingApproval } from '../prune/prune.ts';
import { terminatingStatus } from '../prune/terminating.ts';
import { failureOf, returnOf } from './good-generation.ts';
import { Since } from './since.ts';
import type { StackTarget } from './target.ts';

/** Characters of a message. */
const MAX_MESSAGE = 1000;
/** Phases of an attempt that has not ended: it has nothing to say of objects yet. */
const UNDER_WAY: ReadonlySet<Phase> = new Set([Phase.RECEIVED, Phase.VALIDATED, Phase.APPLYING, Phase.PRUNING]);

/** Phases in which something is done; in the others a stack rests. */
const WORKING: ReadonlySet<Phase> = new Set([Phase.RECEIVED, Phase.VALIDATED, Phase.APPLYING, Phase.PRUNING]);

/** What a stack has to say about itself, told to the broker whenever it changes. */
export class StackView {
  readonly #engine: Pick<Engine, 'report' | 'clock' | 'observe'>;
  readonly #inventory: Inventory;
  #phase: Phase;
  /** Monotonic time at which it began. */
  #phaseAt: number;
  #message = '';
  /** Since when the phase is that, in milliseconds by the wall clock. */
  #sinceMs: number;
  #objects: readonly ObjectStatus[] = [];
  #drifted: readonly ObjectStatus[] = [];
  #unseen = '';
  readonly #since = new Since();
  #count: HealthCount | undefined;
  /** The target in work: received, though perhaps not stored yet. */
  #target: Pick<StackTarget, 'generation' | 'manifestDigest'> | undefined;

  constructor(engine: Pick<Engine, 'report' | 'clock' | 'observe'>, inventory: Inventory) {
    this.#engine = engine;
    this.#inventory = inventory;
    this.#phase = restoredPhase(inventory);
    this.#message = returnOf(inventory.head);
    this.#sinceMs = engine.clock.now();
    this.#phaseAt = engine.clock.monotonic();
  }

  get phase(): Phase {
    return this.#phase;
  }

  get message(): string {
    return this.#message;
  }

  /** Since when the phase is that, in milliseconds by the wall clock. */
  get sinceMs(): number {
    return this.#sinceMs;
  }

  /** Of what is applied, as last counted. */
  get health(): Health {
    return this.#count?.health ?? Health.UNSPECIFIED;
  }

  /** What is to be said of single objects, by `keyString`, all of it. */
  get problems(): ReadonlyMap<string, ObjectStatus> {
    return new Map([...this.#drifted, ...this.#objects].map((object) => [keyString(object), object]));
  }

  /** The report as it would be sent now. */
  get status(): StackStatus {
    const { head, entries } = this.#inventory;
    const count = this.#count;
    const terminating = [...entries.values()].filter(({ state }) => state === 'deleting').map(terminatingStatus);
    const objects = this.#objects.filter(({ state }) => state !== 'terminating');
    return create(StackStatusSchema, {
      stackId: head.stackId,
      receivedGeneration: this.#target?.generation ?? head.receivedGeneration,
      receivedManifestDigest: this.#target?.manifestDigest ?? head.manifestDigest,
      appliedGeneration: head.appliedGeneration,
      refusedGeneration: head.failed?.generation ?? 0n,
      goodGeneration: head.good?.generation ?? 0n,
      phase: this.#phase,
      health: this.health,
      message: [this.#message, this.#unseen].filter(Boolean).join('; ').slice(0, MAX_MESSAGE),
      objects: [...objects, ...terminating, ...this.#drifted, ...(count?.objects ?? [])].slice(0, MAX_OBJECTS),
      objectsTotal: count?.objectsTotal ?? entries.size,
      objectsReady: count?.objectsReady ?? 0,
      awaitingApproval: awaitingApproval(this.#objects),
      changedAt: timestampFromMs(this.#engine.clock.now()),
    });
  }

  /** Sends the report. */
  tell(): void {
    this.#engine.report.status(this.status);
  }

  /** A new phase. */
  show(phase: Phase, message = '', objects: readonly ObjectStatus[] = []): void {
    if (phase !== this.#phase) this.#sinceMs = this.#engine.clock.now();
    const now = this.#engine.clock.monotonic();
    if (WORKING.has(this.#phase)) this.#engine.observe.phaseEnded(Phase[this.#phase].toLowerCase(), (now - this.#phaseAt) / 1000);
    this.#phaseAt = now;
    this.#phase = phase;
    this.#message = message;
    this.#objects = UNDER_WAY.has(phase) ? objects : this.#since.stamp(objects, this.#engine.clock.now());
    this.tell();
  }

  /** What has to be applied is: the target, or the good generation in its place. */
  applied(message = '', objects: readonly ObjectStatus[] = []): void {
    const { head } = this.#inventory;
    const because = returnOf(head);
    const again = head.appliedGeneration === 0n ? 'nothing was applied before' : `${head.appliedGeneration} is applied again`;
    const back = because === '' ? [] : [`${because}; ${again}`];
    this.show(because === '' ? Phase.APPLIED : Phase.ROLLED_BACK, [...back, message].filter(Boolean).join('; '), objects);
  }

  /** What has to be applied is not. */
  failed(phase: Phase.FAILED | Phase.REFUSED, message: string, objects: readonly ObjectStatus[]): void {
    const because = failureOf(this.#inventory.head);
    if (because === '') this.show(phase, message, objects);
    else this.show(Phase.FAILED, `${because}; going back failed: ${message}`, objects);
  }

  /** Objects that differ from what is wanted and are left so. Sent when it is another array. */
  set drifted(drifted: readonly ObjectStatus[]) {
    if (drifted === this.#drifted) return;
    this.#drifted = drifted;
    this.tell();
  }

  /** What of the stack cannot be seen, in words. Sent when it changed. */
  set unseen(text: string) {
    if (text === this.#unseen) return;
    this.#unseen = text;
    this.tell();
  }

  /** What the objects are like. Not sent by itself. */
  set count(count: HealthCount | undefined) {
    this.#count = count;
  }

  /** The newest target, once there is one. Not sent by itself. */
  set target(target: Pick<StackTarget, 'generation' | 'manifestDigest'> | undefined) {
    this.#target = target;
  }
}

/** The state of a stack before anything was heard of it in this process. */
function restoredPhase({ head, entries }: Inventory): Phase {
  if (head.tombstone) return Phase.PRUNING;
  if (head.failed?.generation === head.receivedGeneration) return Phase.ROLLED_BACK;
  if (head.appliedGeneration === head.receivedGeneration && head.appliedGeneration > 0n) return Phase.APPLIED;
  if (head.refusedGeneration === head.receivedGeneration && head.refusedGeneration > 0n) return Phase.REFUSED;
  return entries.size > 0 ? Phase.FAILED : Phase.RECEIVED;
}
