import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { Health, type ObjectStatus, Phase } from '#proto/brokkr/v1/content_pb.js';
import { type StackStatus, StackStatusSchema } from '#proto/brokkr/v1/sync_pb.js';
import { MAX_OBJECTS } from './apply-report.ts';
import type { HealthCount } from './health.ts';
import type { Inventory } from './inventory.ts';
import type { StackTarget } from './target.ts';

/** What a stack has to say about itself. */
export interface StackView {
  readonly phase: Phase;
  readonly message: string;
  readonly objects: readonly ObjectStatus[];
  readonly count: HealthCount | undefined;
  /** The target in work: received, though perhaps not stored yet. */
  readonly target: Pick<StackTarget, 'generation' | 'manifestDigest'> | undefined;
}

/** A view as the report the broker gets. */
export function statusOf(
  inventory: Inventory,
  { phase, message, objects, count, target }: StackView,
  nowMs: number,
): StackStatus {
  const { head } = inventory;
  return create(StackStatusSchema, {
    stackId: head.stackId,
    receivedGeneration: target?.generation ?? head.receivedGeneration,
    receivedManifestDigest: target?.manifestDigest ?? head.manifestDigest,
    appliedGeneration: head.appliedGeneration,
    phase,
    health: count?.health ?? Health.UNSPECIFIED,
    message: message.slice(0, 1000),
    objects: [...objects, ...(count?.objects ?? [])].slice(0, MAX_OBJECTS),
    objectsTotal: count?.objectsTotal ?? inventory.entries.size,
    objectsReady: count?.objectsReady ?? 0,
    changedAt: timestampFromMs(nowMs),
  });
}

/** The state of a stack before anything was heard of it in this process. */
export function restoredPhase({ head, entries }: Inventory): Phase {
  if (head.tombstone) return Phase.PRUNING;
  if (head.appliedGeneration === head.receivedGeneration && head.appliedGeneration > 0n) return Phase.APPLIED;
  if (head.refusedGeneration === head.receivedGeneration && head.refusedGeneration > 0n) return Phase.REFUSED;
  return entries.size > 0 ? Phase.FAILED : Phase.RECEIVED;
}
