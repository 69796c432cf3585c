import type { MessageInitShape } from '@bufbuild/protobuf';
import { fromBinary, fromJson } from '@bufbuild/protobuf';
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import {
  AgentAcceptance,
  type AgentAnnotationSchema,
  type AgentEventSchema,
  type AgentGeneratorRegistrationSchema,
  type AgentLabelSchema,
  type AgentSchema,
  AgentStatus,
  type AgentTargetSchema,
  EventStatus,
  Presence,
} from '#proto/brokkr/v1/agents_pb.js';
import { ClusterNetworkSchema } from '#proto/brokkr/v1/network_pb.js';
import { StackStatusSchema } from '#proto/brokkr/v1/sync_pb.js';
import type { RegistrationRow } from '../generators/registrations.ts';
import { toTimestamp } from '../stacks/rows.ts';
import type { EventRow } from './reports-store.ts';
import type { AgentAnnotationRow, AgentLabelRow, AgentRow } from './store.ts';
import type { TargetRow } from './targets-store.ts';

/** Status of an agent as stored, by its number in the API. */
export const STATUS_TEXT = {
  [AgentStatus.UNSPECIFIED]: undefined,
  [AgentStatus.ACTIVE]: 'ACTIVE',
  [AgentStatus.INACTIVE]: 'INACTIVE',
} as const;

/** Acceptance as stored, by its number in the API. */
export const ACCEPTANCE_TEXT = {
  [AgentAcceptance.UNSPECIFIED]: null,
  [AgentAcceptance.ALL]: 'all',
  [AgentAcceptance.REGISTERED]: 'registered',
} as const;

/** Outcome of an attempt as stored, by its number in the API. */
export const EVENT_STATUS_TEXT = {
  [EventStatus.UNSPECIFIED]: undefined,
  [EventStatus.SUCCESS]: 'SUCCESS',
  [EventStatus.FAILURE]: 'FAILURE',
} as const;

const NIL_UUID = '00000000-0000-0000-0000-000000000000';
/** An agent that missed this many heartbeats is no longer online. */
const ONLINE_HEARTBEATS = 3;
/** An agent that was silent for so long is gone. */
const OFFLINE_AFTER_MS = 10 * 60_000;

/** A nullable time as stored, for a message. */
export function toOptionalTimestamp(text: string | null): Timestamp | undefined {
  return text === null ? undefined : toTimestamp(text);
}

/** Whether an agent is there, from how long ago it was heard of. Online: within three heartbeats; gone: after 10 minutes. */
export function presenceOf(heardAgeMs: number | null, heartbeatIntervalMs: number): Presence {
  if (heardAgeMs === null) return Presence.NEVER_SEEN;
  if (heardAgeMs < ONLINE_HEARTBEATS * heartbeatIntervalMs) return Presence.ONLINE;
  return heardAgeMs < OFFLINE_AFTER_MS ? Presence.STALE : Presence.OFFLINE;
}

/** An agent for an answer. */
export function toAgent(row: AgentRow, heartbeatIntervalMs: number): MessageInitShape<typeof AgentSchema> {
  return {
    id: row.id,
    name: row.name,
    clusterName: row.cluster_name,
    status: row.status === 'ACTIVE' ? AgentStatus.ACTIVE : AgentStatus.INACTIVE,
    lastHeartbeat: toOptionalTimestamp(row.heard_at),
    k8sReachable: row.k8s_reachable ?? undefined,
    k8sApiLatencyMs: row.k8s_api_latency_ms ?? undefined,
    k8sReportedAt: toOptionalTimestamp(row.k8s_reported_at),
    createdAt: toTimestamp(row.created_at),
    updatedAt: toTimestamp(row.updated_at),
    deletedAt: toOptionalTimestamp(row.deleted_at),
    acceptance: toAcceptance(row.acceptance),
    presence: presenceOf(row.heard_age_ms, heartbeatIntervalMs),
    agentVersion: row.agent_version ?? undefined,
    kubernetesVersion: row.kubernetes_version ?? undefined,
    clusterUid: row.cluster_uid ?? undefined,
    transport: row.transport ?? undefined,
    capabilities: { ...row.capabilities },
    network: row.network === null ? undefined : fromJson(ClusterNetworkSchema, row.network, { ignoreUnknownFields: true }),
  };
}

/** A label for an answer. */
export function toLabel(row: AgentLabelRow): MessageInitShape<typeof AgentLabelSchema> {
  return { id: row.id, agentId: row.agent_id, label: row.label };
}

/** An annotation for an answer. */
export function toAnnotation(row: AgentAnnotationRow): MessageInitShape<typeof AgentAnnotationSchema> {
  return { id: row.id, agentId: row.agent_id, key: row.key, value: row.value };
}

/** A direct assignment for an answer. */
export function toTarget(row: TargetRow): MessageInitShape<typeof AgentTargetSchema> {
  return { id: row.id, agentId: row.agent_id, stackId: row.stack_id };
}

/** A registration for an answer. */
export function toRegistration(row: RegistrationRow): MessageInitShape<typeof AgentGeneratorRegistrationSchema> {
  return { id: row.id, agentId: row.agent_id, generatorId: row.generator_id, registeredAt: toTimestamp(row.registered_at) };
}

/** An event for an answer. */
export function toEvent(row: EventRow): MessageInitShape<typeof AgentEventSchema> {
  return {
    id: row.id,
    agentId: row.agent_id,
    deploymentObjectId: row.deployment_object_id ?? NIL_UUID,
    eventType: row.event_type,
    status: row.status === 'SUCCESS' ? EventStatus.SUCCESS : EventStatus.FAILURE,
    message: row.message ?? undefined,
    createdAt: toTimestamp(row.created_at),
    updatedAt: toTimestamp(row.updated_at),
    deletedAt: toOptionalTimestamp(row.deleted_at),
    stackId: row.stack_id ?? undefined,
    generation: row.generation === null ? undefined : BigInt(row.generation),
    attemptId: row.attempt_id ?? undefined,
    durationMs: row.duration_ms ?? undefined,
    objects: row.objects === null ? [] : fromBinary(StackStatusSchema, row.objects).objects,
    occurredAt: toOptionalTimestamp(row.occurred_at),
  };
}

function toAcceptance(acceptance: AgentRow['acceptance']): AgentAcceptance {
  switch (acceptance) {
    case null:
      return AgentAcceptance.UNSPECIFIED;
    case 'all':
      return AgentAcceptance.ALL;
    case 'registered':
      return AgentAcceptance.REGISTERED;
  }
}
