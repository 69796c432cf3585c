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
  /** The gate of a newer generation holds that one back. */
  readonly held: boolean;
  readonly deployment_object_id: string;
  readonly manifest_digest: Buffer;
  readonly options_digest: Buffer;
  /** Options of that generation, if the stack is paused on this agent; null otherwise. */
  readonly paused_options: Buffer | null;
}

/** A stack that reaches an agent and of which nothing may be delivered yet: its gate is closed. */
export interface HeldRow extends Pick<AssignedRow, 'agent_id' | 'stack_id' | 'held'> {
  readonly generation: null;
}

/** Which agents and stacks; undefined: all. */
export interface Reach {
  readonly agentIds?: readonly string[] | undefined;
  readonly stackIds?: readonly string[] | undefined;
  readonly acceptance: Acceptance;
}

/** The effective target state of ACTIVE agents: what `listReached` finds, without what is held back wholly. */
export async function listAssigned(tx: Queryable, reach: Reach): Promise<AssignedRow[]> {
  return (await listReached(tx, { ...reach, withheld: false })).filter((row) => row.generation !== null);
}

/**
 * Everything that reaches agents, in one statement: union of direct assignment, labels, annotations and selectors; consent
 * where it is asked for; the released generation of stacks that have content. Agents that are INACTIVE or deleted are left
 * out unless `withheld` asks for them: what is assigned to them, like what a gate holds back, is withheld, not withdrawn,
 * and whoever concludes from absence (tombstones) must see it.
 */
export async function listReached(
  tx: Queryable,
  { agentIds, stackIds, acceptance, withheld }: Reach & { readonly withheld: boolean },
): Promise<(AssignedRow | HeldRow)[]> {
  return await tx.query<AssignedRow | HeldRow>(
    `select m.agent_id, m.stack_id, s.name as stack_name, m.generation, m.held, g.deployment_object_id, d.manifest_digest, g.options_digest,
       case when p.agent_id is not null then g.options end as paused_options
     from (
       select agent_id, stack_id, generation, held from released
       where ($1::uuid[] is null or agent_id = any($1)) and ($2::uuid[] is null or stack_id = any($2))
     ) m
     join agent a on a.id = m.agent_id and ($4 or a.deleted_at is null and a.status = 'ACTIVE')
     join stack s on s.id = m.stack_id and s.deployment_object_id is not null
     left join agent_pause p on p.agent_id = m.agent_id and p.stack_id = m.stack_id
     left join stack_generation g on g.stack_id = m.stack_id and g.generation = m.generation
     left join deployment_object d on d.id = g.deployment_object_id
     where (m.generation is null or d.id is not null) and (coalesce(a.acceptance, $3) = 'all'
        or exists (select from agent_generator_registration c where c.agent_id = m.agent_id and c.generator_id = s.generator_id))`,
    [agentIds ?? null, stackIds ?? null, acceptance, withheld],
  );
}
