import type { Clock } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import type { Hello } from '#proto/brokkr/v1/sync_pb.js';
import type { Principal } from '../api/principal.ts';
import { insertAudit } from '../api/store.ts';
import type { Database } from '../database.ts';
import { assertIdentity } from './identity.ts';
import {
  type AgentRow,
  beginSession,
  findAgents,
  forkHistory,
  knowsPosition,
  lockSession,
  networkText,
  readBrokerState,
} from './store.ts';

/** Versions of the protocol this broker speaks. */
const PROTOCOL_VERSIONS = [1];
/** Sessions that may open at once are those of this many seconds. */
const BURST_SECONDS = 5;
/** Over which time agents that were turned away come back. */
const RETRY_SPREAD_MS = 10_000;

/** A token bucket before any work: a fleet that comes back at once is let in at a rate the database stands. */
export class Admission {
  readonly #perSecond: number;
  readonly #clock: Clock;
  readonly #random: () => number;
  #tokens: number;
  #atMs: number;

  constructor(perSecond: number, { clock, random }: { readonly clock: Clock; readonly random: () => number }) {
    this.#perSecond = perSecond;
    this.#clock = clock;
    this.#random = random;
    this.#tokens = perSecond * BURST_SECONDS;
    this.#atMs = clock.monotonic();
  }

  /** Takes a token, or throws `too_many_requests` with `details.retry_after_ms`. */
  admit(): void {
    const now = this.#clock.monotonic();
    const gained = ((now - this.#atMs) / 1000) * this.#perSecond;
    this.#tokens = Math.min(this.#perSecond * BURST_SECONDS, this.#tokens + gained);
    this.#atMs = now;
    if (this.#tokens < 1) {
      const retryAfterMs = Math.ceil(1000 / this.#perSecond + this.#random() * RETRY_SPREAD_MS);
      throw new BrokkrError('too_many_requests', 'too many agents connect at once', {
        details: { retry_after_ms: retryAfterMs },
      });
    }
    this.#tokens--;
  }
}

/** The highest version both sides speak. Throws `unsupported_version`. */
export function commonVersion(hello: Hello): number {
  const version = PROTOCOL_VERSIONS.find((item) => hello.versions.includes(item));
  if (version !== undefined) return version;
  const [theirs, ours] = [hello.versions.join(', '), PROTOCOL_VERSIONS.join(', ')];
  throw new BrokkrError('unsupported_version', `the agent speaks versions ${theirs}, this broker ${ours}`);
}

/** The agent behind the key, if it may have a session. Throws `unauthorized`, `agent_inactive`. */
export async function activeAgent(db: Database, agentId: string): Promise<AgentRow> {
  const [agent] = await findAgents(db, [agentId]);
  if (!agent || agent.deleted) throw new BrokkrError('unauthorized', 'the agent was deleted');
  if (agent.status !== 'ACTIVE') {
    throw new BrokkrError('agent_inactive', `agent ${agent.name} is INACTIVE: it keeps what it has and writes nothing`);
  }
  return agent;
}

/**
 * One transaction under the agent's session row: the identity rules, then the next epoch, which it returns. Throws
 * `duplicate_identity` (audited), `superseded`.
 */
export async function beginEpoch(
  db: Database,
  principal: Principal & { readonly kind: 'agent' },
  hello: Hello,
  { transport, replicaId }: { readonly transport: 'stream' | 'poll'; readonly replicaId: string },
): Promise<bigint> {
  const { agentId, keyId } = principal;
  const result = await db.transaction(async (tx) => {
    const verdict = assertIdentity(await lockSession(tx, agentId), hello);
    if (verdict.kind === 'refused') {
      const details = { cluster_uid: hello.clusterUid };
      const entry = { principal, action: 'agent.duplicate_identity', resourceType: 'agent', resourceId: agentId, details };
      if (verdict.audit) await insertAudit(tx, [entry]);
      return verdict.error; // returned, so that the audit row is committed
    }
    const { installId, clusterUid, processId, agentVersion, facts } = hello;
    const [kubernetesVersion, capabilities] = [facts?.kubernetesVersion ?? '', facts?.capabilities ?? {}];
    const { superseded } = verdict;
    const network = networkText(facts?.network);
    const process = { installId, clusterUid, processId, superseded, agentVersion, kubernetesVersion, capabilities, network };
    return await beginSession(tx, { agentId, keyId, replicaId, transport, ...process });
  });
  if (result instanceof BrokkrError) throw result;
  return result;
}

/**
 * True when the agent knows a position of our incarnation that we do not: the database was restored to an older copy.
 * A new incarnation has begun then, under which nothing is deleted until an admin confirms.
 */
export async function detectRestore(db: Database, hello: Hello): Promise<boolean> {
  const { revision, incarnation = '' } = hello.resume ?? {};
  if (!revision || incarnation === '' || revision.xid === 0n) return false;
  const state = await readBrokerState(db);
  if (incarnation !== state.incarnation || (await knowsPosition(db, revision))) return false;
  await db.transaction((tx) => forkHistory(tx, incarnation));
  return true;
}
