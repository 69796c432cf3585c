import type { Queryable } from '../database.ts';
import type { StackRow } from './store.ts';

/** A head that was and can be again. */
export interface FormerHead {
  /** int8 as text. */
  readonly generation: string;
  readonly deployment_object_id: string;
  readonly manifest_digest: Buffer;
  readonly options: Buffer;
}

const FORMER = `select g.generation, g.deployment_object_id, d.manifest_digest, g.options
  from stack_generation g join deployment_object d on d.id = g.deployment_object_id`;

/** The head of a generation; undefined when there was none, or none with content. */
export async function findGeneration(tx: Queryable, stackId: string, generation: bigint): Promise<FormerHead | undefined> {
  const rows = await tx.query<FormerHead>(`${FORMER} where g.stack_id = $1 and g.generation = $2`, [
    stackId,
    generation.toString(),
  ]);
  return rows[0];
}

/** The last head with the content of a revision. */
export async function findRevision(tx: Queryable, stackId: string, revision: bigint): Promise<FormerHead | undefined> {
  const rows = await tx.query<FormerHead>(
    `${FORMER} where g.stack_id = $1 and d.revision = $2 order by g.generation desc limit 1`,
    [stackId, revision.toString()],
  );
  return rows[0];
}

/**
 * The newest head before the present one, other than it, that was good on every one of these agents which ever had a good
 * generation: it is their newest good one, or its deployment object was healthy there when it was last heard of. Undefined
 * when there is none, or no agent ever had a good generation.
 */
export async function findGoodEverywhere(
  tx: Queryable,
  stack: Pick<StackRow, 'id' | 'generation'>,
  agentIds: readonly string[],
): Promise<FormerHead | undefined> {
  const rows = await tx.query<FormerHead>(
    `with judge as (
       select agent_id, good_generation from delivery where stack_id = $1 and agent_id = any($3::uuid[]) and good_generation > 0
     )
     ${FORMER} join stack s on s.id = g.stack_id
     where g.stack_id = $1 and g.generation < $2 and (g.deployment_object_id, g.options_digest) is distinct from (s.deployment_object_id, s.options_digest)
       and exists (select from judge)
       and not exists (
         select from judge j where j.good_generation <> g.generation and not exists (
           select from deployment_health h
           where h.agent_id = j.agent_id and h.deployment_object_id = g.deployment_object_id and h.status = 'healthy'))
     order by g.generation desc limit 1`,
    [stack.id, stack.generation, agentIds],
  );
  return rows[0];
}

/** Whether there is such an agent. */
export async function agentExists(tx: Queryable, agentId: string): Promise<boolean> {
  return (await tx.query('select from agent where id = $1 and deleted_at is null', [agentId])).length > 0;
}

/** Pauses a stack on an agent; false when it was paused there before. */
export async function insertPause(tx: Queryable, agentId: string, stackId: string): Promise<boolean> {
  const rows = await tx.query(
    'insert into agent_pause (agent_id, stack_id) values ($1, $2) on conflict do nothing returning agent_id',
    [agentId, stackId],
  );
  return rows.length > 0;
}

/** Ends the pause of a stack on an agent; false when it was not paused there. */
export async function deletePause(tx: Queryable, agentId: string, stackId: string): Promise<boolean> {
  const rows = await tx.query('delete from agent_pause where agent_id = $1 and stack_id = $2 returning agent_id', [
    agentId,
    stackId,
  ]);
  return rows.length > 0;
}
