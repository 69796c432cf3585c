import type { MessageInitShape } from '@bufbuild/protobuf';
import { BrokkrError } from '#lib/errors.ts';
import { Health } from '#proto/brokkr/v1/content_pb.js';
import type {
  DeploymentHealthSchema,
  GetDeploymentObjectHealthResponseSchema,
  GetStackHealthResponseSchema,
  GetStackHistoryRequest,
  GetStackHistoryResponseSchema,
  HistoryEntrySchema,
} from '#proto/brokkr/v1/stacks_pb.js';
import type { Query } from '../api/command.ts';
import { readPage } from '../api/page.ts';
import { gateToProto } from '../targeting/gate.ts';
import { findDeploymentObject } from './content-store.ts';
import { decodeOptions } from './options.ts';
import { healthOf, toTimestamp, worstHealth } from './rows.ts';
import { assertOwner, getOwned, notFound } from './stacks.ts';
import {
  countHealth,
  findHeadAt,
  type HealthCount,
  type HealthRow,
  type HistoryRow,
  listHeads,
  listHealth,
} from './status-store.ts';
import { findStack } from './store.ts';

/** Heads of a stack, newest first, deleted stacks included; with a time, the head of that moment. */
export async function getHistory(
  request: GetStackHistoryRequest,
  { db, principal }: Query,
): Promise<MessageInitShape<typeof GetStackHistoryResponseSchema>> {
  const stack = await findStack(db, request.stackId);
  if (!stack) throw notFound(request.stackId);
  assertOwner(principal, stack);
  if (request.at) return { entries: (await findHeadAt(db, stack.id, request.at)).map(toEntry) };
  const page = readPage(request);
  const { rows, nextPageToken } = page.cut(await listHeads(db, stack.id, page));
  return { entries: rows.map(toEntry), nextPageToken };
}

function toEntry(row: HistoryRow): MessageInitShape<typeof HistoryEntrySchema> {
  const gate = gateToProto(row);
  return {
    generation: BigInt(row.generation),
    ...(row.deployment_object_id !== null && { deploymentObjectId: row.deployment_object_id }),
    ...(row.revision !== null && { revision: BigInt(row.revision) }),
    ...(row.yaml_checksum !== null && { yamlChecksum: row.yaml_checksum }),
    objectCount: row.object_count ?? 0,
    options: decodeOptions(row.options),
    cause: row.cause,
    createdAt: toTimestamp(row.created_at),
    actor: row.actor_name === null ? row.actor_type : `${row.actor_type} ${row.actor_name}`,
    appliedAgents: row.applied_agents,
    ...(gate && { gate }),
  };
}

/** Health of a stack's deployment objects over all agents. */
export async function getStackHealth(
  stackId: string,
  { db, principal }: Query,
): Promise<MessageInitShape<typeof GetStackHealthResponseSchema>> {
  await getOwned(db, principal, stackId);
  const deploymentObjects = (await countHealth(db, stackId)).map((count) => ({
    id: count.deployment_object_id,
    status: worstOf(count),
    healthyAgents: count.healthy,
    degradedAgents: count.degraded,
    failingAgents: count.failing,
  }));
  return { stackId, overallStatus: worstHealth(deploymentObjects.map(({ status }) => status)), deploymentObjects };
}

function worstOf({ failing, degraded, unknown, healthy }: HealthCount): Health {
  return worstHealth([
    ...(failing > 0 ? [Health.FAILING] : []),
    ...(degraded > 0 ? [Health.DEGRADED] : []),
    ...(unknown > 0 ? [Health.UNKNOWN] : []),
    ...(healthy > 0 ? [Health.HEALTHY] : []),
  ]);
}

/** Health of a deployment object on every agent. Throws `deployment_object_not_found`. */
export async function getObjectHealth(
  id: string,
  { db }: Query,
): Promise<MessageInitShape<typeof GetDeploymentObjectHealthResponseSchema>> {
  if (!(await findDeploymentObject(db, id))) throw new BrokkrError('deployment_object_not_found', `no deployment object ${id}`);
  const healthRecords = (await listHealth(db, id)).map(toRecord);
  return { deploymentObjectId: id, overallStatus: worstHealth(healthRecords.map(({ status }) => status)), healthRecords };
}

function toRecord(row: HealthRow): MessageInitShape<typeof DeploymentHealthSchema> & { readonly status: Health } {
  return {
    id: row.id,
    agentId: row.agent_id,
    deploymentObjectId: row.deployment_object_id,
    status: healthOf(row.status),
    ...(row.summary !== null && { summary: row.summary }),
    checkedAt: toTimestamp(row.checked_at),
    createdAt: toTimestamp(row.created_at),
    updatedAt: toTimestamp(row.updated_at),
  };
}
