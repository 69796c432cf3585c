import type { HeldEntry } from '#proto/brokkr/v1/sync_pb.js';
import type { Database } from '../database.ts';
import type { Acceptance } from '../targeting/store.ts';
import { noteReceived } from './delivery-store.ts';
import type { AgentSession } from './session.ts';
import type { Position } from './store.ts';
import { loadTargets, refreshTargets } from './targets.ts';

/** Sessions whose target state is read in one go. */
const MAX_LOADS = 500;

/**
 * Brings sessions and database together. Loads and refreshes take turns: a load reads a snapshot, and a refresh that
 * overtook it would be undone by it. Loads that wait for their turn go together, so that a thousand agents coming back
 * are a handful of statements.
 */
export class TargetLoader {
  readonly #db: Database;
  readonly #acceptance: Acceptance;
  readonly #loads: { readonly session: AgentSession; readonly settled: PromiseWithResolvers<Position> }[] = [];
  #turn: Promise<unknown> = Promise.resolve();

  constructor(db: Database, acceptance: Acceptance) {
    this.#db = db;
    this.#acceptance = acceptance;
  }

  /** Reads the whole target state of a new session; resolves with the position it stands for. */
  async load(session: AgentSession): Promise<Position> {
    const settled = Promise.withResolvers<Position>();
    this.#loads.push({ session, settled });
    void this.#inTurn(() => this.#loadBatch());
    return await settled.promise;
  }

  /** Looks again at changed stacks and agents for all sessions. */
  async refresh(
    sessions: ReadonlyMap<string, AgentSession>,
    changed: { readonly stackIds: readonly string[]; readonly agentIds: readonly string[] },
    position: Position,
  ): Promise<void> {
    await this.#inTurn(() => refreshTargets(this.#db, sessions, changed, this.#acceptance, position));
  }

  /** The agent holds newer generations than its gates leave: it received them while they were open, so they are its own. */
  async adopt(session: AgentSession, entries: readonly HeldEntry[]): Promise<void> {
    const { agentId, epoch } = session.options;
    await noteReceived(this.#db, { agentId, epoch }, entries);
    await this.refresh(new Map([[agentId, session]]), { stackIds: [], agentIds: [agentId] }, session.position);
  }

  async #loadBatch(): Promise<void> {
    const batch = this.#loads.splice(0, MAX_LOADS);
    if (batch.length === 0) return; // went with the batch before
    const sessions = batch.map((load) => load.session);
    try {
      const position = await loadTargets(this.#db, sessions, this.#acceptance);
      for (const load of batch) load.settled.resolve(position);
    } catch (error) {
      for (const load of batch) load.settled.reject(error);
    }
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}
