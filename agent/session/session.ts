import { create } from '@bufbuild/protobuf';
import { jitter } from '#lib/backoff.ts';
import type { Clock } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { abortable, Wakeup } from '#lib/signal.ts';
import {
  type AgentFacts,
  AgentMessageSchema,
  type BrokerMessage,
  ByeSchema,
  type GoAway,
  type Hello,
  type Query,
  type SessionConfig,
  SyncMode,
  type WebhookTurn,
  type Welcome,
} from '#proto/brokkr/v1/sync_pb.js';
import type { Questions } from '../explain/questions.ts';
import type { AgentMetrics } from '../metrics.ts';
import type { Received, Tier, Transport, Wire } from '../transport/wire.ts';
import type { Webhooks } from '../webhooks.ts';
import type { Content, Fetch } from './content.ts';
import { dispatch, firstAnswer } from './dispatch.ts';
import { endOfError, endOfGoAway, type SessionEnd } from './end.ts';
import { helloOf, pingOf, type SelfDescription } from './frames.ts';
import type { HeldState } from './held.ts';
import { Intake, type TargetSink } from './intake.ts';
import type { Outbox } from './outbox.ts';
import type { Body, Reports } from './reports.ts';

/** Intervals until Welcome names others (docs/protocol.md). */
const HEARTBEAT_MS = 20_000;
const HEARTBEAT_JITTER = 0.1;
/** Heartbeats without any answer after which the connection is dead. */
const MISSED_HEARTBEATS = 3;
const FRAME_BYTES = 256 * 1024;
const MAX_FRAME_BYTES = 1024 * 1024;
const WINDOW_FRAMES = 64;
/** A farewell that cannot leave is not waited for. */
const BYE_MS = 1_000;
/** A stream that says nothing for so long after Hello is unusable: something in between buffers it. */
const STREAM_ANSWER_MS = 5_000;
const POLL_ANSWER_MS = 20_000;

/** What a session works with; all of it outlives the session. */
export interface SessionDeps {
  readonly held: HeldState;
  readonly reports: Reports;
  readonly outbox: Outbox;
  readonly content: Content;
  readonly engine: TargetSink;
  readonly questions: Pick<Questions, 'answer'>;
  readonly webhooks: Pick<Webhooks, 'connect' | 'disconnect' | 'told' | 'attempt' | 'answered'>;
  /** Whether the session is to be used; one that is not ends in order after Welcome, with nothing taken from it. */
  readonly admit: (welcome: Welcome) => boolean;
  /** Called with the settings of Welcome and every change of them. */
  readonly configured: (config: SessionConfig | undefined) => void;
  /** What Hello and Ping say about agent and cluster. */
  readonly self: SelfDescription;
  readonly metrics: AgentMetrics;
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
}

/** One connection's session. The promises of what never happens stay open. */
export interface Session {
  readonly tier: Tier;
  /** The broker opened the session: it is the one that counts from now on. */
  readonly welcomed: Promise<Welcome>;
  /** The broker wants another session opened before this one ends. */
  readonly renew: Promise<GoAway>;
  /** Never rejects. */
  readonly ended: Promise<SessionEnd>;
  /** Ends the session in order; does nothing once it has ended. */
  close(reason: string): void;
}

/** Dials and serves one session until it ends, is closed, or `signal` aborts (then it ends in order, too). */
export function startSession(transport: Transport, deps: SessionDeps, signal: AbortSignal): Session {
  return new LiveSession(transport, deps, signal);
}

class LiveSession implements Session {
  readonly tier: Tier;
  readonly ended: Promise<SessionEnd>;
  readonly #transport: Transport;
  readonly #deps: SessionDeps;
  readonly #welcomed = Promise.withResolvers<Welcome>();
  readonly #renew = Promise.withResolvers<GoAway>();
  readonly #stop = new AbortController();
  readonly #wake = new Wakeup();
  /** Frames about the session itself; they go before reports. Bounded by what the broker asks. */
  readonly #control: Body[] = [];
  readonly #startedMs: number;
  #end: SessionEnd | undefined;
  #bye: string | undefined;
  #kept: GoAway | undefined;
  #isWelcomed = false;
  #unanswered = false;
  #pingDue = false;
  /** Facts as last told in this session. */
  #told: AgentFacts | undefined;
  #unacknowledged = 0;
  #seq = 0n;
  #heardMs: number;
  #config = { heartbeatMs: HEARTBEAT_MS, maxFrameBytes: FRAME_BYTES, windowFrames: WINDOW_FRAMES };

  constructor(transport: Transport, deps: SessionDeps, signal: AbortSignal) {
    this.tier = transport.tier;
    this.#transport = transport;
    this.#deps = deps;
    this.#startedMs = deps.clock.monotonic();
    this.#heardMs = this.#startedMs;
    const onAbort = () => this.close('the agent stops');
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) this.#finish({ kind: 'closed' });
    this.ended = this.#run().finally(() => signal.removeEventListener('abort', onAbort));
  }

  get welcomed(): Promise<Welcome> {
    return this.#welcomed.promise;
  }

  get renew(): Promise<GoAway> {
    return this.#renew.promise;
  }

  close(reason: string): void {
    if (!this.#isWelcomed) this.#finish({ kind: 'closed' });
    if (this.#bye !== undefined) return;
    this.#bye = reason;
    this.#wake.wake();
    const { clock } = this.#deps;
    clock.sleep(BYE_MS, this.#stop.signal).then(
      () => this.#finish({ kind: 'closed' }),
      () => undefined, // it left in time
    );
  }

  async #run(): Promise<SessionEnd> {
    const stop = this.#stop.signal;
    let wire: Wire | undefined;
    try {
      const hello: Hello = helloOf(this.#deps);
      this.#told = hello.facts;
      this.#seq = 1n;
      wire = await this.#transport.open(create(AgentMessageSchema, { seq: 1n, body: { case: 'hello', value: hello } }), stop);
      const frames = wire.received(stop)[Symbol.asyncIterator]();
      const welcome = await this.#answer(frames);
      if (welcome) await this.#serve(wire, frames, welcome, hello.resume?.bootId ?? '');
    } catch (error) {
      this.#finish(endOfError(error, this.#lifetime()));
    } finally {
      await wire?.close();
      this.#stop.abort(new Error('the session has ended'));
    }
    return this.#end ?? { kind: 'closed' };
  }

  /** The first frame: Welcome, or GoAway, which ends the session. */
  async #answer(frames: AsyncIterator<Received>): Promise<Welcome | undefined> {
    const limitMs = this.tier === 'stream' ? STREAM_ANSWER_MS : POLL_ANSWER_MS;
    using deadline = this.#deps.clock.deadline(limitMs, this.#stop.signal);
    try {
      const first = await abortable(firstAnswer(frames), deadline.signal);
      if (first.case === 'welcome') return first.value;
      this.#finish(endOfGoAway(first.value, this.#lifetime()));
      return undefined;
    } catch (error) {
      this.#unanswered = deadline.signal.aborted && !this.#stop.signal.aborted;
      throw this.#unanswered ? new BrokkrError('deadline_exceeded', `no answer to hello within ${limitMs} ms`) : error;
    }
  }

  async #serve(wire: Wire, frames: AsyncIterator<Received>, welcome: Welcome, bootId: string): Promise<void> {
    const { reports, content, webhooks, log, metrics, admit } = this.#deps;
    const stop = this.#stop.signal;
    if (!admit(welcome)) {
      await this.#decline(wire, frames, welcome);
      return;
    }
    const fetch: Fetch = (request, signal) => wire.fetch(request, signal);
    wire.opened(welcome.sessionToken, welcome.epoch);
    this.#isWelcomed = true;
    this.#startHearing();
    reports.begin(this, () => this.#wake.wake());
    content.connect(fetch);
    const takeTurn = (value: WebhookTurn) => this.#say({ case: 'webhookTurn', value });
    webhooks.connect(takeTurn);
    this.#configure(welcome.config);
    const nack = (value: Extract<Body, { case: 'nack' }>['value']) => this.#say({ case: 'nack', value });
    const intake = new Intake({ ...this.#deps, nack }, welcome.incarnation, stop);
    if (welcome.mode === SyncMode.UP_TO_DATE) intake.delivered(welcome.revision);
    await reports.eventsStored(bootId, welcome.eventsThrough);
    log.info({ tier: this.tier, epoch: welcome.epoch, mode: welcome.mode, agent: welcome.agentName }, 'session opened');
    metrics.sessions.inc({ tier: this.tier });
    this.#welcomed.resolve(welcome);
    this.#pingDue = true;
    this.#wake.wake();
    try {
      await Promise.all(
        [this.#read(frames, intake), this.#send(wire), this.#beat()].map((loop) =>
          loop.catch((error: unknown) => this.#finish(endOfError(error, this.#lifetime()))),
        ),
      );
    } finally {
      content.disconnect(fetch);
      webhooks.disconnect(takeTurn);
    }
  }

  /** Says goodbye right after Welcome and takes nothing. */
  async #decline(wire: Wire, frames: AsyncIterator<Received>, { sessionToken, epoch }: Welcome): Promise<void> {
    this.#isWelcomed = true;
    this.#bye = 'not used';
    wire.opened(sessionToken, epoch);
    const value = create(ByeSchema, { reason: this.#bye });
    await wire.send(create(AgentMessageSchema, { seq: 2n, ack: wire.ack, body: { case: 'bye', value } }), this.#stop.signal);
    const rest = async () => {
      while (!(await frames.next()).done); // unread frames would keep the stream from ending
    };
    await Promise.all([wire.close(), rest().catch(() => undefined)]);
  }

  async #read(frames: AsyncIterator<Received>, intake: Intake): Promise<void> {
    for (;;) {
      const { value, done } = await frames.next();
      if (done) break;
      this.#startHearing();
      if (value !== 'alive') this.#handle(value, intake);
    }
    const detail = 'the broker, or something in between, ended the session without a word';
    const lost = { kind: 'lost', ...this.#lifetime(), retryAfterMs: undefined, code: 'reset', detail } as const;
    this.#finish(this.#kept ? endOfGoAway(this.#kept, this.#lifetime()) : lost);
  }

  #handle({ ack, body }: BrokerMessage, intake: Intake): void {
    const { reports, held, webhooks } = this.#deps;
    reports.acknowledge(this, ack);
    if (body.case === 'goAway') this.#leave(body.value);
    if (!reports.ownedBy(this)) return; // a newer session has taken over: only it speaks for the broker
    dispatch(body, {
      ...{ intake, held, reports, webhooks },
      say: (answer) => this.#say(answer),
      configure: (config) => this.#configure(config),
      answer: (query) => void this.#answerQuery(query),
      fail: (error) => this.#finish(endOfError(error, this.#lifetime())),
    });
    this.#unacknowledged++;
    if (this.#mustAcknowledge()) this.#wake.wake();
  }

  /** A window of the broker is half used up; polls carry the acknowledgement anyway. */
  #mustAcknowledge(): boolean {
    return this.tier === 'stream' && this.#unacknowledged * 2 >= this.#config.windowFrames;
  }

  async #send(wire: Wire): Promise<void> {
    const stop = this.#stop.signal;
    for (;;) {
      await this.#wake.wait(stop);
      for (let next = this.#next(); next; next = this.#next()) {
        this.#seq += 1n;
        this.#unacknowledged = 0;
        next.sent(this.#seq);
        await wire.send(create(AgentMessageSchema, { seq: this.#seq, ack: wire.ack, body: next.body }), stop);
        if (next.body.case === 'bye') {
          await wire.close(); // lets it leave
          this.#finish({ kind: 'closed' });
          return;
        }
      }
    }
  }

  /** Heartbeats and the session's own business first: never stuck behind data. */
  #next(): { readonly body: Body; sent(seq: bigint): void } | undefined {
    const { reports, metrics } = this.#deps;
    const sent = () => undefined;
    if (this.#bye !== undefined) {
      return { body: { case: 'bye', value: create(ByeSchema, { reason: this.#bye.slice(0, 256) }) }, sent };
    }
    if (this.#pingDue) {
      this.#pingDue = false;
      metrics.heartbeats.inc();
      const ping = pingOf(this.#deps, this.#told);
      this.#told = ping.facts ?? this.#told;
      return { body: { case: 'ping', value: ping }, sent };
    }
    const control = this.#control.shift();
    if (control) return { body: control, sent };
    const report = reports.next(this, this.#config.maxFrameBytes);
    if (report) return report;
    return this.#mustAcknowledge() ? { body: { case: undefined }, sent } : undefined;
  }

  async #beat(): Promise<void> {
    const { clock, random } = this.#deps;
    for (;;) {
      await clock.sleep(jitter(this.#config.heartbeatMs, HEARTBEAT_JITTER, random), this.#stop.signal);
      const silentMs = Math.round(clock.monotonic() - this.#heardMs);
      if (silentMs > MISSED_HEARTBEATS * this.#config.heartbeatMs) {
        throw new BrokkrError('deadline_exceeded', `nothing came from the broker for ${silentMs} ms`);
      }
      this.#pingDue = true;
      this.#wake.wake();
    }
  }

  #say(body: Body): void {
    this.#control.push(body);
    this.#wake.wake();
  }

  async #answerQuery(query: Query): Promise<void> {
    const value = await this.#deps.questions.answer(query, this.#stop.signal);
    if (value) this.#say({ case: 'answer', value });
  }

  #leave(goAway: GoAway): void {
    if (!goAway.keepUntilReplaced) {
      this.#finish(endOfGoAway(goAway, this.#lifetime()));
      return;
    }
    this.#kept = goAway;
    this.#renew.resolve(goAway);
  }

  #configure(config: SessionConfig | undefined): void {
    const { heartbeatMs, maxFrameBytes, windowFrames } = this.#config;
    this.#config = {
      heartbeatMs: config?.heartbeatIntervalMs || heartbeatMs,
      maxFrameBytes: Math.min(config?.maxFrameBytes || maxFrameBytes, MAX_FRAME_BYTES),
      windowFrames: config?.windowFrames || windowFrames,
    };
    this.#deps.configured(config);
  }

  #startHearing(): void {
    this.#heardMs = this.#deps.clock.monotonic();
  }

  #lifetime() {
    const heldMs = Math.round(this.#deps.clock.monotonic() - this.#startedMs);
    return { heldMs, welcomed: this.#isWelcomed, unanswered: this.#unanswered };
  }

  /** The first end counts. */
  #finish(end: SessionEnd): void {
    this.#end ??= this.#bye !== undefined && end.kind === 'lost' ? { kind: 'closed' } : end;
    this.#stop.abort(new Error('the session has ended'));
  }
}
