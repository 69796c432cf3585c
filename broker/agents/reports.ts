import { toJson } from '@bufbuild/protobuf';
import { TimestampSchema } from '@bufbuild/protobuf/wkt';
import { BrokkrError } from '#lib/errors.ts';
import type {
  CreateAgentEventRequest,
  DeploymentObjectHealthUpdate,
  ListAgentEventsRequest,
  ReportHealthRequest,
  SendHeartbeatRequest,
} from '#proto/brokkr/v1/agents_pb.js';
import { Health } from '#proto/brokkr/v1/content_pb.js';
import type { HealthSummary } from '#proto/brokkr/v1/stacks_pb.js';
import type { Query } from '../api/command.ts';
import type { Page } from '../api/page.ts';
import type { Principal } from '../api/principal.ts';
import type { Queryable } from '../database.ts';
import { EVENT_STATUS_TEXT } from './messages.ts';
import {
  type EventRow,
  findEvent,
  findStanding,
  type HealthRecord,
  insertEvent,
  listEvents,
  noteHeartbeat,
  type Standing,
  selectMissingObjects,
  upsertHealthRecords,
} from './reports-store.ts';
import { assertAgent } from './store.ts';

const HEALTH_TEXT: Readonly<Record<Health, HealthRecord['status']>> = {
  [Health.UNSPECIFIED]: 'unknown',
  [Health.UNKNOWN]: 'unknown',
  [Health.HEALTHY]: 'healthy',
  [Health.DEGRADED]: 'degraded',
  [Health.FAILING]: 'failing',
};

/** Notes a heartbeat. Throws `session_active` and `agent_inactive`. */
export async function sendHeartbeat(tx: Queryable, request: SendHeartbeatRequest): Promise<void> {
  const noted = await noteHeartbeat(tx, request.agentId, { reachable: request.k8sReachable, latencyMs: request.k8sApiLatencyMs });
  if (noted) return;
  const standing = await getStanding(tx, request.agentId);
  assertNoSession(standing);
  if (standing.status === 'INACTIVE') throw new BrokkrError('agent_inactive', 'the agent is INACTIVE');
}

/** Stores the outcome of an attempt. Throws `session_active` (agents only) and `deployment_object_not_found`. */
export async function createEvent(tx: Queryable, principal: Principal, request: CreateAgentEventRequest): Promise<EventRow> {
  const fenced = principal.kind === 'agent';
  if (!fenced) await assertAgent(tx, request.agentId);
  const status = EVENT_STATUS_TEXT[request.status];
  if (status === undefined) throw new BrokkrError('invalid_request', 'status is not set');
  const { agentId, deploymentObjectId, eventType, message } = request;
  const row = await insertEvent(tx, { agentId, deploymentObjectId, eventType, status, message }, { fenced });
  if (row) return row;
  if (fenced) assertNoSession(await getStanding(tx, agentId));
  throw new BrokkrError('deployment_object_not_found', `no deployment object ${deploymentObjectId}`, {
    details: { deployment_object_id: deploymentObjectId },
  });
}

/** Stores health of deployment objects, all records or none; of several about one object the last. Throws `session_active` (agents only) and `invalid_health_record`. */
export async function reportHealth(tx: Queryable, principal: Principal, request: ReportHealthRequest): Promise<void> {
  const standing = await getStanding(tx, request.agentId);
  if (principal.kind === 'agent') assertNoSession(standing);
  const records = new Map<string, HealthRecord>();
  for (const update of request.deploymentObjects) {
    const record = toRecord(update);
    records.set(record.deploymentObjectId, record);
  }
  if (records.size === 0) return;
  const missing = await selectMissingObjects(tx, [...records.keys()]);
  if (missing.length > 0) {
    throw new BrokkrError('invalid_health_record', `no deployment object ${missing[0]}`, {
      details: { deployment_object_ids: missing },
    });
  }
  await upsertHealthRecords(tx, request.agentId, [...records.values()]);
}

/** Events the caller may see: all for an admin, those about its own stacks for a generator. */
export async function listAgentEvents(
  { db, principal }: Query,
  request: ListAgentEventsRequest,
  page: Page,
): Promise<EventRow[]> {
  const generatorIds = [
    ...(principal.kind === 'generator' ? [principal.generatorId] : []),
    ...(request.generatorId === '' ? [] : [request.generatorId]),
  ];
  const filter = { agentId: request.agentId || undefined, stackId: request.stackId || undefined, generatorIds };
  return await listEvents(db, filter, page);
}

/** Events of one agent. */
export async function eventsOfAgent({ db }: Query, agentId: string, page: Page): Promise<EventRow[]> {
  await assertAgent(db, agentId);
  return await listEvents(db, { agentId }, page);
}

/** One event. Throws `agent_event_not_found`. */
export async function getEvent({ db }: Query, id: string): Promise<EventRow> {
  const row = await findEvent(db, id);
  if (!row) throw new BrokkrError('agent_event_not_found', `no agent event ${id}`, { details: { agent_event_id: id } });
  return row;
}

async function getStanding(tx: Queryable, agentId: string): Promise<Standing> {
  const standing = await findStanding(tx, agentId);
  if (!standing) throw new BrokkrError('agent_not_found', `no agent ${agentId}`, { details: { agent_id: agentId } });
  return standing;
}

function assertNoSession(standing: Standing): void {
  if (standing.session_live) throw new BrokkrError('session_active', 'the agent has a live session and reports through it');
}

function toRecord(update: DeploymentObjectHealthUpdate): HealthRecord {
  if (!update.checkedAt) throw new BrokkrError('invalid_health_record', `record of ${update.id} has no checked_at`);
  return {
    deploymentObjectId: update.id.toLowerCase(),
    status: HEALTH_TEXT[update.status],
    summary: update.summary ? JSON.stringify(summaryJson(update.summary)) : null,
    checkedAt: toJson(TimestampSchema, update.checkedAt),
  };
}

/** As the API spells it: `resources` and their messages are left out when empty. */
function summaryJson({ podsReady, podsTotal, conditions, resources }: HealthSummary) {
  return {
    pods_ready: podsReady,
    pods_total: podsTotal,
    conditions,
    ...(resources.length > 0 && {
      resources: resources.map(({ kind, name, namespace, ready, message }) => ({
        kind,
        name,
        namespace,
        ready,
        ...(message !== undefined && { message }),
      })),
    }),
  };
}
