import type { Queryable } from '../database.ts';
import type { Acceptance } from '../targeting/store.ts';

/** A rule that reaches, as the view `targeting` names it. */
export interface MatchedRule {
  readonly method: 'direct' | 'label' | 'annotation' | 'selector';
  /** The label, `key=value`, or empty. */
  readonly detail: string;
}

/** Everything that decides whether an agent is to have a stack. */
export interface PairRow {
  readonly agent_id: string;
  readonly agent_name: string;
  readonly agent_status: 'ACTIVE' | 'INACTIVE';
  readonly agent_deleted: boolean;
  readonly stack_id: string;
  readonly stack_name: string;
  readonly stack_deleted: boolean;
  readonly generator_name: string;
  /** Whose stacks the agent takes. */
  readonly acceptance: Acceptance;
  /** It is registered with the stack's generator. */
  readonly registered: boolean;
  /** It has a session. */
  readonly connected: boolean;
  /** The stack's newest generation (int8 as text) and whether that has content. */
  readonly head: string;
  readonly has_content: boolean;
  /** The stack is paused on this agent. */
  readonly paused_here: boolean;
  /** Options of the stack's head. */
  readonly stack_options: Buffer;
  /** Released to the agent, if a rule matches. */
  readonly generation: string | null;
  /** Why a release row decides on it. */
  readonly release_reason: string | null;
  /** The gate of the head holds that back. */
  readonly held: boolean;
  /** When that gate opens next. */
  readonly opens: string | null;
  /** Bytes of the message Selector. */
  readonly selector: Buffer | null;
  readonly matched: readonly MatchedRule[];
  readonly stack_labels: readonly string[];
  readonly agent_labels: readonly string[];
  /** Key to value. */
  readonly stack_annotations: Readonly<Record<string, string>>;
  readonly agent_annotations: Readonly<Record<string, string>>;
  readonly agent_capabilities: Readonly<Record<string, string>>;
  readonly kubernetes_version: string | null;
}

/** Which pairs to explain. An id that is given is explained even when deleted; an open side lists what lives. */
export interface PairFilter {
  readonly agentId: string | undefined;
  readonly stackId: string | undefined;
  /** Only stacks of this generator, and agents its stacks can reach. */
  readonly generatorId: string | undefined;
  readonly acceptance: Acceptance;
  readonly limit: number;
}

/** Pairs of stacks and agents with what decides about them, in one statement; by names of stacks, then of agents. */
export async function listPairs(
  tx: Queryable,
  { agentId, stackId, generatorId, acceptance, limit }: PairFilter,
): Promise<PairRow[]> {
  return await tx.query<PairRow>(
    `with pair as materialized (
       select a.id as agent_id, a.name as agent_name, a.status as agent_status, a.deleted_at is not null as agent_deleted,
         coalesce(a.acceptance, $4) as acceptance, s.id as stack_id, s.name as stack_name, s.deleted_at is not null as stack_deleted,
         s.generator_id, s.generation, s.options, s.selector, s.gated, s.deployment_object_id, a.capabilities, a.kubernetes_version
       from (
         select * from stack
         where ($2::uuid is null and deleted_at is null or id = $2) and ($3::uuid is null or generator_id = $3)
         order by name, id limit $5
       ) s cross join (
         select * from agent x
         where ($1::uuid is null and deleted_at is null or id = $1)
           and ($3::uuid is null or coalesce(x.acceptance, $4) = 'all'
                or exists (select from agent_generator_registration c where c.agent_id = x.id and c.generator_id = $3))
         order by name, cluster_name, id limit $5
       ) a
       order by s.name, s.id, a.name, a.cluster_name, a.id limit $5
     )
     select p.agent_id, p.agent_name, p.agent_status, p.agent_deleted, p.stack_id, p.stack_name, p.stack_deleted, g.name as generator_name,
       p.acceptance, exists
         (select from agent_generator_registration c where c.agent_id = p.agent_id and c.generator_id = p.generator_id) as registered,
       exists (select from agent_session e where e.agent_id = p.agent_id and e.connected_at is not null and e.closed_at is null
         and not exists (select from replica w where w.id = e.replica_id and w.lease_until < now())) as connected,
       p.generation as head, p.deployment_object_id is not null as has_content, p.selector,
       r.generation, r.release_reason, coalesce(r.held, false) as held,
       case when r.held then (
         select min(o.opens) from stack_generation n cross join gate_periods(n.not_before, n.windows, now()) o
         where n.stack_id = p.stack_id and n.generation = p.generation and o.opens > now()) end as opens,
       exists (select from agent_pause x where x.agent_id = p.agent_id and x.stack_id = p.stack_id) as paused_here, p.options as stack_options,
       (select coalesce(json_agg(json_build_object('method', t.method, 'detail', t.detail) order by t.method, t.detail), '[]')
          from (select distinct method, detail from targeting where agent_id = p.agent_id and stack_id = p.stack_id) t) as matched,
       array(select l.label::text from stack_label l where l.stack_id = p.stack_id order by 1) as stack_labels,
       array(select l.label::text from agent_label l where l.agent_id = p.agent_id order by 1) as agent_labels,
       (select coalesce(json_object_agg(n.key, n.value order by n.key), '{}') from stack_annotation n where n.stack_id = p.stack_id) as stack_annotations,
       (select coalesce(json_object_agg(n.key, n.value order by n.key), '{}') from agent_annotation n where n.agent_id = p.agent_id) as agent_annotations,
       p.capabilities as agent_capabilities, p.kubernetes_version
     from pair p join generator g on g.id = p.generator_id
     left join lateral (select * from released x where x.agent_id = p.agent_id and x.stack_id = p.stack_id) r on true
     order by p.stack_name, p.stack_id, p.agent_name, p.agent_id`,
    [agentId ?? null, stackId ?? null, generatorId ?? null, acceptance, limit],
  );
}
