import type { Database } from '../database.ts';
import { pausedOptions } from '../stacks/options.ts';
import { type Acceptance, type AssignedRow, type HeldRow, listReached } from '../targeting/store.ts';
import {
  type DeliveryRow,
  insertEntries,
  listDeliveries,
  type Pair,
  type TombstoneRow,
  writeTombstones,
} from './delivery-store.ts';
import type { AgentSession } from './session.ts';
import { type Position, readPosition } from './store.ts';
import type { Desired } from './target-state.ts';

/** What an agent was told of a stack; held: nothing in this session, and perhaps something in one before. */
type Told = Pick<DeliveryRow, 'agent_id' | 'stack_id'> & { readonly desired: DeliveryRow['desired'] | 'held' };
/** Sessions by agent. */
type Sessions = ReadonlyMap<string, AgentSession>;

/**
 * Reads the whole target state of new sessions in one snapshot, together with the position it stands for. Delivery rows
 * are written before anything is sent: a stack that was ever told to an agent can only leave it by a tombstone.
 */
export async function loadTargets(db: Database, sessions: readonly AgentSession[], acceptance: Acceptance): Promise<Position> {
  const byAgent = new Map(sessions.map((session) => [session.options.agentId, session]));
  const agentIds = [...byAgent.keys()];
  const { position, reached, deliveries } = await db.transaction(
    async (tx) => ({
      position: await readPosition(tx),
      reached: await listReached(tx, { agentIds, acceptance, withheld: true }),
      deliveries: await listDeliveries(tx, agentIds),
    }),
    { isolation: 'repeatable read', readOnly: true },
  );
  for (const row of deliveries) {
    if (row.received_manifest_digest) byAgent.get(row.agent_id)?.received(row.stack_id, row.received_manifest_digest);
  }
  await settle(db, byAgent, reached, deliveries, { send: false });
  return position;
}

/**
 * Brings the sessions up to date with changed stacks and agents: one statement finds who is assigned what now; the
 * difference to what each session holds becomes entries and tombstones.
 */
export async function refreshTargets(
  db: Database,
  sessions: Sessions,
  { stackIds, agentIds }: { readonly stackIds: readonly string[]; readonly agentIds: readonly string[] },
  acceptance: Acceptance,
  position: Position,
): Promise<void> {
  if (stackIds.length > 0)
    await refresh(db, sessions, { stackIds, agentIds: sessions.size > 100 ? undefined : [...sessions.keys()] }, acceptance);
  const connected = agentIds.filter((id) => sessions.has(id));
  if (connected.length > 0) await refresh(db, sessions, { stackIds: undefined, agentIds: connected }, acceptance);
  for (const session of sessions.values()) session.advance(position);
}

async function refresh(
  db: Database,
  sessions: Sessions,
  scope: { readonly stackIds: readonly string[] | undefined; readonly agentIds: readonly string[] | undefined },
  acceptance: Acceptance,
): Promise<void> {
  const reached = (await listReached(db, { ...scope, acceptance, withheld: true })).filter((row) => sessions.has(row.agent_id));
  const told: Told[] = [];
  for (const agentId of scope.agentIds ?? sessions.keys()) {
    const session = sessions.get(agentId);
    for (const stackId of scope.stackIds ?? session?.target.known() ?? []) {
      const desired = session?.target.get(stackId)?.kind ?? (session?.target.isHeld(stackId) ? 'held' : undefined);
      if (desired) told.push({ agent_id: agentId, stack_id: stackId, desired });
    }
  }
  await settle(db, sessions, reached, told, { send: true });
}

/**
 * Writes what is new to the delivery table, then tells the sessions. `reached` includes what is withheld, from agents that
 * were just set INACTIVE or deleted (their sessions end) and by gates: nothing of it may become a tombstone.
 */
async function settle(
  db: Database,
  sessions: Sessions,
  reached: readonly (AssignedRow | HeldRow)[],
  told: readonly Told[],
  { send }: { readonly send: boolean },
): Promise<void> {
  const key = (agentId: string, stackId: string) => `${agentId}/${stackId}`;
  const toldKinds = new Map(told.map((row) => [key(row.agent_id, row.stack_id), row.desired]));
  const assigned = reached.filter((row) => row.generation !== null);
  const wanted = new Set(assigned.map((row) => key(row.agent_id, row.stack_id)));
  const kept = new Set(reached.map((row) => key(row.agent_id, row.stack_id)));
  const fresh = assigned.filter((row) => toldKinds.get(key(row.agent_id, row.stack_id)) !== 'entry');
  const leaving: Pair[] = told
    .filter((row) => {
      const pair = key(row.agent_id, row.stack_id);
      return !wanted.has(pair) && (row.desired === 'tombstone' || !kept.has(pair)); // a removal goes on behind a gate
    })
    .map((row) => ({ agentId: row.agent_id, stackId: row.stack_id }));
  if (fresh.length > 0)
    await insertEntries(
      db,
      fresh.map((row) => ({ agentId: row.agent_id, stackId: row.stack_id, generation: BigInt(row.generation) })),
    );
  const tombstones = leaving.length > 0 ? await writeTombstones(db, leaving) : [];
  for (const row of reached) {
    const session = sessions.get(row.agent_id);
    session?.hold(row.stack_id, row.held);
    if (row.generation !== null) session?.want(row.stack_id, entryOf(row), { send });
  }
  for (const row of tombstones) sessions.get(row.agent_id)?.want(row.stack_id, tombstoneOf(row), { send });
}

function entryOf(row: AssignedRow): Desired {
  return {
    kind: 'entry',
    generation: BigInt(row.generation),
    manifestDigest: row.manifest_digest,
    optionsDigest: row.paused_options === null ? row.options_digest : pausedOptions(row.paused_options).digest,
    paused: row.paused_options !== null,
  };
}

function tombstoneOf(row: TombstoneRow): Desired {
  return {
    kind: 'tombstone',
    generation: BigInt(row.generation),
    stackName: row.stack_name,
    policy: row.policy,
    approved: row.approved,
    traceparent: row.traceparent ?? '',
  };
}
