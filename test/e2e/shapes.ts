import { expect } from 'vitest';

/**
 * What clients of the REST API rely on, by schema: field and kind, `?` for what may be null. Fields after `+` are ours and
 * were added to the original contract. `absent?` marks the four fields that are left out instead of being null.
 */
const SHAPES = {
  Agent: `cluster_name str, created_at time, deleted_at? time, id uuid, k8s_api_latency_ms? int, k8s_reachable? bool, k8s_reported_at? time, last_heartbeat? time, name str, status str, updated_at time
    + acceptance? str, presence? str, agent_version? str, kubernetes_version? str, cluster_uid? str, transport? str, capabilities any, network? any`,
  AgentAnnotation: 'agent_id uuid, id uuid, key str, value str',
  AgentEvent: `agent_id uuid, created_at time, deleted_at? time, deployment_object_id uuid, event_type str, id uuid, message? str, status str, updated_at time
    + stack_id? uuid, generation? int, attempt_id? str, duration_ms? int, objects list, occurred_at? time`,
  AgentGeneratorRegistration: 'agent_id uuid, generator_id uuid, id uuid, registered_at time',
  AgentLabel: 'agent_id uuid, id uuid, label str',
  AgentTarget: 'agent_id uuid, id uuid, stack_id uuid',
  AuditLogEntry: `action str, actor_id? uuid, actor_type str, created_at time, details? any, id uuid, ip_address str absent, resource_id? uuid, resource_type str, timestamp time, user_agent str absent, actor_name? str
    + key_id? uuid`,
  AuditLogListResponse: 'count int, limit int, logs list, offset int, total int',
  AuthResponse: 'admin bool, agent? uuid, generator? uuid, readonly bool',
  Connections: 'connected_agents int, connections list, live_subscribers int',
  CreateAgentResponse: 'agent any, initial_pak str',
  CreateGeneratorResponse: 'generator any, pak str',
  CreateKeyResponse: 'key any, pak str',
  DeploymentHealthResponse: 'deployment_object_id uuid, health_records list, overall_status str',
  DeploymentHealth:
    'agent_id uuid, checked_at time, created_at time, deployment_object_id uuid, id uuid, status str, summary? str, updated_at time',
  DeploymentObject: `created_at time, deleted_at? time, id uuid, is_deletion_marker bool, sequence_id int, stack_id uuid, submitted_at time, updated_at time, yaml_checksum str, yaml_content str
    + revision int, object_count int`,
  Generator:
    'created_at time, deleted_at? time, description? str, id uuid, is_active bool, is_system bool, last_active_at? time, name str, updated_at time',
  HistoryEntry:
    'generation int, deployment_object_id? uuid, revision? int, yaml_checksum? str, object_count int, options? any, cause str, created_at time, actor str, applied_agents int, gate? any',
  Key: 'id uuid, role str, agent_id? uuid, generator_id? uuid, name str, short_token str, read_only bool, expires_at? time, last_used_at? time, created_at time, revoked_at? time',
  PakSummary: 'id uuid, name str',
  Stack: `created_at time, deleted_at? time, description? str, generator_id uuid, id uuid, name str, updated_at time
    + generation int, deployment_object_id? uuid, options? any, selector? any`,
  StackAnnotation: 'id uuid, key str, stack_id uuid, value str',
  StackHealthResponse: 'deployment_objects list, overall_status str, stack_id uuid',
  StackLabel: 'id uuid, label str, stack_id uuid',
  StackStatus: 'stack any, agents list',
  StackExplanation: 'status any, unanswered? any, objects list, next_page_token str',
  TargetExplanation:
    'agent_id uuid, agent_name str, stack_id uuid, stack_name str, assigned bool, matched list, nearly list, withheld str, consent str, generation int, held_generation? int, held_until? time, release str, connected bool, paused bool',
  Error: 'code str, message str, details any',
  Webhook:
    'created_at time, created_by? str, enabled bool, event_types list, filters? any, has_auth_header bool, has_url bool, id uuid, max_retries int, name str, target_labels list, timeout_seconds int, updated_at time + disabled_reason? str, secret? str',
  WebhookDelivery: `acquired_by? uuid, acquired_until? time, attempts int, completed_at? time, created_at time, event_id uuid, event_type str, id uuid, last_attempt_at? time, last_error? str, next_retry_at? time, payload str, status str, subscription_id uuid
    + last_error_kind? str, status_code? int`,
  ApplyResponse: 'stack any, deployment_object? any, result str, changes list, targeted_agents int, warnings list',
  AgentPak: 'agent any, pak str',
  Pak: 'pak str',
  RollbackStackResponse: 'stack any, from_generation int',
  Incarnation: 'incarnation str',
} as const;

/** A schema of the REST API. */
export type ShapeName = keyof typeof SHAPES;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

const KINDS: Readonly<Record<string, (value: unknown) => boolean>> = {
  uuid: (value) => typeof value === 'string' && UUID.test(value),
  time: (value) => typeof value === 'string' && TIME.test(value),
  str: (value) => typeof value === 'string',
  int: (value) => Number.isSafeInteger(value),
  bool: (value) => typeof value === 'boolean',
  list: (value) => Array.isArray(value),
  any: (value) => value !== undefined,
};

/** Fails unless the value has exactly the fields of the schema, each of its kind. */
export function expectShape(value: unknown, name: ShapeName): void {
  expect(value, name).toBeTypeOf('object');
  const json = value as Readonly<Record<string, unknown>>;
  const fields = SHAPES[name].split(/[,+]/).map((field) => field.trim().split(/\s+/));
  const problems: string[] = [];
  for (const [label = '', kind = '', absent] of fields) {
    const field = label.replace('?', '');
    const content = json[field];
    const fits = content === null ? label.endsWith('?') : content === undefined ? absent !== undefined : KINDS[kind]?.(content);
    if (!fits) problems.push(`${field} is ${JSON.stringify(content)}, expected ${kind}`);
  }
  const known = new Set(fields.map(([label = '']) => label.replace('?', '')));
  problems.push(
    ...Object.keys(json)
      .filter((field) => !known.has(field))
      .map((field) => `${field} is not in the contract`),
  );
  expect(problems, `${name}: ${JSON.stringify(value).slice(0, 500)}`).toEqual([]);
}
