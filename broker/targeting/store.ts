import type { Queryable } from '../database.ts';

/** Whose stacks reach an agent that does not say so itself. */
export type Acceptance = 'all' | 'registered';

/** What an agent should have of one stack. */
export interface AssignedRow {
  readonly agent_id: string;
  readonly stack_id: string;
  readonly stack_name: string;
  /** Released generation (int8 as text). */
  readonly generation: string;
  readonly deployment_object_id: string;
  readonly manifest_digest: Buffer;
  readonly options_digest: Buffer;
  /** Options of that generation, if the stack is paused on this agent; null otherwise. */
  readonly paused_options: Buffer | null;
}

/**
 * The effective target state in one statement: union of direct assignment, labels and annotations; consent where it is
 * asked for; the released generation of stacks that have content. Narrowed to the agents and stacks given (undefined:
 * all). Agents that are INACTIVE or deleted are left out unless `withheld` asks for them: what is assigned to them is
 * withheld, not withdrawn, and whoever concludes from absence (tombstones) must see it.
 */
export async function listAssigned(
  tx: Queryable,
  {
    agentIds,
    stackIds,
    acceptance,
    withheld = false,
  }: {
    readonly agentIds?: readonly string[] | undefined;
    readonly stackIds?: readonly string[] | undefined;
    readonly acceptance: Acceptance;
    readonly withheld?: boolean;
  },
): Promise<AssignedRow[]> {
  return await tx.query<AssignedRow>(
    `select m.agent_id, m.stack_id, s.name as stack_name, g.generation, g.deployment_object_id, d.manifest_digest, g.options_digest,
       case when p.agent_id is not null then g.options end as paused_options
     from (
       select distinct agent_id, stack_id from targeting
       where ($1::uuid[] is null or agent_id = any($1)) and ($2::uuid[] is null or stack_id = any($2))
     ) m
     join agent a on a.id = m.agent_id and ($4 or a.deleted_at is null and a.status = 'ACTIVE')
     join stack s on s.id = m.stack_id and s.deleted_at is null
     left join release r on r.agent_id = m.agent_id and r.stack_id = m.stack_id
     left join agent_pause p on p.agent_id = m.agent_id and p.stack_id = m.stack_id
     join stack_generation g on g.stack_id = s.id and g.generation = coalesce(r.generation, s.generation)
     join deployment_object d on d.id = g.deployment_object_id
     where coalesce(a.acceptance, $3) = 'all'
        or exists (select from agent_generator_registration c where c.agent_id = m.agent_id and c.generator_id = s.generator_id)`,
    [agentIds ?? null, stackIds ?? null, acceptance, withheld],
  );
}
