import { create, fromBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { type Timestamp, TimestampSchema } from '@bufbuild/protobuf/wkt';
import type { Problem } from '#lib/yaml-problems.ts';
import { Health, Phase } from '#proto/brokkr/v1/content_pb.js';
import type { ContentProblemSchema, DeploymentObjectSchema, StackSchema } from '#proto/brokkr/v1/stacks_pb.js';
import { SelectorSchema } from '#proto/brokkr/v1/targeting_pb.js';
import { timestampMs } from '../database.ts';
import type { DeploymentObjectRow } from './content-store.ts';
import { decodeOptions } from './options.ts';
import type { StackRow } from './store.ts';

/** A stack as the API shows it. */
export function stackToProto(row: StackRow): MessageInitShape<typeof StackSchema> {
  return {
    id: row.id,
    name: row.name,
    ...(row.description !== null && { description: row.description }),
    generatorId: row.generator_id,
    createdAt: toTimestamp(row.created_at),
    updatedAt: toTimestamp(row.updated_at),
    ...(row.deleted_at !== null && { deletedAt: toTimestamp(row.deleted_at) }),
    generation: BigInt(row.generation),
    ...(row.deployment_object_id !== null && { deploymentObjectId: row.deployment_object_id }),
    options: decodeOptions(row.options),
    ...(row.selector !== null && { selector: fromBinary(SelectorSchema, row.selector) }),
  };
}

/** A deployment object as the API shows it. */
export function deploymentObjectToProto(row: DeploymentObjectRow, text: string): MessageInitShape<typeof DeploymentObjectSchema> {
  return {
    id: row.id,
    sequenceId: BigInt(row.sequence_id),
    stackId: row.stack_id,
    yamlContent: text,
    yamlChecksum: row.yaml_checksum,
    submittedAt: toTimestamp(row.submitted_at),
    isDeletionMarker: row.is_deletion_marker,
    createdAt: toTimestamp(row.created_at),
    updatedAt: toTimestamp(row.updated_at),
    ...(row.deleted_at !== null && { deletedAt: toTimestamp(row.deleted_at) }),
    revision: BigInt(row.revision),
    objectCount: row.object_count,
  };
}

/** A problem of a text as the API shows it. */
export function problemToProto(problem: Problem): MessageInitShape<typeof ContentProblemSchema> {
  return { ...problem };
}

/** A `timestamptz` as `query` returns it, to the microsecond. */
export function toTimestamp(text: string): Timestamp {
  const nanos = Number((/\.(\d+)/.exec(text)?.[1] ?? '').padEnd(9, '0'));
  return create(TimestampSchema, { seconds: BigInt(Math.floor(timestampMs(text) / 1000)), nanos });
}

const PHASES: Readonly<Record<string, Phase>> = {
  pending: Phase.PENDING,
  received: Phase.RECEIVED,
  validated: Phase.VALIDATED,
  applying: Phase.APPLYING,
  applied: Phase.APPLIED,
  failed: Phase.FAILED,
  refused: Phase.REFUSED,
  pruning: Phase.PRUNING,
  pruned: Phase.PRUNED,
  kept: Phase.KEPT,
  rolled_back: Phase.ROLLED_BACK,
};

/** A phase as the database spells it. */
export function phaseOf(text: string): Phase {
  return PHASES[text] ?? Phase.UNSPECIFIED;
}

const HEALTHS: Readonly<Record<string, Health>> = {
  healthy: Health.HEALTHY,
  degraded: Health.DEGRADED,
  failing: Health.FAILING,
};

/** A health as the database spells it. */
export function healthOf(text: string): Health {
  return HEALTHS[text] ?? Health.UNKNOWN;
}

const WORST_FIRST = [Health.FAILING, Health.DEGRADED, Health.UNKNOWN, Health.HEALTHY];

/** The worst of all: failing, degraded, unknown, healthy. Unknown when there is none. */
export function worstHealth(all: readonly Health[]): Health {
  return WORST_FIRST.find((health) => all.includes(health)) ?? Health.UNKNOWN;
}
