import type { Queryable } from '../database.ts';
import type { DeploymentObjectRow } from '../stacks/content-store.ts';
import type { StackRow } from '../stacks/store.ts';
import type { Acceptance } from '../targeting/store.ts';

/** A direct assignment. */
export interface TargetRow {
  readonly id: string;
  readonly agent_id: string;
  readonly stack_id: string;
}

/** Direct assignments of an agent to live stacks, in order of their ids; 10,000 at most. */
export async function listTargets(tx: Queryable, agentId: string): Promise<TargetRow[]> {
  return await tx.query<TargetRow>(
    `select t.id, t.agent_id, t.stack_id from agent_target t join stack s on s.id = t.stack_id and s.deleted_at is null
     where t.agent_id = $1 order by t.id limit 10000`,
    [agentId],
  );
}

/** Assigns a stack; a repetition is a `unique_violation`. */
export async function insertTarget(tx: Queryable, agentId: string, stackId: string): Promise<TargetRow> {
  const rows = await tx.query<TargetRow>(
    'insert into agent_target (agent_id, stack_id) values ($1, $2) returning id, agent_id, stack_id',
    [agentId, stackId],
  );
  const row = rows[0];
  if (!row) throw new Error('insert returned no row');
  return row;
}

/** Takes an assignment back; false when there was none. */
export async function deleteTarget(tx: Queryable, agentId: string, stackId: string): Promise<boolean> {
  const rows = await tx.query('delete from agent_target where agent_id = $1 and stack_id = $2 returning id', [agentId, stackId]);
  return rows.length > 0;
}

/** Live stacks that a rule assigns to the agent, whether it is ACTIVE and whether they have content or not; 10,000 at most. */
export async function listStacksOf(tx: Queryable, agentId: string, acceptance: Acceptance): Promise<StackRow[]> {
  return await tx.query<StackRow>(
    `select s.id, s.name, s.description, s.generator_id, s.salt, s.generation, s.deployment_object_id, s.manifest_digest, s.options, s.selector, s.version, s.created_at, s.updated_at, s.deleted_at
     from (select distinct stack_id from targeting where agent_id = $1) m
     join stack s on s.id = m.stack_id and s.deleted_at is null
     join agent a on a.id = $1
     where coalesce(a.acceptance, $2) = 'all'
        or exists (select from agent_generator_registration c where c.agent_id = a.id and c.generator_id = s.generator_id)
     order by s.created_at desc, s.id desc limit 10000`,
    [agentId, acceptance],
  );
}

/** A deployment object with its text. */
export interface ContentRow extends DeploymentObjectRow {
  readonly yaml_content: string;
}

/**
 * These deployment objects, newest first, without those the agent has an event about when `unreportedBy` names it: one since
 * they last became a head by content, rollback or retry (the same may be head twice). The subquery stops at the first event
 * (`not exists` would read all of them), so that it stays fast as events accumulate.
 */
export async function listContent(
  tx: Queryable,
  ids: readonly string[],
  { unreportedBy }: { readonly unreportedBy: string | undefined },
): Promise<ContentRow[]> {
  return await tx.query<ContentRow>(
    `select d.id, d.sequence_id, d.stack_id, d.revision, d.yaml_content, d.yaml_checksum, d.is_deletion_marker, d.object_count,
       d.submitted_at, d.created_at, d.updated_at, d.deleted_at
     from deployment_object d
     where d.id = any($1)
       and (select true from agent_event e
            where e.agent_id = $2::uuid and e.deployment_object_id = d.id and e.deleted_at is null
              and e.created_at >= (select max(g.created_at) from stack_generation g
                where g.stack_id = d.stack_id and g.deployment_object_id = d.id and g.cause in ('content', 'rollback', 'retry', 'deletion'))
            limit 1) is null
     order by d.sequence_id desc`,
    [ids, unreportedBy ?? null],
  );
}
