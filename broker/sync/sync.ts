import { randomBytes, timingSafeEqual } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import type { Clock } from '#lib/clock.ts';
import { BrokkrError, errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Task } from '#lib/run.ts';
import { Phase } from '#proto/brokkr/v1/content_pb.js';
import {
  type AgentFacts,
  type AgentMessage,
  type Hello,
  NackCode,
  type Ping,
  type Revision,
  RevisionSchema,
  type SessionConfig,
  SessionConfigSchema,
  type StackStatus,
  type WebhookTurn,
} from '#proto/brokkr/v1/sync_pb.js';
import type { Principal } from '../api/principal.ts';
import type { Database } from '../database.ts';
import type { BrokerMetrics } from '../metrics.ts';
import type { BlobStore } from '../stacks/blobs.ts';
import type { Acceptance } from '../targeting/store.ts';
import { farewell } from './farewells.ts';
import type { ChangeFeed } from './feed.ts';
import { assertFrame, assertHello } from './frame-rules.ts';
import { Heads } from './heads.ts';
import type { Ingest } from './ingest.ts';
import { Liveness } from './liveness.ts';
import { Admission, activeAgent, beginEpoch, commonVersion, detectRestore } from './opening.ts';
import type { Questions } from './questions.ts';
import { AgentSession } from './session.ts';
import {
  type BrokerState,
  type ChangeRow,
  deadKeys,
  endSessions,
  findAgents,
  type Position,
  readBrokerState,
  readEventCursor,
  renewReplica,
  touchSessions,
  updateFacts,
} from './store.ts';
import { TargetLoader } from './target-loader.ts';

/** Settings of the sync side. */
export interface SyncOptions {
  readonly replicaId: string;
  readonly version: string;
  readonly acceptance: Acceptance;
  readonly heartbeatIntervalMs: number;
  readonly healthIntervalMs: number;
  readonly pollHoldMs: number;
  readonly maxFrameBytes: number;
  readonly windowFrames: number;
  /** A stream is asked to renew itself at this age (± 20 %). */
  readonly streamAgeMs: number;
  /** Sessions opened per second, with a burst of five seconds. */
  readonly hellosPerSecond: number;
  /** Over which time agents come back after a drain. */
  readonly drainWindowMs: number;
}

/** What the sync side needs. */
export interface SyncDeps {
  readonly db: Database;
  readonly blobs: BlobStore;
  readonly feed: ChangeFeed;
  readonly ingest: Ingest;
  readonly questions: Questions;
  /** Takes a turn of an agent that sends webhooks. Never rejects. */
  readonly webhookTurn: (session: AgentSession, turn: WebhookTurn) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
  /** Called when keys or identities changed. */
  readonly forgetKeys: () => void;
  readonly metrics: Pick<BrokerMetrics, 'sessionsOpened' | 'sessionsRefused' | 'digestMismatches' | 'refusedFrames'>;
}

const TICK_MS = 15_000;
const REPLICA_LEASE_MS = 45_000;

/** All sessions of this replica: opens them, keeps their target state current, ends them. */
export class Sync implements Task {
  readonly name = 'sync';
  readonly options: SyncOptions;
  readonly #deps: SyncDeps;
  readonly heads: Heads;
  readonly #sessions = new Map<string, AgentSession>();
  readonly #liveness: Liveness;
  #state: BrokerState | undefined;
  readonly #admission: Admission;
  readonly #targets: TargetLoader;
  #draining = false;

  constructor(deps: SyncDeps, options: SyncOptions) {
    this.#deps = deps;
    this.options = options;
    this.heads = new Heads(deps);
    this.#liveness = new Liveness(deps, options);
    this.#admission = new Admission(options.hellosPerSecond, deps);
    this.#targets = new TargetLoader(deps.db, options.acceptance);
    deps.feed.subscribe((changes) => this.#onChanges(changes));
  }

  /** Sessions of this replica. */
  sessions(): readonly AgentSession[] {
    return [...this.#sessions.values()];
  }

  /** The agent's session, when it is on this replica, open and not over. */
  session(agentId: string): AgentSession | undefined {
    const session = this.#sessions.get(agentId);
    return session?.isOpen && !session.signal.aborted ? session : undefined;
  }

  /** The agent's session with this token and epoch. Throws `session_unknown`. */
  find(agentId: string, token: string, epoch: bigint): AgentSession {
    const session = this.session(agentId);
    if (!session || session.options.epoch !== epoch || !sameToken(session.options.token, token)) {
      throw new BrokkrError('session_unknown', 'the session is over or was opened elsewhere: say hello again');
    }
    return session;
  }

  /**
   * Opens a session for the agent behind the key; an older session of the same agent on this replica is told that it is
   * superseded. Throws `too_many_requests`, `unsupported_version`, `agent_inactive`, `duplicate_identity`, `superseded`,
   * `draining`.
   */
  async open(principal: Principal, hello: Hello, transport: 'stream' | 'poll'): Promise<AgentSession> {
    const { metrics } = this.#deps;
    try {
      const session = await this.#open(principal, hello, transport);
      metrics.sessionsOpened.inc({ transport });
      return session;
    } catch (error) {
      metrics.sessionsRefused.inc({ code: error instanceof BrokkrError ? error.code : 'internal_error' });
      throw error;
    }
  }

  async #open(principal: Principal, hello: Hello, transport: 'stream' | 'poll'): Promise<AgentSession> {
    if (principal.kind !== 'agent') throw new BrokkrError('agent_pak_required', 'sessions are for agent keys');
    if (this.#draining) throw new BrokkrError('draining', 'the broker is stopping');
    this.#admission.admit();
    assertHello(hello);
    const version = commonVersion(hello);
    const { db, clock, log } = this.#deps;
    const agent = await activeAgent(db, principal.agentId);
    const epoch = await beginEpoch(db, principal, hello, { transport, replicaId: this.options.replicaId });
    if (await detectRestore(db, hello)) this.#restored(hello);
    const session = new AgentSession(this.heads, {
      agentId: agent.id,
      agentName: agent.name,
      keyId: principal.keyId,
      epoch,
      token: randomBytes(24).toString('base64url'),
      transport,
      processId: hello.processId,
      connectedAtMs: clock.now(),
      windowFrames: this.options.windowFrames,
    });
    await this.#deps.feed.begin(); // before the snapshot below
    this.#register(session);
    try {
      const position = await this.#targets.load(session);
      await this.#welcome(session, hello, version, position);
    } catch (error) {
      this.close(session, 'could not be opened');
      throw error;
    }
    log.info({ agent: agent.name, epoch: Number(epoch), transport, entries: session.target.size }, 'session opened');
    return session;
  }

  /** Takes a frame of the agent. Throws `protocol_violation`. */
  async receive(session: AgentSession, message: AgentMessage): Promise<void> {
    assertFrame(message);
    this.seen(session);
    session.took(message);
    const { ingest } = this.#deps;
    const reporter = { agentId: session.options.agentId, epoch: session.options.epoch };
    const { body } = message;
    switch (body.case) {
      case 'ping':
        await this.#onPing(session, body.value);
        return;
      case 'status':
        this.#onStatus(session, body.value.items);
        ingest.status(reporter, body.value.items);
        return;
      case 'events': {
        const { bootId, events } = body.value;
        const through = await ingest.events(reporter, bootId, events);
        if (through === undefined) session.leave(farewell('outdated'));
        else session.push({ case: 'eventsAck', value: { bootId, through } });
        return;
      }
      case 'health':
        ingest.health(reporter, body.value.items);
        return;
      case 'bucketEntries': {
        const ahead = session.buckets(body.value);
        if (ahead.length > 0) await this.#targets.adopt(session, ahead);
        return;
      }
      case 'nack':
        this.#deps.log.warn(
          { agent: session.options.agentName, stack: body.value.stackId, code: body.value.code, detail: body.value.detail },
          'agent did not take a frame',
        );
        this.#deps.metrics.refusedFrames.inc({ reason: NackCode[body.value.code]?.toLowerCase() ?? 'unspecified' });
        session.nack(body.value, this.#deps.clock);
        return;
      case 'answer':
        await this.#deps.questions.answered(reporter, body.value);
        return;
      case 'webhookTurn':
        await this.#deps.webhookTurn(session, body.value);
        return;
      case 'bye':
        this.close(session, 'the agent said bye');
        return;
      case 'hello':
        throw new BrokkrError('protocol_violation', 'hello comes once, as the first frame');
      case undefined:
        return; // a body of a newer version
    }
  }

  /** Notes a sign of life. */
  seen(session: AgentSession): void {
    this.#liveness.seen(session);
  }

  /** Ends a session on this side and in the database. */
  close(session: AgentSession, reason: string): void {
    session.end(reason);
    this.#liveness.end(session);
    if (this.#sessions.get(session.options.agentId) !== session) return;
    this.#sessions.delete(session.options.agentId);
    const { agentId, epoch } = session.options;
    endSessions(this.#deps.db, [{ agentId, epoch }]).catch((error: unknown) =>
      this.#deps.log.debug({ error: errorText(error) }, 'end of session not noted'),
    );
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    while (!signal.aborted) {
      await this.#tick().catch((error: unknown) => log.warn({ error: errorText(error) }, 'heartbeats could not be stored'));
      await clock.sleep(TICK_MS, signal).catch(() => undefined);
    }
    this.#draining = true;
    for (const session of this.#sessions.values()) session.leave(farewell('draining', this.options.drainWindowMs));
  }

  /** Settings of a session as the agent is told them. */
  config(): SessionConfig {
    const { heartbeatIntervalMs, healthIntervalMs, pollHoldMs, maxFrameBytes, windowFrames } = this.options;
    return create(SessionConfigSchema, {
      heartbeatIntervalMs,
      healthIntervalMs,
      pollHoldMs,
      maxFrameBytes,
      windowFrames,
      deletionsHeld: this.#state?.deletionsHeld ?? true,
    });
  }

  #register(session: AgentSession): void {
    const older = this.#sessions.get(session.options.agentId);
    this.#sessions.set(session.options.agentId, session);
    this.#liveness.begin(session);
    if (!older) return;
    this.#liveness.end(older); // nobody closes a poller that was replaced
    if (older.signal.aborted) return;
    if (older.options.processId === session.options.processId) older.end('renewed');
    else older.leave(farewell('superseded'));
  }

  async #welcome(session: AgentSession, hello: Hello, version: number, position: Position): Promise<void> {
    const resume = hello.resume;
    const eventsThrough =
      resume && resume.bootId !== '' ? await readEventCursor(this.#deps.db, session.options.agentId, resume.bootId) : 0n;
    const state = await this.#brokerState();
    session.welcome({ rootDigest: resume?.rootDigest ?? new Uint8Array(), entries: resume?.entries ?? 0 }, position, (mode) => ({
      version,
      epoch: session.options.epoch,
      sessionToken: session.options.token,
      mode,
      incarnation: state.incarnation,
      revision: toRevision(position),
      config: this.config(),
      eventsThrough,
      agentId: session.options.agentId,
      agentName: session.options.agentName,
    }));
  }

  #restored(hello: Hello): void {
    this.#state = undefined;
    this.#deps.feed.committed();
    this.#deps.log.error(
      { incarnation: hello.resume?.incarnation },
      'an agent knows a history this database does not: it was restored; agents delete nothing until an admin confirms (POST /api/v1/admin/history/confirm)',
    );
  }

  async #brokerState(): Promise<BrokerState> {
    this.#state ??= await readBrokerState(this.#deps.db);
    return this.#state;
  }

  async #onPing(session: AgentSession, ping: Ping): Promise<void> {
    this.#liveness.beat(session, ping);
    const { db, feed } = this.#deps;
    if (ping.facts && (await db.transaction((tx) => updateFacts(tx, session.options, ping.facts as AgentFacts))))
      feed.committed();
    if (session.compare(ping.rootDigest)) {
      this.#deps.metrics.digestMismatches.inc();
      this.#deps.log.warn({ agent: session.options.agentName }, 'root digests differ twice, comparing buckets');
    }
    session.push({ case: 'pong', value: { revision: toRevision(session.position) } });
  }

  #onStatus(session: AgentSession, items: readonly StackStatus[]): void {
    for (const { stackId, phase, receivedManifestDigest } of items) {
      if (phase === Phase.PRUNED && session.target.get(stackId)?.kind === 'tombstone') session.want(stackId, undefined);
      else session.received(stackId, receivedManifestDigest);
    }
  }

  async #onChanges(changes: readonly ChangeRow[]): Promise<void> {
    const stackIds = new Set<string>();
    const agentIds = new Set<string>();
    for (const { kind, stackId, agentId } of changes) {
      if (kind === 'stack' && stackId !== undefined) stackIds.add(stackId);
      else if (kind === 'agent' && agentId !== undefined) agentIds.add(agentId);
      else if (kind === 'broker') this.#state = undefined;
      if (kind === 'key' || kind === 'agent') this.#deps.forgetKeys();
    }
    if (changes.some(({ kind }) => kind === 'key')) await this.#endDeadKeys();
    if (changes.some(({ kind }) => kind === 'broker')) await this.#configureAll();
    if (agentIds.size > 0) await this.#endInactive([...agentIds].filter((id) => this.#sessions.has(id)));
    const last = changes.at(-1);
    if (!last || this.#sessions.size === 0) return;
    await this.#targets.refresh(this.#sessions, { stackIds: [...stackIds], agentIds: [...agentIds] }, last);
  }

  async #configureAll(): Promise<void> {
    await this.#brokerState();
    // one that is being opened is told by its Welcome
    for (const session of this.#sessions.values()) if (session.isOpen) session.configure(this.config());
  }

  async #endInactive(agentIds: readonly string[]): Promise<void> {
    for (const agent of agentIds.length > 0 ? await findAgents(this.#deps.db, agentIds) : []) {
      const session = this.#sessions.get(agent.id);
      if (agent.deleted) session?.leave(farewell('deleted'));
      else if (agent.status === 'INACTIVE') session?.leave(farewell('inactive'));
    }
  }

  async #endDeadKeys(): Promise<void> {
    const sessions = this.sessions();
    if (sessions.length === 0) return;
    const dead = new Set(await deadKeys(this.#deps.db, [...new Set(sessions.map((session) => session.options.keyId))]));
    for (const session of sessions) if (dead.has(session.options.keyId)) session.leave(farewell('revoked'));
  }

  /** Every 15 s: one statement for all heartbeats, which also tells who was superseded elsewhere; the dead are closed. */
  async #tick(): Promise<void> {
    const { db } = this.#deps;
    await renewReplica(db, this.options.replicaId, this.options.version, REPLICA_LEASE_MS);
    for (const session of this.sessions()) {
      if (this.#liveness.isDead(session)) this.close(session, 'no sign of life');
      else if (this.#liveness.isOld(session)) session.leaveWhenReplaced(farewell('age'));
    }
    const sessions = this.sessions();
    if (sessions.length === 0) return;
    const beats = this.#liveness.takeBeats(sessions);
    const current = await touchSessions(db, beats);
    for (const session of sessions) {
      if (
        !current.has(session.options.agentId) &&
        !session.signal.aborted &&
        this.#sessions.get(session.options.agentId) === session
      ) {
        session.leave(farewell('outdated'));
      }
    }
    await this.#endDeadKeys();
  }
}

/** A position as agents are told it. */
function toRevision({ xid, seq, nonce }: Position): Revision {
  return create(RevisionSchema, { xid, seq, nonce });
}

function sameToken(a: string, b: string): boolean {
  const [x, y] = [Buffer.from(a), Buffer.from(b)];
  return x.length === y.length && timingSafeEqual(x, y);
}
