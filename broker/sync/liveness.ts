import { jitter } from '#lib/backoff.ts';
import type { Clock } from '#lib/clock.ts';
import type { Ping } from '#proto/brokkr/v1/sync_pb.js';
import type { AgentSession } from './session.ts';
import type { Heartbeat } from './store.ts';

/** When sessions count as dead or old. */
export interface LivenessOptions {
  readonly heartbeatIntervalMs: number;
  readonly pollHoldMs: number;
  readonly streamAgeMs: number;
}

interface Life {
  seenAtMs: number;
  renewAtMs: number;
  beat: Heartbeat;
}

/** Heartbeats after which silence means death. */
const MISSED_HEARTBEATS = 3;
/** A poller may need this long for a call besides the time it is held. */
const CALL_MS = 5_000;

/** Signs of life of the sessions of this replica, in memory; written to the database in sets by whoever asks for the beats. */
export class Liveness {
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #options: LivenessOptions;
  readonly #lives = new Map<AgentSession, Life>();

  constructor({ clock, random }: { readonly clock: Clock; readonly random: () => number }, options: LivenessOptions) {
    this.#clock = clock;
    this.#random = random;
    this.#options = options;
  }

  /** A session has begun. */
  begin(session: AgentSession): void {
    const now = this.#clock.monotonic();
    const renewAtMs = now + jitter(this.#options.streamAgeMs, 0.2, this.#random);
    this.#lives.set(session, { seenAtMs: now, renewAtMs, beat: emptyBeat(session) });
  }

  /** A session has ended. */
  end(session: AgentSession): void {
    this.#lives.delete(session);
  }

  /** Any frame or call of the agent. */
  seen(session: AgentSession): void {
    const life = this.#lives.get(session);
    if (life) life.seenAtMs = this.#clock.monotonic();
  }

  /** A heartbeat, with what it says about the cluster. */
  beat(session: AgentSession, { kubernetesReachable, kubernetesLatencyMs }: Ping): void {
    const life = this.#lives.get(session);
    if (life) life.beat = { ...emptyBeat(session), reachable: kubernetesReachable, latencyMs: kubernetesLatencyMs };
  }

  /** Nothing was heard for three heartbeats, or three polls. */
  isDead(session: AgentSession): boolean {
    const life = this.#lives.get(session);
    const { pollHoldMs, heartbeatIntervalMs } = this.#options;
    const silenceMs =
      session.options.transport === 'poll'
        ? MISSED_HEARTBEATS * (pollHoldMs + CALL_MS)
        : (MISSED_HEARTBEATS + 0.5) * heartbeatIntervalMs;
    return life !== undefined && this.#clock.monotonic() - life.seenAtMs > silenceMs;
  }

  /** The stream has reached its age; answers true once, then again after another age. */
  isOld(session: AgentSession): boolean {
    const life = this.#lives.get(session);
    const now = this.#clock.monotonic();
    if (!life || session.options.transport !== 'stream' || life.renewAtMs > now) return false;
    life.renewAtMs = now + this.#options.streamAgeMs;
    return true;
  }

  /** The last heartbeat of each session, taken out: what is said of the cluster is told once. */
  takeBeats(sessions: readonly AgentSession[]): Heartbeat[] {
    return sessions.map((session) => {
      const life = this.#lives.get(session);
      const beat = life?.beat ?? emptyBeat(session);
      if (life) life.beat = emptyBeat(session);
      return beat;
    });
  }
}

function emptyBeat({ options: { agentId, epoch } }: AgentSession): Heartbeat {
  return { agentId, epoch, reachable: undefined, latencyMs: undefined };
}
