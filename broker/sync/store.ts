import { toJsonString } from '@bufbuild/protobuf';
import { type ClusterNetwork, ClusterNetworkSchema } from '#proto/brokkr/v1/network_pb.js';
import type { AgentFacts } from '#proto/brokkr/v1/sync_pb.js';
import type { Database, Queryable } from '../database.ts';

/** A position in the change log. */
export interface Position {
  readonly xid: bigint;
  readonly seq: bigint;
  /** Random value of the row, unsigned 64 bits. */
  readonly nonce: bigint;
}

/** A row of the change log. */
export interface ChangeRow extends Position {
  readonly kind: 'stack' | 'agent' | 'key' | 'broker';
  readonly stackId: string | undefined;
  readonly agentId: string | undefined;
}

interface RawChange {
  readonly xid: string;
  readonly seq: string;
  readonly nonce: string;
  readonly kind: ChangeRow['kind'];
  readonly stack_id: string | null;
  readonly agent_id: string | null;
}

const position = (row: { readonly xid: string; readonly seq: string; readonly nonce: string }): Position => ({
  xid: BigInt(row.xid),
  seq: BigInt(row.seq),
  nonce: BigInt.asUintN(64, BigInt(row.nonce)),
});

/** The newest committed position that nothing can slip in before. */
export async function readPosition(tx: Queryable): Promise<Position> {
  const [row] = await tx.query<RawChange>(
    `select xid::text, seq, nonce from change_log where xid < pg_snapshot_xmin(pg_current_snapshot()) order by xid desc, seq desc limit 1`,
  );
  return row ? position(row) : { xid: 0n, seq: 0n, nonce: 0n };
}

/** Rows after `after`, only below the oldest transaction still running, in order of (xid, seq). */
export async function readChanges(tx: Queryable, after: Position, limit: number): Promise<ChangeRow[]> {
  const rows = await tx.query<RawChange>(
    `select xid::text, seq, nonce, kind, stack_id, agent_id from change_log
     where (xid, seq) > ($1::text::xid8, $2::bigint) and xid < pg_snapshot_xmin(pg_current_snapshot())
     order by xid, seq limit $3`,
    [after.xid.toString(), after.seq.toString(), limit],
  );
  return rows.map((row) => ({
    ...position(row),
    kind: row.kind,
    stackId: row.stack_id ?? undefined,
    agentId: row.agent_id ?? undefined,
  }));
}

/** True when this very row is in the change log: the same history. */
export async function knowsPosition(tx: Queryable, { xid, seq, nonce }: Position): Promise<boolean> {
  const rows = await tx.query('select from change_log where xid = $1::text::xid8 and seq = $2 and nonce = $3', [
    xid.toString(),
    seq.toString(),
    BigInt.asIntN(64, nonce).toString(),
  ]);
  return rows.length > 0;
}

/** The history of the database. */
export interface BrokerState {
  readonly incarnation: string;
  readonly deletionsHeld: boolean;
}

/** Reads the history. */
export async function readBrokerState(tx: Queryable): Promise<BrokerState> {
  const [row] = await tx.query<{ incarnation: string; held: boolean }>(
    'select incarnation, deletions_held_since is not null as held from broker_state',
  );
  if (!row) throw new Error('broker_state is empty');
  return { incarnation: row.incarnation, deletionsHeld: row.held };
}

/** Starts another incarnation and holds deletions, unless somebody else did so before. */
export async function forkHistory(tx: Queryable, incarnation: string): Promise<void> {
  await tx.query(`update broker_state set incarnation = gen_random_uuid(), deletions_held_since = now() where incarnation = $1`, [
    incarnation,
  ]);
  await tx.query(`insert into change_log (kind) values ('broker')`);
}

/** Trusts the history again; returns its incarnation, or undefined when another one than the named is current. */
export async function confirmHistory(tx: Queryable, incarnation: string | undefined): Promise<string | undefined> {
  const rows = await tx.query<{ incarnation: string }>(
    `update broker_state set deletions_held_since = null where $1::uuid is null or incarnation = $1 returning incarnation`,
    [incarnation ?? null],
  );
  return rows[0]?.incarnation;
}

/** An agent as a session needs it. */
export interface AgentRow {
  readonly id: string;
  readonly name: string;
  readonly status: 'ACTIVE' | 'INACTIVE';
  readonly deleted: boolean;
}

/** Agents by id, deleted ones included. */
export async function findAgents(tx: Queryable, ids: readonly string[]): Promise<AgentRow[]> {
  return await tx.query<AgentRow>(`select id, name, status, deleted_at is not null as deleted from agent where id = any($1)`, [
    ids,
  ]);
}

/** Keys among `ids` that no longer work. */
export async function deadKeys(tx: Queryable, ids: readonly string[]): Promise<string[]> {
  const rows = await tx.query<{ id: string }>(
    `select u.id from unnest($1::uuid[]) u(id)
     where not exists (select from api_key k where k.id = u.id and k.revoked_at is null and (k.expires_at is null or k.expires_at > now()))`,
    [ids],
  );
  return rows.map((row) => row.id);
}

/** The last session of an agent. */
export interface SessionRow {
  readonly epoch: string;
  readonly cluster_uid: string | null;
  readonly process_id: string | null;
  readonly superseded: string[];
  /** Milliseconds since it was last heard of. */
  readonly idle_ms: number | null;
  readonly live: boolean;
}

/** Reads and locks the agent's session row until the transaction ends; undefined before the first session. */
export async function lockSession(tx: Queryable, agentId: string): Promise<SessionRow | undefined> {
  await tx.query(`insert into agent_session (agent_id, epoch, closed_at) values ($1, 0, now()) on conflict do nothing`, [
    agentId,
  ]);
  const [row] = await tx.query<SessionRow>(
    `select epoch, cluster_uid, process_id, superseded, closed_at is null as live,
       (extract(epoch from now() - last_seen_at) * 1000)::float8 as idle_ms
     from agent_session where agent_id = $1 for update`,
    [agentId],
  );
  return row?.cluster_uid === null ? undefined : row;
}

/** A session about to begin. */
export interface NewSession {
  readonly agentId: string;
  readonly replicaId: string;
  readonly installId: string;
  readonly clusterUid: string;
  readonly processId: string;
  readonly superseded: readonly string[];
  readonly transport: 'stream' | 'poll';
  readonly keyId: string;
  readonly agentVersion: string;
  readonly kubernetesVersion: string;
  readonly capabilities: Readonly<Record<string, string>>;
  /** See `networkText`. */
  readonly network: string | null;
}

/** Begins a session under the next epoch, which it returns. Call under `lockSession`. */
export async function beginSession(tx: Queryable, session: NewSession): Promise<bigint> {
  const [row] = await tx.query<{ epoch: string }>(
    `update agent_session set epoch = epoch + 1, replica_id = $2, install_id = $3, cluster_uid = $4, process_id = $5, superseded = $6,
       transport = $7, key_id = $8, connected_at = now(), last_seen_at = now(), closed_at = null
     where agent_id = $1 returning epoch`,
    [
      session.agentId,
      session.replicaId,
      session.installId,
      session.clusterUid,
      session.processId,
      session.superseded,
      session.transport,
      session.keyId,
    ],
  );
  await tx.query(
    `update agent set last_heartbeat = now(), cluster_uid = $2, cluster_seen_at = now(), agent_version = $3, kubernetes_version = $4, capabilities = $5,
       network = coalesce($6::jsonb, network) where id = $1`,
    [
      session.agentId,
      session.clusterUid,
      session.agentVersion,
      session.kubernetesVersion,
      JSON.stringify(session.capabilities),
      session.network,
    ],
  );
  if (!row) throw new Error('no session row to begin');
  return BigInt(row.epoch);
}

/** Stores what an agent learnt of its cluster during a session and tells the change log; false when nothing differs, or the epoch is over. */
export async function updateFacts(
  tx: Queryable,
  { agentId, epoch }: { readonly agentId: string; readonly epoch: bigint },
  { kubernetesVersion, capabilities, network }: AgentFacts,
): Promise<boolean> {
  const rows = await tx.query(
    `with changed as (
       update agent a set kubernetes_version = $3, capabilities = $4, network = coalesce($5::jsonb, network) from agent_session s
       where a.id = $1 and s.agent_id = a.id and s.epoch = $2
         and (a.kubernetes_version, a.capabilities, a.network) is distinct from ($3, $4::jsonb, coalesce($5::jsonb, a.network))
       returning a.id
     )
     insert into change_log (kind, agent_id) select 'agent', id from changed returning seq`,
    [agentId, epoch.toString(), kubernetesVersion, JSON.stringify(capabilities), networkText(network)],
  );
  return rows.length > 0;
}

/** The network of a cluster as it is stored; null when the agent has not told it. */
export function networkText(network: ClusterNetwork | undefined): string | null {
  return network ? toJsonString(ClusterNetworkSchema, network) : null;
}

/** Marks sessions as over, unless a newer epoch has begun. */
export async function endSessions(
  tx: Queryable,
  sessions: readonly { readonly agentId: string; readonly epoch: bigint }[],
): Promise<void> {
  await tx.query(
    `update agent_session s set closed_at = now(), last_seen_at = now() from unnest($1::uuid[], $2::bigint[]) u(agent_id, epoch)
     where s.agent_id = u.agent_id and s.epoch = u.epoch and s.closed_at is null`,
    [sessions.map((s) => s.agentId), sessions.map((s) => s.epoch.toString())],
  );
}

/** What a heartbeat said. */
export interface Heartbeat {
  readonly agentId: string;
  readonly epoch: bigint;
  readonly reachable: boolean | undefined;
  readonly latencyMs: number | undefined;
}

/** Notes that agents are alive, in one statement; returns those whose epoch is still the current one. */
export async function touchSessions(tx: Queryable, beats: readonly Heartbeat[]): Promise<Set<string>> {
  const rows = await tx.query<{ agent_id: string }>(
    `with beat as (
       select * from unnest($1::uuid[], $2::bigint[], $3::boolean[], $4::integer[]) u(agent_id, epoch, reachable, latency)
     ), alive as (
       update agent_session s set last_seen_at = now() from beat b where s.agent_id = b.agent_id and s.epoch = b.epoch returning s.agent_id
     )
     update agent a set last_heartbeat = now(),
       k8s_reachable = coalesce(b.reachable, a.k8s_reachable), k8s_api_latency_ms = coalesce(b.latency, a.k8s_api_latency_ms),
       k8s_reported_at = case when b.reachable is null then a.k8s_reported_at else now() end
     from alive join beat b using (agent_id) where a.id = alive.agent_id returning a.id as agent_id`,
    [
      beats.map((b) => b.agentId),
      beats.map((b) => b.epoch.toString()),
      beats.map((b) => b.reachable ?? null),
      beats.map((b) => b.latencyMs ?? null),
    ],
  );
  return new Set(rows.map((row) => row.agent_id));
}

/** Highest event number stored of the agent's run. */
export async function readEventCursor(tx: Queryable, agentId: string, bootId: string): Promise<bigint> {
  const [row] = await tx.query<{ through_seq: string }>(
    'select through_seq from event_cursor where agent_id = $1 and boot_id = $2',
    [agentId, bootId],
  );
  return BigInt(row?.through_seq ?? 0);
}

/** Renews the lease of this replica. */
export async function renewReplica(db: Database, id: string, version: string, leaseMs: number): Promise<void> {
  await db.query(
    `insert into replica (id, version, lease_until) values ($1, $2, now() + make_interval(secs => $3))
     on conflict (id) do update set lease_until = excluded.lease_until`,
    [id, version, leaseMs / 1000],
  );
}
