import type { Agent } from '#proto/brokkr/v1/agents_pb.js';
import { AgentService } from '#proto/brokkr/v1/agents_pb.js';
import { type Generator, GeneratorService } from '#proto/brokkr/v1/generators_pb.js';
import { type Key, KeyService } from '#proto/brokkr/v1/keys_pb.js';
import { type Stack, StackService } from '#proto/brokkr/v1/stacks_pb.js';
import type { Client } from './client.ts';
import { CliError } from './failure.ts';

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const PAGE = 500;
/** A name is looked for among this many; beyond it, ids are needed. */
const MAX_LISTED = 20_000;

/** The stack with this name or id. */
export async function getStack(client: Client, name: string, signal: AbortSignal): Promise<Stack> {
  const { stack } = UUID.test(name)
    ? await client.call(StackService.method.getStack, { id: name }, signal)
    : await client.call(StackService.method.findStack, { name }, signal);
  return present(stack);
}

/** The agent `NAME`, `CLUSTER/NAME` or id. Throws when there is none, or several in different clusters. */
export async function getAgent(client: Client, name: string, signal: AbortSignal): Promise<Agent> {
  if (UUID.test(name)) return present((await client.call(AgentService.method.getAgent, { id: name }, signal)).agent);
  const slash = name.indexOf('/');
  if (slash > 0) {
    const wanted = { clusterName: name.slice(0, slash), name: name.slice(slash + 1) };
    return present((await client.call(AgentService.method.findAgent, wanted, signal)).agent);
  }
  const agents = await allPages(async (pageToken) => {
    const { agents: items, nextPageToken } = await client.call(
      AgentService.method.listAgents,
      { limit: PAGE, pageToken },
      signal,
    );
    return { items, nextPageToken };
  });
  const found = agents.filter((agent) => agent.name === name);
  if (found.length > 1) {
    const hint = `name one: ${found.map((agent) => `${agent.clusterName}/${agent.name}`).join(', ')}`;
    throw new CliError('ambiguous_name', `${found.length} agents are named ${name}`, { hint });
  }
  if (!found[0]) throw new CliError('agent_not_found', `no agent named ${name}`);
  return found[0];
}

/** The generator with this name or id. */
export async function getGenerator(client: Client, name: string, signal: AbortSignal): Promise<Generator> {
  if (UUID.test(name)) return present((await client.call(GeneratorService.method.getGenerator, { id: name }, signal)).generator);
  const generators = await allPages(async (pageToken) => {
    const page = await client.call(GeneratorService.method.listGenerators, { limit: PAGE, pageToken }, signal);
    return { items: page.generators, nextPageToken: page.nextPageToken };
  });
  const found = generators.find((generator) => generator.name === name);
  if (!found) throw new CliError('generator_not_found', `no generator named ${name}`);
  return found;
}

/** The key in use with this id, name or short token. */
export async function getKey(client: Client, name: string, signal: AbortSignal): Promise<Key> {
  const keys = await allPages(async (pageToken) => {
    const page = await client.call(KeyService.method.listKeys, { limit: PAGE, pageToken }, signal);
    return { items: page.keys, nextPageToken: page.nextPageToken };
  });
  const found = keys.filter((key) => !key.revokedAt && [key.id, key.name, key.shortToken].includes(name));
  if (found.length > 1) {
    const hint = `name one by its id: ${found.map(({ id }) => id).join(', ')}`;
    throw new CliError('ambiguous_name', `${found.length} keys are named ${name}`, { hint });
  }
  if (!found[0]) throw new CliError('key_not_found', `no key named ${name}`);
  return found[0];
}

async function allPages<T>(page: (token: string) => Promise<{ items: T[]; nextPageToken: string }>): Promise<T[]> {
  const all: T[] = [];
  let token = '';
  do {
    const { items, nextPageToken } = await page(token);
    all.push(...items);
    token = nextPageToken;
  } while (token !== '' && all.length < MAX_LISTED);
  return all;
}

function present<T>(value: T | undefined): T {
  if (value === undefined) throw new CliError('not_a_broker', 'the answer of the broker is incomplete');
  return value;
}
