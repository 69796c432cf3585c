import type { Clock } from '#lib/clock.ts';
import { type Agent, AgentService, Presence } from '#proto/brokkr/v1/agents_pb.js';
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

/** Resolves once the agent has a session; false after `limitMs` without one. */
export async function untilOnline(
  client: Client,
  agentId: string,
  limitMs: number,
  clock: Clock,
  signal: AbortSignal,
): Promise<boolean> {
  using deadline = clock.deadline(limitMs, signal);
  try {
    for (;;) {
      const { agent } = await client.call(AgentService.method.getAgent, { id: agentId }, deadline.signal);
      if (agent?.presence === Presence.ONLINE) return true;
      await clock.sleep(ASK_AGAIN_MS, deadline.signal);
    }
  } catch (error) {
    if (signal.aborted || !deadline.signal.aborted) throw error;
    return false;
  }
}
