import type { Queryable } from '../database.ts';

/** A stage of a delivery: undelivered (not with the agent), unapplied (with it, and not applied as a whole). */
export type BacklogStage = 'undelivered' | 'unapplied';

/** The fleet in numbers, as the database has it. Ages in seconds. */
export interface FleetCounts {
  /** By state: connected, silent (active, without a session now), never (active, without a session so far), inactive. */
  readonly agents: Readonly<Record<string, number>>;
  /** Oldest sign of life of an active agent that has had a session; 0 without any. */
  readonly oldest_heartbeat: number;
  readonly stacks: number;
  /** Objects in the newest generation of all stacks. */
  readonly stack_objects: number;
  /** Pairs of agent and stack by phase and by health; stacks being removed have a phase only. */
  readonly phases: Readonly<Record<string, number>>;
  readonly healths: Readonly<Record<string, number>>;
  readonly backlog: Readonly<Record<BacklogStage, { readonly pairs: number; readonly oldest: number }>>;
  /** Deliveries of webhooks that are due and not being sent, and for how long the first of them has been. */
  readonly webhooks_due: number;
  readonly webhooks_overdue: number;
}

/**
 * Counts everything in one statement, which reads the agents, the stacks, the pairs of both and the open webhook deliveries once. What a
 * gate or a rollout holds back is no backlog.
 */
export async function countFleet(tx: Queryable): Promise<FleetCounts> {
  const [row] = await tx.query<FleetCounts>(
    `with agents as (
       select case when a.status = 'INACTIVE' then 'inactive' when s.epoch is null or s.epoch = 0 then 'never'
           when s.closed_at is null then 'connected' else 'silent' end as state,
         extract(epoch from now() - a.last_heartbeat)::float8 as heartbeat
       from agent a left join agent_session s on s.agent_id = a.id where a.deleted_at is null
     ), pairs as (
       select d.desired, d.phase, d.health,
         case when d.desired <> 'entry' or w.generation is null then null
           when d.received_generation < w.generation then 'undelivered'
           when d.applied_generation < w.generation then 'unapplied' end as stage,
         extract(epoch from now() - case when d.received_generation >= w.generation then coalesce(d.received_at, s.head_at)
           when d.received_generation = 0 then greatest(s.head_at, d.updated_at) else s.head_at end)::float8 as age
       from delivery d
       join agent a on a.id = d.agent_id and a.deleted_at is null and a.status = 'ACTIVE'
       join stack s on s.id = d.stack_id
       left join release r on r.agent_id = d.agent_id and r.stack_id = d.stack_id
       cross join lateral (select coalesce(r.generation, case when s.gated then s.open_generation else s.generation end) as generation) w
     ), waiting as (
       select count(*)::integer as due, coalesce(extract(epoch from now() - min(d.due_at)), 0)::float8 as overdue
       from webhook_delivery d join webhook_subscription s on s.id = d.subscription_id and s.enabled where d.due_at <= now()
     )
     select (select coalesce(jsonb_object_agg(state, number), '{}') from (select state, count(*) as number from agents group by state) g) as agents,
       (select coalesce(max(heartbeat), 0) from agents where state in ('connected', 'silent')) as oldest_heartbeat,
       (select count(*)::integer from stack where deleted_at is null) as stacks,
       (select coalesce(sum(o.object_count), 0)::integer from stack s join deployment_object o on o.id = s.deployment_object_id
         where s.deleted_at is null) as stack_objects,
       (select coalesce(jsonb_object_agg(phase, number), '{}') from (select phase, count(*) as number from pairs group by phase) g) as phases,
       (select coalesce(jsonb_object_agg(health, number), '{}')
         from (select health, count(*) as number from pairs where desired = 'entry' group by health) g) as healths,
       (select jsonb_object_agg(stage, jsonb_build_object('pairs', number, 'oldest', oldest)) from (
         select k.stage, count(p.stage) as number, coalesce(max(p.age), 0) as oldest
         from (values ('undelivered'), ('unapplied')) k (stage) left join pairs p on p.stage = k.stage group by k.stage) g) as backlog,
       w.due as webhooks_due, w.overdue as webhooks_overdue
     from waiting w`,
  );
  if (!row) throw new Error('the fleet has no row');
  return row;
}
