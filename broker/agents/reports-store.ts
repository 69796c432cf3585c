import type { Page } from '../api/page.ts';
import type { Queryable } from '../database.ts';

/**
 * True for an agent with a live session: not closed, and heard of within a minute. Its writes over plain REST are
 * refused, so that two processes with one key cannot both report. `$1` is the agent.
 */
const SESSION_LIVE = `exists (select from agent_session s
  where s.agent_id = $1 and s.closed_at is null and s.last_seen_at > now() - interval '60 seconds')`;

/** Why a report of an agent was not stored. */
export interface Standing {
  readonly status: 'ACTIVE' | 'INACTIVE';
  readonly session_live: boolean;
}

/** Whether the agent may report over plain REST; undefined when it does not exist. */
export async function findStanding(tx: Queryable, agentId: string): Promise<Standing | undefined> {
  const rows = await tx.query<Standing>(
    `select a.status, ${SESSION_LIVE} as session_live from agent a where a.id = $1 and a.deleted_at is null`,
    [agentId],
  );
  return rows[0];
}

/** Notes a heartbeat in one statement; false when the agent is not ACTIVE or has a live session (`findStanding` says which). */
export async function noteHeartbeat(
  tx: Queryable,
  agentId: string,
  { reachable, latencyMs }: { readonly reachable: boolean | undefined; readonly latencyMs: number | undefined },
): Promise<boolean> {
  const rows = await tx.query(
    `update agent a set last_heartbeat = now(),
       k8s_reachable = case when $4 then $2 else a.k8s_reachable end,
       k8s_api_latency_ms = case when $4 then $3 else a.k8s_api_latency_ms end,
       k8s_reported_at = case when $4 then now() else a.k8s_reported_at end
     where a.id = $1 and a.deleted_at is null and a.status = 'ACTIVE' and not ${SESSION_LIVE}
     returning a.id`,
    [agentId, reachable ?? null, latencyMs ?? null, reachable !== undefined || latencyMs !== undefined],
  );
  return rows.length > 0;
}

/** An event as read. Times are text, generation is int8 as text. */
export interface EventRow {
  readonly id: string;
  readonly agent_id: string;
  /** Null for removals of a stack. */
  readonly deployment_object_id: string | null;
  readonly event_type: string;
  readonly status: 'SUCCESS' | 'FAILURE';
  readonly message: string | null;
  readonly stack_id: string | null;
  readonly generation: string | null;
  readonly attempt_id: string | null;
  readonly duration_ms: number | null;
  /** Bytes of a `StackStatus` of which only `objects` is set. */
  readonly objects: Buffer | null;
  readonly occurred_at: string | null;
  readonly created_at: string;
  readonly updated_at: string;
  readonly deleted_at: string | null;
}

const COLUMNS = `e.id, e.agent_id, e.deployment_object_id, e.event_type, e.status, e.message, e.stack_id, e.generation, e.attempt_id,
  e.duration_ms, e.objects, e.occurred_at, e.created_at, e.updated_at, e.deleted_at`;

/** An event about to be stored. */
export interface NewEvent {
  readonly agentId: string;
  readonly deploymentObjectId: string;
  readonly eventType: string;
  readonly status: 'SUCCESS' | 'FAILURE';
  readonly message: string | undefined;
}

/**
 * Stores an event in one statement, with the stack and the newest generation of its deployment object. Undefined when
 * there is no such object, or, with `fenced`, when the agent has a live session.
 */
export async function insertEvent(
  tx: Queryable,
  event: NewEvent,
  { fenced }: { readonly fenced: boolean },
): Promise<EventRow | undefined> {
  const rows = await tx.query<EventRow>(
    `insert into agent_event as e (agent_id, stack_id, deployment_object_id, generation, event_type, status, message)
     select $1, d.stack_id, d.id,
       (select max(g.generation) from stack_generation g where g.stack_id = d.stack_id and g.deployment_object_id = d.id), $3, $4, $5
     from deployment_object d where d.id = $2 and not ($6 and ${SESSION_LIVE})
     returning ${COLUMNS}`,
    [event.agentId, event.deploymentObjectId, event.eventType, event.status, event.message ?? null, fenced],
  );
  return rows[0];
}

/** What a list of events is narrowed to. */
export interface EventFilter {
  readonly agentId?: string | undefined;
  readonly stackId?: string | undefined;
  /** Only events about stacks of all these generators; at most two, so that a filter narrows what the caller may see. */
  readonly generatorIds?: readonly string[];
}

/** Events of live agents, newest first. */
export async function listEvents(
  tx: Queryable,
  { agentId, stackId, generatorIds = [] }: EventFilter,
  { fetch, after }: Page,
): Promise<EventRow[]> {
  return await tx.query<EventRow>(
    `select ${COLUMNS} from agent_event e
     join agent a on a.id = e.agent_id and a.deleted_at is null
     where e.deleted_at is null
       and ($2::timestamptz is null or (e.created_at, e.id) < ($2, $3::uuid))
       and ($4::uuid is null or e.agent_id = $4) and ($5::uuid is null or e.stack_id = $5)
       and ($6::uuid[] = '{}' or exists (select from stack s where s.id = e.stack_id and s.generator_id = all($6)))
     order by e.created_at desc, e.id desc limit $1`,
    [fetch, after?.createdAt ?? null, after?.id ?? null, agentId ?? null, stackId ?? null, generatorIds],
  );
}

/** An event of a live agent. */
export async function findEvent(tx: Queryable, id: string): Promise<EventRow | undefined> {
  const rows = await tx.query<EventRow>(
    `select ${COLUMNS} from agent_event e join agent a on a.id = e.agent_id and a.deleted_at is null where e.id = $1 and e.deleted_at is null`,
    [id],
  );
  return rows[0];
}

/** Health of one deployment object on an agent. */
export interface HealthRecord {
  readonly deploymentObjectId: string;
  readonly status: 'healthy' | 'degraded' | 'failing' | 'unknown';
  /** JSON text. */
  readonly summary: string | null;
  /** RFC 3339. */
  readonly checkedAt: string;
}

/** Which of these deployment objects do not exist. */
export async function selectMissingObjects(tx: Queryable, ids: readonly string[]): Promise<string[]> {
  const rows = await tx.query<{ id: string }>(
    'select u.id from unnest($1::uuid[]) u (id) where not exists (select from deployment_object d where d.id = u.id)',
    [ids],
  );
  return rows.map(({ id }) => id);
}

/** Stores health, one record a deployment object; a look that is older than the stored one changes nothing. */
export async function upsertHealthRecords(tx: Queryable, agentId: string, records: readonly HealthRecord[]): Promise<void> {
  await tx.query(
    `insert into deployment_health as h (agent_id, deployment_object_id, status, summary, checked_at)
     select $1, u.object_id, u.status, u.summary, u.checked_at
     from unnest($2::uuid[], $3::text[], $4::text[], $5::timestamptz[]) u (object_id, status, summary, checked_at)
     order by u.object_id
     on conflict (agent_id, deployment_object_id) do update
       set status = excluded.status, summary = excluded.summary, checked_at = excluded.checked_at, updated_at = now()
       where h.checked_at <= excluded.checked_at`,
    [
      agentId,
      records.map((record) => record.deploymentObjectId),
      records.map((record) => record.status),
      records.map((record) => record.summary),
      records.map((record) => record.checkedAt),
    ],
  );
}
