import type { Page } from '../api/page.ts';
import type { Queryable } from '../database.ts';
import type { StoredGate } from '../targeting/gate.ts';

/** What an agent was told about a stack and what it answered. */
export interface DeliveryRow {
  readonly agent_id: string;
  readonly agent_name: string;
  readonly cluster_name: string;
  readonly connected: boolean;
  /** Null when the agent was never told. */
  readonly desired: 'entry' | 'tombstone' | null;
  /** int8 as text, like all generations. */
  readonly generation: string | null;
  readonly received_generation: string | null;
  readonly applied_generation: string | null;
  readonly phase: string | null;
  readonly health: string | null;
  readonly message: string | null;
  /** Bytes of a `StackStatus` of which only `objects` is set. */
  readonly objects: Buffer | null;
  readonly objects_total: number | null;
  readonly objects_ready: number | null;
  readonly received_at: string | null;
  readonly applied_at: string | null;
  readonly healthy_at: string | null;
  readonly refused_generation: string | null;
  readonly good_generation: string | null;
  readonly awaiting_approval: number | null;
  /** The stack is paused on this agent. */
  readonly paused: boolean;
}

/** The given agents and all that were told something about the stack, by name. */
export async function listDeliveries(db: Queryable, stackId: string, agentIds: readonly string[]): Promise<DeliveryRow[]> {
  return await db.query<DeliveryRow>(
    `select a.id as agent_id, a.name as agent_name, a.cluster_name,
       s.connected_at is not null and s.closed_at is null
         and not exists (select from replica r where r.id = s.replica_id and r.lease_until < now()) as connected,
       d.desired, d.generation, d.received_generation, d.applied_generation, d.phase, d.health, d.message, d.objects,
       d.objects_total, d.objects_ready, d.received_at, d.applied_at, d.healthy_at,
       d.refused_generation, d.good_generation, d.awaiting_approval, p.agent_id is not null as paused
     from agent a
     left join delivery d on d.agent_id = a.id and d.stack_id = $1
     left join agent_pause p on p.agent_id = a.id and p.stack_id = $1
     left join agent_session s on s.agent_id = a.id
     where a.deleted_at is null and (a.id = any($2::uuid[]) or d.stack_id is not null)
     order by a.name, a.cluster_name`,
    [stackId, agentIds],
  );
}

/** When the given generations of a stack became its head. */
export async function listHeadTimes(
  db: Queryable,
  stackId: string,
  generations: readonly string[],
): Promise<{ generation: string; created_at: string }[]> {
  return await db.query(
    'select generation, created_at from stack_generation where stack_id = $1 and generation = any($2::bigint[])',
    [stackId, generations],
  );
}

/** The manifest (bytes of the proto) of a generation of a stack; undefined when there is none with content. */
export async function findHeadManifest(db: Queryable, stackId: string, generation: string): Promise<Buffer | undefined> {
  const rows = await db.query<{ manifest: Buffer }>(
    `select d.manifest from stack_generation g join deployment_object d on d.id = g.deployment_object_id
     where g.stack_id = $1 and g.generation = $2`,
    [stackId, generation],
  );
  return rows[0]?.manifest;
}

/** A head that was. */
export interface HistoryRow {
  /** The generation in the form of an id, for page tokens. */
  readonly id: string;
  readonly generation: string;
  readonly deployment_object_id: string | null;
  readonly revision: string | null;
  readonly yaml_checksum: string | null;
  readonly object_count: number | null;
  readonly options: Buffer;
  readonly not_before: string | null;
  readonly windows: StoredGate['windows'];
  readonly cause: string;
  readonly created_at: string;
  readonly actor_type: string;
  readonly actor_name: string | null;
  readonly applied_agents: number;
}

const HISTORY = `
  select '00000000-0000-0000-0000-' || lpad(to_hex(g.generation), 12, '0') as id, g.generation, g.deployment_object_id, d.revision,
    d.yaml_checksum, d.object_count, g.options, g.not_before, g.windows, g.cause, g.created_at, g.actor_type,
    coalesce((select name from generator where id = g.actor_id), (select name from agent where id = g.actor_id)) as actor_name,
    (select count(*)::integer from (
       select v.agent_id from delivery v where v.stack_id = g.stack_id and v.applied_generation = g.generation
       union
       select e.agent_id from agent_event e
       where e.stack_id = g.stack_id and e.generation = g.generation and e.status = 'SUCCESS' and e.created_at >= g.created_at
     ) applied) as applied_agents
  from stack_generation g left join deployment_object d on d.id = g.deployment_object_id`;

/** A page of heads, newest first. */
export async function listHeads(db: Queryable, stackId: string, { after, fetch }: Page): Promise<HistoryRow[]> {
  return await db.query<HistoryRow>(
    `${HISTORY} where g.stack_id = $1 and ($2::bigint is null or g.generation < $2) order by g.generation desc limit $3`,
    [stackId, after ? Number.parseInt(after.id.slice(-12), 16) : null, fetch],
  );
}

/** The head at a moment, given as seconds since the epoch and nanoseconds. */
export async function findHeadAt(
  db: Queryable,
  stackId: string,
  { seconds, nanos }: { readonly seconds: bigint; readonly nanos: number },
): Promise<HistoryRow[]> {
  return await db.query<HistoryRow>(
    `${HISTORY} where g.stack_id = $1
       and g.created_at <= timestamptz 'epoch' + $2::bigint * interval '1 second' + $3::bigint * interval '1 microsecond'
     order by g.generation desc limit 1`,
    [stackId, seconds.toString(), Math.floor(nanos / 1000)],
  );
}

/** A row of `deployment_health`. */
export interface HealthRow {
  readonly id: string;
  readonly agent_id: string;
  readonly deployment_object_id: string;
  readonly status: string;
  readonly summary: string | null;
  readonly checked_at: string;
  readonly created_at: string;
  readonly updated_at: string;
}

/** What agents said about a deployment object, newest first. */
export async function listHealth(db: Queryable, deploymentObjectId: string): Promise<HealthRow[]> {
  return await db.query<HealthRow>(
    `select h.id, h.agent_id, h.deployment_object_id, h.status, h.summary, h.checked_at, h.created_at, h.updated_at
     from deployment_health h join agent a on a.id = h.agent_id and a.deleted_at is null
     where h.deployment_object_id = $1 order by h.checked_at desc, h.id`,
    [deploymentObjectId],
  );
}

/** How many agents find a deployment object in which state. */
export interface HealthCount {
  readonly deployment_object_id: string;
  readonly healthy: number;
  readonly degraded: number;
  readonly failing: number;
  readonly unknown: number;
}

/** Counts by deployment object of a stack, newest first. */
export async function countHealth(db: Queryable, stackId: string): Promise<HealthCount[]> {
  return await db.query<HealthCount>(
    `select d.id as deployment_object_id,
       count(*) filter (where h.status = 'healthy')::integer as healthy, count(*) filter (where h.status = 'degraded')::integer as degraded,
       count(*) filter (where h.status = 'failing')::integer as failing, count(*) filter (where h.status = 'unknown')::integer as unknown
     from deployment_object d
     join deployment_health h on h.deployment_object_id = d.id
     join agent a on a.id = h.agent_id and a.deleted_at is null
     where d.stack_id = $1 group by d.id order by d.sequence_id desc`,
    [stackId],
  );
}
