import type { Queryable } from '../database.ts';

/** Delivery rows of agents. */
export interface DeliveryRow {
  readonly agent_id: string;
  readonly stack_id: string;
  readonly desired: 'entry' | 'tombstone';
  readonly received_generation: string;
  readonly received_manifest_digest: Buffer | null;
}

/** All delivery rows of the agents, or those of some stacks. */
export async function listDeliveries(
  tx: Queryable,
  agentIds: readonly string[] | undefined,
  stackIds?: readonly string[],
): Promise<DeliveryRow[]> {
  return await tx.query<DeliveryRow>(
    `select agent_id, stack_id, desired, received_generation, received_manifest_digest from delivery
     where ($1::uuid[] is null or agent_id = any($1)) and ($2::uuid[] is null or stack_id = any($2))`,
    [agentIds ?? null, stackIds ?? null],
  );
}

/** A stack at an agent. */
export interface Pair {
  readonly agentId: string;
  readonly stackId: string;
}

/** Makes sure that there is an entry row for each pair before the first frame about it is sent. */
export async function insertEntries(tx: Queryable, pairs: readonly (Pair & { readonly generation: bigint })[]): Promise<void> {
  await tx.query(
    `insert into delivery (agent_id, stack_id, desired, generation)
     select agent_id, stack_id, 'entry', generation from unnest($1::uuid[], $2::uuid[], $3::bigint[]) u(agent_id, stack_id, generation)
     on conflict (agent_id, stack_id) do update
       set desired = 'entry', policy = null, approved = false, generation = excluded.generation, updated_at = now()
       where delivery.desired <> 'entry'`,
    [pairs.map((p) => p.agentId), pairs.map((p) => p.stackId), pairs.map((p) => p.generation.toString())],
  );
}

/** Notes generations that the agent turned out to have received, unless its epoch is over. */
export async function noteReceived(
  tx: Queryable,
  { agentId, epoch }: { readonly agentId: string; readonly epoch: bigint },
  entries: readonly { readonly stackId: string; readonly generation: bigint }[],
): Promise<void> {
  await tx.query(
    `update delivery d set received_generation = greatest(d.received_generation, u.generation), updated_at = now()
     from unnest($3::uuid[], $4::bigint[]) u(stack_id, generation)
     where d.agent_id = $1 and d.stack_id = u.stack_id and d.desired = 'entry'
       and exists (select from agent_session s where s.agent_id = $1 and s.epoch = $2)`,
    [agentId, epoch.toString(), entries.map((entry) => entry.stackId), entries.map((entry) => entry.generation.toString())],
  );
}

/** A stack that leaves an agent. */
export interface TombstoneRow {
  readonly agent_id: string;
  readonly stack_id: string;
  readonly stack_name: string;
  readonly policy: 'delete' | 'orphan' | 'delete_and_wait';
  readonly approved: boolean;
  readonly generation: string;
  /** Of the stack's deletion. */
  readonly traceparent: string | null;
}

/** Turns the pairs' rows into tombstones by their stack's present policy and returns them; pairs without a row are left out. */
export async function writeTombstones(tx: Queryable, pairs: readonly Pair[]): Promise<TombstoneRow[]> {
  return await tx.query<TombstoneRow>(
    `update delivery d set desired = 'tombstone', policy = s.deletion_policy, approved = s.deleted_at is not null, generation = s.generation,
       phase = case when d.desired = 'entry' then 'pending' else d.phase end, updated_at = now()
     from unnest($1::uuid[], $2::uuid[]) u(agent_id, stack_id) join stack s on s.id = u.stack_id
     where d.agent_id = u.agent_id and d.stack_id = u.stack_id
     returning d.agent_id, d.stack_id, s.name as stack_name, d.policy, d.approved, d.generation,
       (select g.traceparent from stack_generation g where g.stack_id = s.id and g.generation = s.generation and g.cause = 'deletion')`,
    [pairs.map((p) => p.agentId), pairs.map((p) => p.stackId)],
  );
}
