import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { Health, type ObjectStatus, Phase } from '#proto/brokkr/v1/content_pb.js';
import { type StackStatus, StackStatusSchema } from '#proto/brokkr/v1/sync_pb.js';
import type { Engine } from './apply-engine.ts';
import { MAX_OBJECTS } from './apply-report.ts';
import type { HealthCount } from './health.ts';
import type { Inventory } from './inventory.ts';
import { awaitingApproval } from './prune.ts';
import type { StackTarget } from './target.ts';
import { terminatingStatus } from './terminating.ts';

/** Characters of a message. */
const MAX_MESSAGE = 1000;

/** What a stack has to say about itself, told to the broker whenever it changes. */
export class StackView {
  readonly #engine: Pick<Engine, 'report' | 'clock'>;
  readonly #inventory: Inventory;
  #phase: Phase;
  #message = '';
  #objects: readonly ObjectStatus[] = [];
  #count: HealthCount | undefined;
  /** The target in work: received, though perhaps not stored yet. */
  #target: Pick<StackTarget, 'generation' | 'manifestDigest'> | undefined;

  constructor(engine: Pick<Engine, 'report' | 'clock'>, inventory: Inventory) {
    this.#engine = engine;
    this.#inventory = inventory;
    this.#phase = restoredPhase(inventory);
  }

  get phase(): Phase {
    return this.#phase;
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
      phase: this.#phase,
      health: count?.health ?? Health.UNSPECIFIED,
      message: this.#message.slice(0, MAX_MESSAGE),
      objects: [...objects, ...terminating, ...(count?.objects ?? [])].slice(0, MAX_OBJECTS),
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
    this.#phase = phase;
    this.#message = message;
    this.#objects = objects;
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
  if (head.appliedGeneration === head.receivedGeneration && head.appliedGeneration > 0n) return Phase.APPLIED;
  if (head.refusedGeneration === head.receivedGeneration && head.refusedGeneration > 0n) return Phase.REFUSED;
  return entries.size > 0 ? Phase.FAILED : Phase.RECEIVED;
}
