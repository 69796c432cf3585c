import { fromBinary, type MessageInitShape } from '@bufbuild/protobuf';
import type { Clock } from '#lib/clock.ts';
import { Health, Phase } from '#proto/brokkr/v1/content_pb.js';
import type { AgentStackStatusSchema, GetStackStatusResponseSchema } from '#proto/brokkr/v1/stacks_pb.js';
import { StackStatusSchema } from '#proto/brokkr/v1/sync_pb.js';
import type { Principal } from '../api/principal.ts';
import type { Queryable } from '../database.ts';
import { findOpening } from '../targeting/gate-store.ts';
import { type Acceptance, listReached } from '../targeting/store.ts';
import { decodeOptions } from './options.ts';
import { healthOf, phaseOf, stackToProto, toTimestamp } from './rows.ts';
import { assertOwner, notFound } from './stacks.ts';
import { type DeliveryRow, listDeliveries, listHeadTimes } from './status-store.ts';
import { findStack } from './store.ts';

/** Tells when the status of a stack may have changed. */
export interface StatusChanges {
  /** Resolves at the next change of the stack's status after the call; rejects when `signal` aborts. Waking too often is harmless. */
  wait(stackId: string, signal: AbortSignal): Promise<void>;
}

/** Least time between two answers of a watch. */
const WATCH_INTERVAL_MS = 200;

/**
 * Where a stack stands on every agent it reaches or is leaving. Throws `stack_not_found`, also for a deleted stack that has
 * left every agent, and `stack_not_owned`.
 */
export async function getStatus(
  db: Queryable,
  principal: Principal,
  stackId: string,
  acceptance: Acceptance,
): Promise<MessageInitShape<typeof GetStackStatusResponseSchema>> {
  const stack = await findStack(db, stackId);
  if (!stack) throw notFound(stackId);
  assertOwner(principal, stack);
  const reached = await listReached(db, { stackIds: [stackId], acceptance, withheld: false });
  const desired = new Map(reached.map(({ agent_id, generation }) => [agent_id, generation ?? '0']));
  const held = new Set(reached.filter(({ held }) => held).map(({ agent_id }) => agent_id));
  const opening = held.size > 0 ? await findOpening(db, stackId) : null;
  const rows = await listDeliveries(db, stackId, [...desired.keys()]);
  const deleted = stack.deleted_at !== null;
  if (deleted && rows.length === 0) throw notFound(stackId);
  const generations = new Map(rows.map((row) => [row.agent_id, desiredGeneration(row, desired.get(row.agent_id), deleted)]));
  const times = await listHeadTimes(db, stackId, [...new Set(generations.values())]);
  const { paused } = decodeOptions(stack.options);
  const published = new Map(times.map(({ generation, created_at }) => [generation, created_at]));
  return {
    stack: stackToProto(stack),
    agents: rows.map((row) => {
      const generation = generations.get(row.agent_id) ?? '0';
      return {
        ...agentStatus(row, generation, published.get(generation)),
        paused: row.paused || paused,
        ...(held.has(row.agent_id) && { heldGeneration: BigInt(stack.generation) }),
        ...(held.has(row.agent_id) && opening !== null && { heldUntil: toTimestamp(opening) }),
      };
    }),
  };
}

/** What the agent should have; what it was last told while it is not being served (inactive), '0' when the stack leaves it. */
function desiredGeneration(row: DeliveryRow, assigned: string | undefined, deleted: boolean): string {
  if (assigned !== undefined) return assigned;
  return row.desired === 'entry' && !deleted ? (row.generation ?? '0') : '0';
}

function agentStatus(
  row: DeliveryRow,
  generation: string,
  publishedAt: string | undefined,
): MessageInitShape<typeof AgentStackStatusSchema> {
  return {
    agentId: row.agent_id,
    agentName: row.agent_name,
    clusterName: row.cluster_name,
    connected: row.connected ?? false,
    desiredGeneration: BigInt(generation),
    receivedGeneration: BigInt(row.received_generation ?? 0),
    appliedGeneration: BigInt(row.applied_generation ?? 0),
    phase: currentPhase(row, BigInt(generation)),
    health: row.health === null ? Health.UNKNOWN : healthOf(row.health),
    ...(row.message !== null && { message: row.message }),
    objects: row.objects ? fromBinary(StackStatusSchema, row.objects).objects : [],
    objectsTotal: row.objects_total ?? 0,
    objectsReady: row.objects_ready ?? 0,
    ...(publishedAt !== undefined && { publishedAt: toTimestamp(publishedAt) }),
    ...(row.received_at !== null && { receivedAt: toTimestamp(row.received_at) }),
    ...(row.applied_at !== null && { appliedAt: toTimestamp(row.applied_at) }),
    ...(row.healthy_at !== null && { healthyAt: toTimestamp(row.healthy_at) }),
    refusedGeneration: BigInt(row.refused_generation ?? 0),
    goodGeneration: BigInt(row.good_generation ?? 0),
    awaitingApproval: row.awaiting_approval ?? 0,
  };
}

/** What the agent said about an older generation says nothing about the one it has not received. */
function currentPhase(row: DeliveryRow, generation: bigint): Phase {
  const phase = row.phase === null ? Phase.PENDING : phaseOf(row.phase);
  const behind = BigInt(row.received_generation ?? 0) < generation;
  return behind && phase !== Phase.KEPT ? Phase.PENDING : phase;
}

/** Status now and after each change, at most five times a second. Ends when the deleted stack has left every agent. */
export async function* watchStatus(
  {
    read,
    changes,
    clock,
  }: {
    readonly read: () => Promise<MessageInitShape<typeof GetStackStatusResponseSchema> | undefined>;
    readonly changes: StatusChanges;
    readonly clock: Clock;
  },
  stackId: string,
  signal: AbortSignal,
): AsyncGenerator<MessageInitShape<typeof GetStackStatusResponseSchema>> {
  const own = new AbortController();
  const scope = AbortSignal.any([signal, own.signal]);
  try {
    for (;;) {
      // waiting begins before reading, so that no change falls between the two
      const changed = changes.wait(stackId, scope);
      changed.catch(() => undefined);
      const status = await read();
      if (!status) return;
      yield status;
      await changed;
      await clock.sleep(WATCH_INTERVAL_MS, scope);
    }
  } finally {
    own.abort(new Error('the watch has ended'));
  }
}
