import { backoffMs } from '#lib/backoff.ts';
import type { Clock } from '#lib/clock.ts';
import { Health, Phase } from '#proto/brokkr/v1/content_pb.js';
import { type AgentStackStatus, type GetStackStatusResponse, StackService } from '#proto/brokkr/v1/stacks_pb.js';
import type { Client } from './client.ts';
import { CliError } from './failure.ts';

/** Where a generation stands on one agent. */
export type Standing = 'pending' | 'healthy' | 'refused' | 'failing';

/** How a wait ended, over all targeted agents. */
export type WaitEnd =
  | { readonly kind: 'healthy'; readonly status: GetStackStatusResponse }
  | { readonly kind: 'failed'; readonly failed: readonly AgentStackStatus[]; readonly status: GetStackStatusResponse }
  | { readonly kind: 'timeout'; readonly pending: readonly AgentStackStatus[]; readonly failed: readonly AgentStackStatus[] };

/** What `untilHealthy` waits for. */
export interface WaitOptions {
  readonly stackId: string;
  readonly generation: bigint;
  readonly timeoutMs: number;
  /** Told of every change. */
  readonly onStatus?: (status: GetStackStatusResponse) => void;
}

/** An agent tries again after a failure: only one that lasts this long ends the wait. */
const FAILURE_LASTS_MS = 10_000;
const REDIAL = { baseMs: 250, capMs: 5_000 } as const;
/** Streams that broke off one after the other before the wait gives up. */
const MAX_REDIALS = 20;
/** A stream is asked for anew after this long: the first message of each is the status of that moment. */
const WINDOW_MS = 5_000;
/** Errors that a broker's restart explains. */
const PASSING: ReadonlySet<string> = new Set(['unreachable', 'draining', 'unavailable', 'database_unavailable', 'not_a_broker']);

/** Where `generation` (or a newer one) stands on an agent, and whether that is final. */
export function standingOf(agent: AgentStackStatus, generation: bigint): Standing {
  const { appliedGeneration, receivedGeneration, phase, health } = agent;
  if (appliedGeneration >= generation && phase === Phase.APPLIED && health === Health.HEALTHY) return 'healthy';
  if (receivedGeneration < generation) return 'pending';
  if (phase === Phase.REFUSED || phase === Phase.ROLLED_BACK) return 'refused';
  return phase === Phase.FAILED || (phase === Phase.APPLIED && health === Health.FAILING) ? 'failing' : 'pending';
}

/** The agents the stack is meant for, also those for which a gate holds all of it; others are on their way out. */
export function targetedAgents(status: GetStackStatusResponse): AgentStackStatus[] {
  return status.agents.filter(({ desiredGeneration, heldGeneration }) => desiredGeneration > 0n || heldGeneration !== undefined);
}

/**
 * Waits until every targeted agent has applied the generation and is healthy, or cannot be expected to: it refused, went back, or
 * failed for 10 s on end. Follows the status stream, dialled again when it breaks off (20 times at most).
 */
export async function untilHealthy(
  client: Client,
  { stackId, generation, timeoutMs, onStatus }: WaitOptions,
  clock: Clock,
  signal: AbortSignal,
): Promise<WaitEnd> {
  using deadline = clock.deadline(timeoutMs, signal);
  const failingSince = new Map<string, number>();
  let latest: GetStackStatusResponse | undefined;
  const sorted = (status: GetStackStatusResponse) => {
    const agents = targetedAgents(status);
    const standing = (agent: AgentStackStatus) => standingOf(agent, generation);
    for (const agent of agents) {
      if (standing(agent) !== 'failing') failingSince.delete(agent.agentId);
      else if (!failingSince.has(agent.agentId)) failingSince.set(agent.agentId, clock.monotonic());
    }
    const lasting = (agent: AgentStackStatus) =>
      clock.monotonic() - (failingSince.get(agent.agentId) ?? Number.POSITIVE_INFINITY) >= FAILURE_LASTS_MS;
    const failed = agents.filter((agent) => standing(agent) === 'refused' || lasting(agent));
    return { failed, pending: agents.filter((agent) => standing(agent) !== 'healthy' && !failed.includes(agent)) };
  };
  const settled = (status: GetStackStatusResponse): WaitEnd | undefined => {
    const { failed, pending } = sorted(status);
    if (pending.length > 0) return undefined;
    return failed.length > 0 ? { kind: 'failed', failed, status } : { kind: 'healthy', status };
  };
  try {
    for await (const status of statusChanges(client, stackId, clock, deadline.signal)) {
      latest = status;
      onStatus?.(status);
      const end = settled(status);
      if (end) return end;
    }
  } catch (error) {
    if (signal.aborted || !deadline.signal.aborted) throw error;
  }
  const left = latest ? sorted(latest) : { failed: [], pending: [] };
  const failing = left.pending.filter((agent) => standingOf(agent, generation) === 'failing');
  return { kind: 'timeout', pending: left.pending, failed: [...left.failed, ...failing] };
}

/**
 * The status of a stack now, at every change, and at least every 5 s (so that a caller can judge how long something
 * lasts). Never ends by itself: throws when `signal` aborts, when the stack is gone, or when the broker cannot be
 * reached 20 times in a row.
 */
export async function* statusChanges(
  client: Client,
  stackId: string,
  clock: Clock,
  signal: AbortSignal,
): AsyncGenerator<GetStackStatusResponse> {
  for (let failures = 0; ; ) {
    using window = clock.deadline(WINDOW_MS, signal);
    try {
      for await (const { status } of client.watch(StackService.method.watchStackStatus, { stackId }, window.signal)) {
        failures = 0;
        if (status) yield status;
      }
      failures++;
    } catch (error) {
      signal.throwIfAborted();
      if (window.signal.aborted) continue; // asks anew
      if (!(error instanceof CliError && PASSING.has(error.code)) || failures >= MAX_REDIALS) throw error;
      failures++;
    }
    await clock.sleep(
      backoffMs(failures, REDIAL, () => 1),
      signal,
    );
  }
}
