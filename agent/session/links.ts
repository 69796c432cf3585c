import type { Clock } from '#lib/clock.ts';
import type { AgentConfig } from '../config.ts';
import type { AgentMetrics } from '../metrics.ts';
import { checkBroker } from '../transport/check.ts';
import { type Endpoint, readEndpoint } from '../transport/endpoint.ts';
import { createPollTransport } from '../transport/poll.ts';
import { registerWith } from '../transport/register.ts';
import { carriesStreams, createStreamTransport } from '../transport/stream.ts';
import type { Tier } from '../transport/wire.ts';
import { type Session, type SessionDeps, startSession } from './session.ts';

/** How long a look for the stream may take. */
const PROBE_MS = 5_000;

/** The ways to the broker, ready to dial. */
export interface Links {
  /** Reads key and certificates anew. */
  readEndpoint(): Promise<Endpoint>;
  /** Dials one session. */
  start(tier: Tier, deps: SessionDeps, signal: AbortSignal): Session;
  /** Whether the network carries streams now. */
  probe(signal: AbortSignal): Promise<boolean>;
  /** Opens a connection of its own and asks the broker whose the key is. Rejects when there is no such answer. */
  check(signal: AbortSignal): Promise<void>;
  /** Registers the agent with a generator. */
  register(generatorId: string, signal: AbortSignal): Promise<void>;
}

/** Builds them; nothing is opened before the first dial. */
export function createLinks(
  { agent }: AgentConfig,
  { env, clock }: { readonly env: Readonly<Record<string, string | undefined>>; readonly clock: Clock },
  metrics: AgentMetrics,
): Links {
  const read = () => readEndpoint(agent, env);
  const observe = (success: boolean, seconds: number) => {
    metrics.polls.inc({ status: success ? 'success' : 'error' });
    metrics.pollSeconds.observe(seconds);
    if (success) metrics.lastPoll.set(clock.now() / 1000);
  };
  const transports = {
    stream: createStreamTransport({ readEndpoint: read, clock }),
    poll: createPollTransport({ readEndpoint: read, clock, observe }, { holdMs: agent.pollingIntervalMs }),
  };
  return {
    readEndpoint: read,
    start: (tier, deps, signal) => startSession(transports[tier], deps, signal),
    async probe(signal) {
      using deadline = clock.deadline(PROBE_MS, signal);
      try {
        return await carriesStreams(await read(), deadline.signal);
      } catch {
        signal.throwIfAborted();
        return false;
      }
    },
    check: async (signal) => checkBroker(await read(), signal),
    register: async (id, signal) => registerWith(id, await read(), clock, signal),
  };
}
