import { backoffMs, jitter } from '#lib/backoff.ts';
import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import type { Task } from '#lib/run.ts';
import { abortable } from '#lib/signal.ts';
import type { Tier } from '../transport/wire.ts';
import type { HaltReason, SessionEnd } from './end.ts';
import type { Session } from './session.ts';

/** Redial: full jitter (docs/protocol.md, "Reconnecting"). */
const BACKOFF = { baseMs: 1_000, capMs: 60_000 };
/** A session that lived so long was stable: what came before it no longer counts. */
const STABLE_MS = 60_000;
/** Trouble points of the stream before polling takes over: a failure is 2, no answer to Hello is 3. */
const TROUBLE_LIMIT = 6;
/** Failed polls before the stream gets another chance: the broker is away for both. */
const POLL_FAILURES = 2;
const SUPERSEDED_MS = 60_000;
const HALTED_MS = 30_000;
const DUPLICATE_MS = 300_000;
const REFUSED_MS = 300_000;
/** The first probe comes this much earlier than the later ones, so that a short outage does not cost minutes of polling. */
const FIRST_PROBE_PART = 20;

/** What the supervisor is doing, for the health page. */
export type LinkState =
  | { readonly kind: 'dialing'; readonly tier: Tier; readonly sinceMs: number; readonly detail: string }
  | { readonly kind: 'up'; readonly tier: Tier; readonly sinceMs: number; readonly detail: string }
  | {
      readonly kind: 'waiting';
      readonly tier: Tier;
      readonly sinceMs: number;
      readonly untilMs: number;
      readonly detail: string;
    };

/** What the supervisor needs. */
export interface SupervisorDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
  /** Starts one session. */
  readonly start: (tier: Tier, signal: AbortSignal) => Session;
  /** Whether the network carries streams. */
  readonly probe: (signal: AbortSignal) => Promise<boolean>;
  /** Stop writing, keep everything. */
  readonly suspend: (reason: string) => void;
  /** Write again. */
  readonly resume: () => void;
  /** For metrics. */
  readonly observe?: { ended(tier: Tier, end: SessionEnd): void; moved(to: Tier): void };
}

/** Settings. */
export interface SupervisorOptions {
  /** `auto` begins with the stream and falls back to polling by itself, and back. */
  readonly transport: 'auto' | Tier;
  /** Time between two looks for the stream while polling; varied by half. */
  readonly probeIntervalMs: number;
}

/** Keeps one session up for as long as the process runs. */
export class Supervisor implements Task {
  readonly name = 'supervisor';
  readonly #deps: SupervisorDeps;
  readonly #options: SupervisorOptions;
  #state: LinkState;
  #tier: Tier;
  /** Failures in a row, over both tiers: decides how long to wait. */
  #failures = 0;
  #trouble = 0;
  #pollFailures = 0;
  /** Monotonic time at which the last session ended. */
  #lostAt: number | undefined = Number.NEGATIVE_INFINITY;

  constructor(deps: SupervisorDeps, options: SupervisorOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#tier = options.transport === 'poll' ? 'poll' : 'stream';
    this.#state = { kind: 'dialing', tier: this.#tier, sinceMs: deps.clock.now(), detail: 'first connection' };
  }

  /** What is going on. */
  get state(): LinkState {
    return this.#state;
  }

  /** How long there has been no session, in milliseconds: 0 while one is up, infinite before the first. */
  get withoutSessionMs(): number {
    return this.#lostAt === undefined ? 0 : this.#deps.clock.monotonic() - this.#lostAt;
  }

  async run(signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        signal.throwIfAborted();
        const end = await this.#hold(this.#start(this.#tier, signal), signal);
        this.#lostAt ??= this.#deps.clock.monotonic();
        signal.throwIfAborted();
        const { waitMs, detail } = this.#judge(end);
        const sinceMs = this.#deps.clock.now();
        this.#state = { kind: 'waiting', tier: this.#tier, sinceMs, untilMs: sinceMs + waitMs, detail };
        await this.#deps.clock.sleep(waitMs, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  #start(tier: Tier, signal: AbortSignal): Session {
    if (this.#state.kind !== 'up')
      this.#state = { kind: 'dialing', tier, sinceMs: this.#deps.clock.now(), detail: this.#state.detail };
    return this.#deps.start(tier, signal);
  }

  #opened(session: Session): void {
    const { resume, clock } = this.#deps;
    this.#state = { kind: 'up', tier: session.tier, sinceMs: clock.now(), detail: '' };
    this.#pollFailures = 0;
    this.#lostAt = undefined;
    resume();
  }

  /** Follows a session, and those that replace it, to the end of the last one. */
  async #hold(first: Session, signal: AbortSignal): Promise<SessionEnd> {
    const opened = await Promise.race([first.welcomed.then(() => true), first.ended.then(() => false)]);
    if (!opened) return this.#ended(first);
    this.#opened(first);
    let current = first;
    let attempt = 0;
    let dialedBeside = false;
    const stop = new AbortController();
    try {
      let probing = this.#probeLater(current, 0, AbortSignal.any([signal, stop.signal]));
      for (let probes = 1; ; ) {
        const event = await Promise.race([
          current.ended.then(() => 'ended' as const),
          current.renew.then(() => 'renew' as const),
          probing,
        ]);
        if (event === 'ended') return ownDoing(await this.#ended(current), dialedBeside);
        const tier = event === 'renew' ? current.tier : 'stream';
        const next = await this.#replace(current, tier, signal);
        if (next) {
          if (next.tier !== current.tier) this.#move(next.tier, 'the network carries streams again');
          current = next;
          attempt = 0;
          dialedBeside = false;
          this.#opened(current);
          if (event === 'probed') probing = this.#probeLater(current, 0, AbortSignal.any([signal, stop.signal]));
          continue;
        }
        dialedBeside = true;
        if (event === 'renew') {
          const waitMs = backoffMs(attempt++, BACKOFF, this.#deps.random);
          const sleep = this.#deps.clock.sleep(waitMs, AbortSignal.any([signal, stop.signal]));
          await Promise.race([current.ended, sleep.catch(() => undefined)]);
        } else probing = this.#probeLater(current, probes++, AbortSignal.any([signal, stop.signal]));
      }
    } finally {
      stop.abort(new Error('the session has ended'));
    }
  }

  /** Opens another session before the current one ends; undefined when that failed. The current one ends only once the other is open. */
  async #replace(current: Session, tier: Tier, signal: AbortSignal): Promise<Session | undefined> {
    const next = this.#deps.start(tier, signal);
    const opened = await Promise.race([next.welcomed.then(() => true), next.ended.then(() => false)]);
    if (!opened) {
      await this.#ended(next);
      return undefined;
    }
    current.close('replaced by another session');
    await this.#ended(current);
    return next;
  }

  async #ended(session: Session): Promise<SessionEnd> {
    const end = await session.ended;
    this.#deps.observe?.ended(session.tier, end);
    return end;
  }

  /** Resolves once the stream works again; never outside `auto` or on the stream. Probes come ever later, up to the interval. */
  async #probeLater(current: Session, done: number, signal: AbortSignal): Promise<'probed'> {
    const { clock, random, probe, log } = this.#deps;
    const forever = new Promise<never>(() => undefined);
    if (this.#options.transport !== 'auto' || current.tier === 'stream') return forever;
    try {
      for (let count = done; ; count++) {
        const part = Math.max(1, FIRST_PROBE_PART / 2 ** count);
        await clock.sleep(jitter(this.#options.probeIntervalMs / part, 0.5, random), signal);
        if (await abortable(probe(signal), signal)) return 'probed';
        log.debug('network still carries no streams');
      }
    } catch (error) {
      if (signal.aborted) return forever;
      throw error;
    }
  }

  /** What an end means for the next dial. */
  #judge(end: SessionEnd): { readonly waitMs: number; readonly detail: string } {
    const { random, log, suspend } = this.#deps;
    switch (end.kind) {
      case 'closed':
        return { waitMs: this.#nextBackoff(), detail: 'closed' };
      case 'lost':
        return this.#judgeLost(end);
      case 'drained': {
        if (end.heldMs >= STABLE_MS) this.#stable();
        const waitMs =
          end.maxMs > 0 ? end.minMs + Math.floor(random() * Math.max(0, end.maxMs - end.minMs)) : this.#nextBackoff();
        log.info({ detail: end.detail, waitMs }, 'broker asked to connect again');
        return { waitMs, detail: end.detail };
      }
      case 'superseded': {
        const waitMs = jitter(Math.max(end.retryAfterMs ?? 0, SUPERSEDED_MS), 0.1, random);
        log.warn({ detail: end.detail, waitMs }, 'another process of this agent has the session: standing by');
        suspend('superseded by another process of this agent');
        return { waitMs, detail: end.detail };
      }
      case 'halted': {
        const base = end.reason === 'duplicate_identity' ? DUPLICATE_MS : HALTED_MS;
        const waitMs = jitter(Math.max(end.retryAfterMs ?? 0, base), 0.1, random);
        log.error({ code: end.reason, error: end.detail, waitMs }, 'agent may not act: nothing is written, everything is kept');
        suspend(haltText(end.reason));
        return { waitMs, detail: `${haltText(end.reason)}: ${end.detail}` };
      }
      case 'untrusted': {
        const waitMs = this.#nextBackoff();
        log.error({ code: 'certificate', reason: end.reason, error: end.detail, waitMs }, 'broker certificate is not accepted');
        return { waitMs, detail: end.detail };
      }
      case 'refused': {
        const waitMs = jitter(Math.max(end.retryAfterMs ?? 0, REFUSED_MS), 0.1, random);
        log.error({ code: 'unsupported_version', error: end.detail, waitMs }, 'broker refused the session');
        return { waitMs, detail: end.detail };
      }
    }
  }

  #judgeLost(end: Extract<SessionEnd, { kind: 'lost' }>): { readonly waitMs: number; readonly detail: string } {
    const { log } = this.#deps;
    const { heldMs, welcomed, code, detail } = end;
    if (welcomed && heldMs >= STABLE_MS) this.#stable();
    else if (this.#tier === 'stream') this.#trouble += end.unanswered ? TROUBLE_LIMIT / 2 : TROUBLE_LIMIT / 3;
    else if (!welcomed) this.#pollFailures++;
    const waitMs = Math.max(end.retryAfterMs ?? 0, this.#nextBackoff());
    log.warn({ tier: this.#tier, heldMs, welcomed, code, error: detail, waitMs }, 'connection to the broker lost');
    if (this.#options.transport === 'auto') {
      if (this.#tier === 'stream' && this.#trouble >= TROUBLE_LIMIT) this.#move('poll', 'streams do not work');
      else if (this.#tier === 'poll' && this.#pollFailures >= POLL_FAILURES) this.#move('stream', 'polls do not work either');
    }
    return { waitMs, detail };
  }

  #move(tier: Tier, why: string): void {
    this.#tier = tier;
    this.#trouble = 0;
    this.#pollFailures = 0;
    this.#deps.log.info({ to: tier, why }, 'changing the way to the broker');
    this.#deps.observe?.moved(tier);
  }

  #stable(): void {
    this.#failures = 0;
    this.#trouble = 0;
  }

  #nextBackoff(): number {
    return backoffMs(this.#failures++, BACKOFF, this.#deps.random);
  }
}

/** A session of ours that reached the broker but not us has superseded the one before: nobody else is at work. */
function ownDoing(end: SessionEnd, dialedBeside: boolean): SessionEnd {
  if (end.kind !== 'superseded' || !dialedBeside) return end;
  const { retryAfterMs } = end;
  return {
    kind: 'lost',
    heldMs: STABLE_MS,
    welcomed: true,
    unanswered: false,
    retryAfterMs,
    code: 'superseded',
    detail: 'ended by a dial of our own',
  };
}

function haltText(reason: HaltReason): string {
  switch (reason) {
    case 'inactive':
      return 'the agent is inactive';
    case 'unauthorized':
      return 'the key is not accepted';
    case 'deleted':
      return 'the agent was deleted';
    case 'duplicate_identity':
      return 'the key is in use on another cluster';
  }
}
