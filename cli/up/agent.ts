import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { Clock } from '#lib/clock.ts';
import { type Agent, AgentService } from '#proto/brokkr/v1/agents_pb.js';
import { KeyService } from '#proto/brokkr/v1/keys_pb.js';
import { type Client, createClient } from '../client.ts';
import { CliError } from '../failure.ts';
import { type Place, readSecret, writeSecret } from './place.ts';

/** Name, cluster and label of the agent of `brokkr up`. */
export const LOCAL = 'local';

/**
 * Makes sure that the broker knows the agent, that it has its label, and that its key is in `agent.key`. A key that is
 * missing or no longer works is replaced.
 */
export async function prepareAgent(client: Client, place: Place, clock: Clock, signal: AbortSignal): Promise<string> {
  const path = place.path('agent.key');
  const present = await findLocal(client, signal);
  if (!present) {
    const request = { name: LOCAL, clusterName: LOCAL, labels: [LOCAL] };
    const { agent, initialPak } = await client.call(AgentService.method.createAgent, request, signal);
    await writeSecret(path, initialPak);
    return agent?.id ?? '';
  }
  const { id } = present;
  const { labels } = await client.call(AgentService.method.listAgentLabels, { agentId: id }, signal);
  if (!labels.some(({ label }) => label === LOCAL)) {
    await client.call(AgentService.method.addAgentLabel, { agentId: id, label: LOCAL }, signal);
  }
  if (!(await works(client.url, await readSecret(path), id, clock, signal))) {
    const { pak } = await client.call(AgentService.method.rotateAgentPak, { id }, signal);
    await writeSecret(path, pak);
  }
  return id;
}

async function findLocal(client: Client, signal: AbortSignal): Promise<Agent | undefined> {
  try {
    return (await client.call(AgentService.method.findAgent, { name: LOCAL, clusterName: LOCAL }, signal)).agent;
  } catch (error) {
    if (error instanceof CliError && error.code === 'agent_not_found') return undefined;
    throw error;
  }
}

async function works(url: string, pak: string | undefined, id: string, clock: Clock, signal: AbortSignal): Promise<boolean> {
  if (!pak) return false;
  try {
    const client = await createClient({ broker_url: url, pak }, { clock });
    return (await client.call(KeyService.method.checkPak, {}, signal)).agent === id;
  } catch (error) {
    if (error instanceof CliError && error.code === 'unauthorized') return false;
    throw error;
  }
}

const ASK_AGAIN_MS = 50;

/** When the broker last heard of the agent, in ms since 1970; 0 when never. */
export async function lastHeardMs(client: Client, id: string, signal: AbortSignal): Promise<number> {
  const { agent } = await client.call(AgentService.method.getAgent, { id }, signal);
  return agent?.lastHeartbeat ? timestampMs(agent.lastHeartbeat) : 0;
}

/** What `untilOnline` waits for. */
export interface Online {
  readonly agentId: string;
  /** What `lastHeardMs` said before the agent was started: its presence outlives it by some heartbeats. */
  readonly heardBeforeMs: number;
  readonly limitMs: number;
}

/** Resolves once the agent that was just started has a session; false after the limit without one. */
export async function untilOnline(
  client: Client,
  { agentId, heardBeforeMs, limitMs }: Online,
  clock: Clock,
  signal: AbortSignal,
): Promise<boolean> {
  using deadline = clock.deadline(limitMs, signal);
  try {
    while ((await lastHeardMs(client, agentId, deadline.signal)) <= heardBeforeMs) {
      await clock.sleep(ASK_AGAIN_MS, deadline.signal);
    }
    return true;
  } catch (error) {
    if (signal.aborted || !deadline.signal.aborted) throw error;
    return false;
  }
}
