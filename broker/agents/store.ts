import type { JsonValue } from '@bufbuild/protobuf';
import { type EntityManager, LockMode } from '@mikro-orm/postgresql';
import { BrokkrError } from '#lib/errors.ts';
import type { Page } from '../api/page.ts';
import type { Queryable } from '../database.ts';
import type { Acceptance } from '../targeting/store.ts';
import { AgentEntity } from './entities.ts';

/** An agent as read. Times are text, `timestampMs` reads them. */
export interface AgentRow {
  readonly id: string;
  readonly name: string;
  readonly cluster_name: string;
  readonly status: 'ACTIVE' | 'INACTIVE';
  /** Null: as the broker is configured. */
  readonly acceptance: Acceptance | null;
  /** When it was last heard of, by heartbeat or session. */
  readonly heard_at: string | null;
  /** How long ago that was, by the database's clock. */
  readonly heard_age_ms: number | null;
  readonly k8s_reachable: boolean | null;
  readonly k8s_api_latency_ms: number | null;
  readonly k8s_reported_at: string | null;
  readonly agent_version: string | null;
  readonly kubernetes_version: string | null;
  readonly cluster_uid: string | null;
  /** Empty in lists: it is long. */
  readonly capabilities: Readonly<Record<string, string>>;
  /** A `ClusterNetwork` as JSON; null in lists, too. */
  readonly network: JsonValue;
  /** Of its open session. */
  readonly transport: string | null;
  readonly version: number;
  readonly created_at: string;
  readonly updated_at: string;
  readonly deleted_at: string | null;
}

const selectAgent = (capabilities: string, network: string) => `select a.id, a.name, a.cluster_name, a.status, a.acceptance,
    greatest(a.last_heartbeat, s.last_seen_at) as heard_at,
    (extract(epoch from now() - greatest(a.last_heartbeat, s.last_seen_at)) * 1000)::float8 as heard_age_ms,
    a.k8s_reachable, a.k8s_api_latency_ms, a.k8s_reported_at, a.agent_version, a.kubernetes_version, a.cluster_uid, ${capabilities} as capabilities,
    ${network} as network,
    case when s.closed_at is null then s.transport end as transport,
    a.version, a.created_at, a.updated_at, a.deleted_at
  from agent a left join agent_session s on s.agent_id = a.id`;

const SELECT_AGENT = selectAgent('a.capabilities', 'a.network');
const LIST_AGENTS = selectAgent(`'{}'::jsonb`, 'null::jsonb');

/** A live agent. */
export async function findAgent(tx: Queryable, id: string): Promise<AgentRow | undefined> {
  const rows = await tx.query<AgentRow>(`${SELECT_AGENT} where a.id = $1 and a.deleted_at is null`, [id]);
  return rows[0];
}

/** A live agent. Throws `agent_not_found`. */
export async function getAgent(tx: Queryable, id: string): Promise<AgentRow> {
  const row = await findAgent(tx, id);
  if (!row) throw new BrokkrError('agent_not_found', `no agent ${id}`, { details: { agent_id: id } });
  return row;
}

/** Throws `agent_not_found` unless there is a live agent. */
export async function assertAgent(tx: Queryable, id: string): Promise<void> {
  const rows = await tx.query('select from agent where id = $1 and deleted_at is null', [id]);
  if (rows.length === 0) throw new BrokkrError('agent_not_found', `no agent ${id}`, { details: { agent_id: id } });
}

/** The live agent with this name in this cluster; there is one at most. */
export async function findAgentByName(tx: Queryable, name: string, clusterName: string): Promise<AgentRow | undefined> {
  const rows = await tx.query<AgentRow>(`${SELECT_AGENT} where a.name = $1 and a.cluster_name = $2 and a.deleted_at is null`, [
    name,
    clusterName,
  ]);
  return rows[0];
}

/** What a list of agents is narrowed to. */
export interface AgentFilter {
  /** Only agents with this label. */
  readonly label: string | undefined;
  /** Only agents that this generator's stacks can reach. */
  readonly generatorId: string | undefined;
  /** Of agents that do not say so themselves. */
  readonly acceptance: Acceptance;
}

/** Live agents, newest first. */
export async function listAgents(tx: Queryable, filter: AgentFilter, { fetch, after }: Page): Promise<AgentRow[]> {
  return await tx.query<AgentRow>(
    `${LIST_AGENTS}
     where a.deleted_at is null
       and ($2::timestamptz is null or (a.created_at, a.id) < ($2, $3::uuid))
       and ($4::text is null or exists (select from agent_label l where l.agent_id = a.id and l.label = $4))
       and ($5::uuid is null or coalesce(a.acceptance, $6) = 'all'
            or exists (select from agent_generator_registration c where c.agent_id = a.id and c.generator_id = $5))
     order by a.created_at desc, a.id desc limit $1`,
    [fetch, after?.createdAt ?? null, after?.id ?? null, filter.label ?? null, filter.generatorId ?? null, filter.acceptance],
  );
}

/** The agent for editing, locked until the transaction ends so that editors queue instead of failing. */
export async function editAgent(em: EntityManager, id: string) {
  return await em.findOne(AgentEntity, { id, deletedAt: null }, { lockMode: LockMode.PESSIMISTIC_WRITE });
}

/** Marks the agent deleted. Lock it first (`editAgent`). */
export async function softDeleteAgent(tx: Queryable, id: string): Promise<void> {
  await tx.query('update agent set deleted_at = now(), updated_at = now(), version = version + 1 where id = $1', [id]);
}

/** A label of an agent. */
export interface AgentLabelRow {
  readonly id: string;
  readonly agent_id: string;
  readonly label: string;
}

/** Labels of an agent, in order of their text; 1,000 at most. */
export async function listLabels(tx: Queryable, agentId: string): Promise<AgentLabelRow[]> {
  return await tx.query<AgentLabelRow>(
    'select id, agent_id, label from agent_label where agent_id = $1 order by label limit 1000',
    [agentId],
  );
}

/** Adds labels. A label that is there already is a `unique_violation`. */
export async function insertLabels(tx: Queryable, agentId: string, labels: readonly string[]): Promise<AgentLabelRow[]> {
  return await tx.query<AgentLabelRow>(
    'insert into agent_label (agent_id, label) select $1, label from unnest($2::text[]) label returning id, agent_id, label',
    [agentId, labels],
  );
}

/** Removes a label; false when it was not there. */
export async function deleteLabel(tx: Queryable, agentId: string, label: string): Promise<boolean> {
  const rows = await tx.query('delete from agent_label where agent_id = $1 and label = $2 returning id', [agentId, label]);
  return rows.length > 0;
}

/** An annotation of an agent. */
export interface AgentAnnotationRow {
  readonly id: string;
  readonly agent_id: string;
  readonly key: string;
  readonly value: string;
}

/** Annotations of an agent, in order of their keys; 1,000 at most. */
export async function listAnnotations(tx: Queryable, agentId: string): Promise<AgentAnnotationRow[]> {
  return await tx.query<AgentAnnotationRow>(
    'select id, agent_id, key, value from agent_annotation where agent_id = $1 order by key limit 1000',
    [agentId],
  );
}

/** Adds annotations. A key that is there already is a `unique_violation`. */
export async function insertAnnotations(
  tx: Queryable,
  agentId: string,
  pairs: readonly (readonly [key: string, value: string])[],
): Promise<AgentAnnotationRow[]> {
  return await tx.query<AgentAnnotationRow>(
    `insert into agent_annotation (agent_id, key, value)
     select $1, key, value from unnest($2::text[], $3::text[]) pair (key, value) returning id, agent_id, key, value`,
    [agentId, pairs.map(([key]) => key), pairs.map(([, value]) => value)],
  );
}

/** Removes an annotation; false when it was not there. */
export async function deleteAnnotation(tx: Queryable, agentId: string, key: string): Promise<boolean> {
  const rows = await tx.query('delete from agent_annotation where agent_id = $1 and key = $2 returning id', [agentId, key]);
  return rows.length > 0;
}
