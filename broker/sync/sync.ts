import { randomBytes, timingSafeEqual } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { jitter } from '#lib/backoff.ts';
import type { Clock } from '#lib/clock.ts';
import { BrokkrError, errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Task } from '#lib/run.ts';
import {
  type AgentMessage,
  type GoAway,
  GoAwayReason,
  GoAwaySchema,
  type Hello,
  type Ping,
  type Revision,
  RevisionSchema,
  type SessionConfig,
  SessionConfigSchema,
} from '#proto/brokkr/v1/sync_pb.js';
import type { Principal } from '../api/principal.ts';
import { insertAudit } from '../api/store.ts';
import type { Database } from '../database.ts';
import type { BlobStore } from '../stacks/blobs.ts';
import type { Acceptance } from '../targeting/store.ts';
import type { ChangeFeed } from './feed.ts';
import { assertFrame, assertHello } from './frame-rules.ts';
import { Heads } from './heads.ts';
import { assertIdentity } from './identity.ts';
import type { Ingest } from './ingest.ts';
import { AgentSession } from './session.ts';
import {
  type BrokerState,
  beginSession,
  type ChangeRow,
  deadKeys,
  endSessions,
  findAgents,
  forkHistory,
  type Heartbeat,
  knowsPosition,
  lockSession,
  type Position,
  readBrokerState,
  readEventCursor,
  renewReplica,
  touchSessions,
} from './store.ts';
import { loadTargets, refreshTargets } from './targets.ts';

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
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
  /** Called when keys or identities changed. */
  readonly forgetKeys: () => void;
}

const PROTOCOL_VERSIONS = [1];
const TICK_MS = 15_000;
/** Sessions whose target state is read in one go. */
const MAX_LOADS = 500;
const REPLICA_LEASE_MS = 45_000;
/** Silence after which a session counts as dead: three heartbeats. */
const MISSED_HEARTBEATS = 3;

/** All sessions of this replica: opens them, keeps their target state current, ends them. */
export class Sync implements Task {
  readonly name = 'sync';
  readonly options: SyncOptions;
  readonly #deps: SyncDeps;
  readonly heads: Heads;
  readonly #sessions = new Map<string, AgentSession>();
  readonly #lastSeen = new Map<string, number>();
  readonly #beats = new Map<string, Heartbeat>();
  readonly #ages = new Map<AgentSession, number>();
  #state: BrokerState | undefined;
  #tokens: { count: number; atMs: number };
  #draining = false;
  readonly #loads: { readonly session: AgentSession; readonly settled: PromiseWithResolvers<Position> }[] = [];
  #turn: Promise<unknown> = Promise.resolve();

  constructor(deps: SyncDeps, options: SyncOptions) {
    this.#deps = deps;
    this.options = options;
    this.heads = new Heads(deps);
    this.#tokens = { count: options.hellosPerSecond * 5, atMs: deps.clock.monotonic() };
    deps.feed.subscribe((changes) => this.#onChanges(changes));
  }

  /** Sessions of this replica. */
  sessions(): readonly AgentSession[] {
    return [...this.#sessions.values()];
  }

  /** The agent's session with this token and epoch. Throws `session_unknown`. */
  find(agentId: string, token: string, epoch: bigint): AgentSession {
    const session = this.#sessions.get(agentId);
    if (!session || session.signal.aborted || session.options.epoch !== epoch || !sameToken(session.options.token, token)) {
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
    if (principal.kind !== 'agent') throw new BrokkrError('agent_pak_required', 'sessions are for agent keys');
    if (this.#draining) throw new BrokkrError('draining', 'the broker is stopping');
    this.#admit();
    assertHello(hello);
    const version = PROTOCOL_VERSIONS.find((item) => hello.versions.includes(item));
    if (version === undefined)
      throw new BrokkrError(
        'unsupported_version',
        `the agent speaks versions ${hello.versions.join(', ')}, this broker ${PROTOCOL_VERSIONS.join(', ')}`,
      );
    const { db, clock, log } = this.#deps;
    const [agent] = await findAgents(db, [principal.agentId]);
    if (!agent || agent.deleted) throw new BrokkrError('unauthorized', 'the agent was deleted');
    if (agent.status !== 'ACTIVE')
      throw new BrokkrError('agent_inactive', `agent ${agent.name} is INACTIVE: it keeps what it has and writes nothing`);
    const epoch = await this.#beginEpoch(principal, hello, transport);
    await this.#checkHistory(hello);
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
    this.#register(session);
    try {
      const position = await this.#load(session);
      await this.#welcome(session, hello, version, position);
    } catch (error) {
      this.close(session, 'could not be opened');
      throw error;
    }
    log.info({ agent: agent.name, epoch: Number(epoch), transport, entries: session.entries }, 'session opened');
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
        this.#onPing(session, body.value);
        return;
      case 'status':
        this.#onStatus(session, body.value.items);
        ingest.status(reporter, body.value.items);
        return;
      case 'events': {
        const { bootId, events } = body.value;
        const through = await ingest.events(reporter, bootId, events);
        if (through === undefined)
          session.leave(goAway(GoAwayReason.SUPERSEDED, 'a newer session of this agent has begun', 5_000, 15_000));
        else session.push({ case: 'eventsAck', value: { bootId, through } });
        return;
      }
      case 'health':
        ingest.health(reporter, body.value.items);
        return;
      case 'bucketEntries':
        session.buckets(body.value);
        return;
      case 'nack':
        this.#deps.log.warn(
          { agent: session.options.agentName, stack: body.value.stackId, code: body.value.code, detail: body.value.detail },
          'agent did not take a frame',
        );
        session.nack(body.value);
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
    this.#lastSeen.set(session.options.agentId, this.#deps.clock.monotonic());
  }

  /** Ends a session on this side and in the database. */
  close(session: AgentSession, reason: string): void {
    session.end(reason);
    this.#ages.delete(session);
    if (this.#sessions.get(session.options.agentId) !== session) return;
    this.#sessions.delete(session.options.agentId);
    this.#lastSeen.delete(session.options.agentId);
    this.#beats.delete(session.options.agentId);
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
    for (const session of this.#sessions.values())
      session.leave(goAway(GoAwayReason.DRAINING, 'the broker is stopping', 0, this.options.drainWindowMs));
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

  /**
   * Loads and refreshes take turns: a load reads a snapshot, and a refresh that overtook it would be undone by it. Loads
   * that wait for their turn go together, so that a thousand agents coming back are a handful of statements.
   */
  async #load(session: AgentSession): Promise<Position> {
    const settled = Promise.withResolvers<Position>();
    this.#loads.push({ session, settled });
    void this.#exclusive(async () => {
      const batch = this.#loads.splice(0, MAX_LOADS);
      if (batch.length === 0) return;
      try {
        const position = await loadTargets(
          this.#deps.db,
          batch.map((load) => load.session),
          this.options.acceptance,
        );
        for (const load of batch) load.settled.resolve(position);
      } catch (error) {
        for (const load of batch) load.settled.reject(error);
      }
    });
    return await settled.promise;
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  #register(session: AgentSession): void {
    const older = this.#sessions.get(session.options.agentId);
    this.#sessions.set(session.options.agentId, session);
    this.#lastSeen.set(session.options.agentId, this.#deps.clock.monotonic());
    this.#ages.set(session, this.#deps.clock.monotonic() + jitter(this.options.streamAgeMs, 0.2, this.#deps.random));
    if (!older || older.signal.aborted) return;
    if (older.options.processId === session.options.processId) older.end('renewed');
    else older.leave(goAway(GoAwayReason.SUPERSEDED, 'another process of this agent has the session', 60_000, 120_000));
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

  /** One transaction under the agent's session row: identity rules, then the next epoch. */
  async #beginEpoch(
    principal: Principal & { readonly kind: 'agent' },
    hello: Hello,
    transport: 'stream' | 'poll',
  ): Promise<bigint> {
    const { db } = this.#deps;
    const refusal = { error: undefined as BrokkrError | undefined };
    const epoch = await db.transaction(async (tx) => {
      const last = await lockSession(tx, principal.agentId);
      const verdict = assertIdentity(last, hello);
      if (verdict.kind === 'refused') {
        refusal.error = verdict.error;
        if (verdict.audit) {
          await insertAudit(tx, [
            {
              principal,
              action: 'agent.duplicate_identity',
              resourceType: 'agent',
              resourceId: principal.agentId,
              details: { cluster_uid: hello.clusterUid },
            },
          ]);
        }
        return 0n;
      }
      return await beginSession(tx, {
        agentId: principal.agentId,
        replicaId: this.options.replicaId,
        installId: hello.installId,
        clusterUid: hello.clusterUid,
        processId: hello.processId,
        superseded: verdict.superseded,
        transport,
        keyId: principal.keyId,
        agentVersion: hello.agentVersion,
        kubernetesVersion: hello.facts?.kubernetesVersion ?? '',
        capabilities: hello.facts?.capabilities ?? {},
      });
    });
    if (refusal.error) throw refusal.error;
    return epoch;
  }

  /** A position of our incarnation that we do not know: the database was restored. Nothing is deleted until confirmed. */
  async #checkHistory(hello: Hello): Promise<void> {
    const revision = hello.resume?.revision;
    const incarnation = hello.resume?.incarnation ?? '';
    if (!revision || incarnation === '' || revision.xid === 0n) return;
    const { db, log, feed } = this.#deps;
    const state = await readBrokerState(db);
    if (incarnation !== state.incarnation || (await knowsPosition(db, revision))) return;
    await db.transaction((tx) => forkHistory(tx, incarnation));
    feed.committed();
    log.error(
      { incarnation },
      'an agent knows a history this database does not: it was restored; agents delete nothing until an admin confirms (POST /api/v1/admin/history/confirm)',
    );
    this.#state = undefined;
  }

  async #brokerState(): Promise<BrokerState> {
    this.#state ??= await readBrokerState(this.#deps.db);
    return this.#state;
  }

  #onPing(session: AgentSession, ping: Ping): void {
    const { agentId, epoch } = session.options;
    this.#beats.set(agentId, { agentId, epoch, reachable: ping.kubernetesReachable, latencyMs: ping.kubernetesLatencyMs });
    if (session.compare(ping.rootDigest))
      this.#deps.log.warn({ agent: session.options.agentName }, 'root digests differ twice, comparing buckets');
    session.push({ case: 'pong', value: { revision: toRevision(session.position) } });
  }

  #onStatus(
    session: AgentSession,
    items: readonly { readonly stackId: string; readonly receivedManifestDigest: Uint8Array; readonly phase: number }[],
  ): void {
    for (const item of items) {
      if (item.phase === PRUNED && session.desired(item.stackId)?.kind === 'tombstone') session.want(item.stackId, undefined);
      else session.received(item.stackId, item.receivedManifestDigest);
    }
  }

  #admit(): void {
    const { hellosPerSecond } = this.options;
    const now = this.#deps.clock.monotonic();
    this.#tokens = {
      count: Math.min(hellosPerSecond * 5, this.#tokens.count + ((now - this.#tokens.atMs) / 1000) * hellosPerSecond),
      atMs: now,
    };
    if (this.#tokens.count < 1) {
      throw new BrokkrError('too_many_requests', 'too many agents connect at once', {
        details: { retry_after_ms: Math.ceil(1000 / hellosPerSecond + this.#deps.random() * 10_000) },
      });
    }
    this.#tokens.count--;
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
    if (last && this.#sessions.size > 0)
      await this.#exclusive(() =>
        refreshTargets(
          this.#deps.db,
          this.#sessions,
          { stackIds: [...stackIds], agentIds: [...agentIds] },
          this.options.acceptance,
          last,
        ),
      );
  }

  async #configureAll(): Promise<void> {
    await this.#brokerState();
    for (const session of this.#sessions.values()) session.configure(this.config());
  }

  async #endInactive(agentIds: readonly string[]): Promise<void> {
    for (const agent of agentIds.length > 0 ? await findAgents(this.#deps.db, agentIds) : []) {
      const session = this.#sessions.get(agent.id);
      if (agent.deleted) session?.leave(goAway(GoAwayReason.DELETED, 'the agent was deleted', 60_000, 300_000));
      else if (agent.status === 'INACTIVE')
        session?.leave(goAway(GoAwayReason.INACTIVE, 'the agent was set INACTIVE', 15_000, 30_000));
    }
  }

  async #endDeadKeys(): Promise<void> {
    const sessions = this.sessions();
    if (sessions.length === 0) return;
    const dead = new Set(await deadKeys(this.#deps.db, [...new Set(sessions.map((session) => session.options.keyId))]));
    for (const session of sessions)
      if (dead.has(session.options.keyId))
        session.leave(goAway(GoAwayReason.REVOKED, 'the key was revoked or has expired', 15_000, 60_000));
  }

  /** Every 15 s: one statement for all heartbeats, which also tells who was superseded elsewhere; the dead are closed. */
  async #tick(): Promise<void> {
    const { db, clock } = this.#deps;
    await renewReplica(db, this.options.replicaId, this.options.version, REPLICA_LEASE_MS);
    const now = clock.monotonic();
    for (const session of this.sessions()) {
      const seen = this.#lastSeen.get(session.options.agentId) ?? now;
      if (now - seen > this.#silenceMs(session)) this.close(session, 'no sign of life');
      else if ((this.#ages.get(session) ?? now) < now && session.options.transport === 'stream') {
        this.#ages.set(session, now + this.options.streamAgeMs);
        session.leaveWhenReplaced(goAway(GoAwayReason.AGE, 'renew the stream', 0, 10_000, true));
      }
    }
    const sessions = this.sessions();
    if (sessions.length === 0) return;
    const beats = sessions.map(
      ({ options: { agentId, epoch } }) =>
        this.#beats.get(agentId) ?? { agentId, epoch, reachable: undefined, latencyMs: undefined },
    );
    this.#beats.clear();
    const current = await touchSessions(db, beats);
    for (const session of sessions) {
      if (
        !current.has(session.options.agentId) &&
        !session.signal.aborted &&
        this.#sessions.get(session.options.agentId) === session
      ) {
        session.leave(goAway(GoAwayReason.SUPERSEDED, 'a newer session of this agent has begun', 5_000, 15_000));
      }
    }
    await this.#endDeadKeys();
  }

  #silenceMs({ options }: AgentSession): number {
    return options.transport === 'poll'
      ? 3 * this.options.pollHoldMs + MISSED_HEARTBEATS * 5_000
      : (MISSED_HEARTBEATS + 0.5) * this.options.heartbeatIntervalMs;
  }
}

/** Phase.PRUNED of the contract. */
const PRUNED = 9;

/** A farewell. */
function goAway(
  reason: GoAwayReason,
  detail: string,
  windowMinMs: number,
  windowMaxMs: number,
  keepUntilReplaced = false,
): GoAway {
  return create(GoAwaySchema, { reason, detail, windowMinMs, windowMaxMs, keepUntilReplaced });
}

/** A position as agents are told it. */
function toRevision({ xid, seq, nonce }: Position): Revision {
  return create(RevisionSchema, { xid, seq, nonce });
}

function sameToken(a: string, b: string): boolean {
  const [x, y] = [Buffer.from(a), Buffer.from(b)];
  return x.length === y.length && timingSafeEqual(x, y);
}
