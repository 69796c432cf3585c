import { AgentService, AgentStatus, EventStatus, Presence } from '#proto/brokkr/v1/agents_pb.js';
import { GeneratorService } from '#proto/brokkr/v1/generators_pb.js';
import { KeyRole, KeyService } from '#proto/brokkr/v1/keys_pb.js';
import { StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { type Cli, connect } from './cli.ts';
import type { Client } from './client.ts';
import { usageError } from './failure.ts';
import { listRest, type OutputFormat, printDocument } from './output.ts';
import { getAgent, getGenerator, getKey, getStack } from './resolve.ts';
import { ageText, enumText, timeText } from './show.ts';
import { type Cell, table } from './terminal.ts';

/** What can be listed. */
export const KINDS = ['agents', 'generators', 'stacks', 'deployments', 'events', 'keys'] as const;

/** One of them. */
export type Kind = (typeof KINDS)[number];

/** Options of `brokkr get`. */
export interface GetOptions {
  readonly output: OutputFormat;
  readonly limit: number;
  /** Events, deployments: of this stack. */
  readonly stack?: string;
  /** Events: of this agent. */
  readonly agent?: string;
  /** Stacks, agents: with this label. */
  readonly label?: string;
}

interface Request {
  readonly cli: Cli;
  readonly client: Client;
  readonly name: string | undefined;
  readonly options: GetOptions;
}

interface Rows {
  readonly header: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
  readonly more: boolean;
}

/** How one kind is listed: the REST path of its JSON, and its rows for people. */
interface Listing {
  path(request: Request): Promise<{ readonly path: string; readonly single: boolean }>;
  rows(request: Request): Promise<Rows>;
}

/** `brokkr get KIND [NAME]`. JSON and YAML are what the REST API answers. */
export async function get(cli: Cli, kind: Kind, name: string | undefined, options: GetOptions): Promise<void> {
  const request: Request = { cli, client: await connect(cli), name, options };
  const listing = LISTINGS[kind];
  if (options.output !== 'table') {
    const { path, single } = await listing.path(request);
    const answer = single
      ? (await request.client.rest('GET', path, cli.signal)).body
      : [...(await listRest(request.client, path, options.limit, cli.signal)).items];
    return printDocument(cli.terminal, options.output, answer);
  }
  const { header, rows, more } = await listing.rows(request);
  for (const line of table(header, rows, cli.terminal.paint)) cli.terminal.line(line);
  if (more) cli.terminal.note(`there are more: --limit shows the first ${options.limit}`);
}

const agents: Listing = {
  async path({ client, name, options, cli }) {
    if (name === undefined) return { path: `/api/v1/agents${query({ label: options.label })}`, single: false };
    return { path: `/api/v1/agents/${(await getAgent(client, name, cli.signal)).id}`, single: true };
  },
  async rows({ client, name, options, cli }) {
    const { items, more } =
      name === undefined
        ? await pages(options.limit, async (page) => {
            const answer = await client.call(AgentService.method.listAgents, { ...page, label: options.label ?? '' }, cli.signal);
            return { items: answer.agents, token: answer.nextPageToken };
          })
        : { items: [await getAgent(client, name, cli.signal)], more: false };
    const rows = items.map((agent) => [
      agent.name,
      agent.clusterName,
      agent.status === AgentStatus.INACTIVE ? { text: 'INACTIVE', colour: 'yellow' as const } : 'ACTIVE',
      presenceCell(agent.presence),
      agent.transport ?? '-',
      agent.agentVersion ?? '-',
      agent.kubernetesVersion ?? '-',
      ageText(agent.lastHeartbeat, cli.clock.now()),
    ]);
    return { header: ['NAME', 'CLUSTER', 'STATUS', 'PRESENCE', 'TRANSPORT', 'VERSION', 'KUBERNETES', 'HEARTBEAT'], rows, more };
  },
};

const generators: Listing = {
  async path({ client, name, cli }) {
    if (name === undefined) return { path: '/api/v1/generators', single: false };
    return { path: `/api/v1/generators/${(await getGenerator(client, name, cli.signal)).id}`, single: true };
  },
  async rows({ client, name, options, cli }) {
    const { items, more } =
      name === undefined
        ? await pages(options.limit, async (page) => {
            const answer = await client.call(GeneratorService.method.listGenerators, page, cli.signal);
            return { items: answer.generators, token: answer.nextPageToken };
          })
        : { items: [await getGenerator(client, name, cli.signal)], more: false };
    const now = cli.clock.now();
    const rows = items.map((generator) => [
      generator.name,
      generator.isActive ? 'yes' : { text: 'no', colour: 'yellow' as const },
      ageText(generator.lastActiveAt, now),
      ageText(generator.createdAt, now),
      generator.id,
    ]);
    return { header: ['NAME', 'ACTIVE', 'LAST USED', 'AGE', 'ID'], rows, more };
  },
};

const stacks: Listing = {
  async path({ client, name, options, cli }) {
    if (name === undefined) return { path: `/api/v1/stacks${query({ label: options.label })}`, single: false };
    return { path: `/api/v1/stacks/${(await getStack(client, name, cli.signal)).id}`, single: true };
  },
  async rows({ client, name, options, cli }) {
    const { items, more } =
      name === undefined
        ? await pages(options.limit, async (page) => {
            const answer = await client.call(StackService.method.listStacks, { ...page, label: options.label ?? '' }, cli.signal);
            return { items: answer.stacks, token: answer.nextPageToken };
          })
        : { items: [await getStack(client, name, cli.signal)], more: false };
    const now = cli.clock.now();
    const rows = items.map((stack) => [
      stack.name,
      String(stack.generation),
      stack.options?.paused ? { text: 'yes', colour: 'yellow' as const } : 'no',
      ageText(stack.createdAt, now),
      ageText(stack.updatedAt, now),
      stack.id,
    ]);
    return { header: ['NAME', 'GENERATION', 'PAUSED', 'AGE', 'CHANGED', 'ID'], rows, more };
  },
};

const deployments: Listing = {
  async path(request) {
    return { path: `/api/v1/stacks/${await stackIdOf(request)}/deployment-objects`, single: false };
  },
  async rows(request) {
    const { client, options, cli } = request;
    const stackId = await stackIdOf(request);
    const { items, more } = await pages(options.limit, async (page) => {
      const answer = await client.call(StackService.method.listDeploymentObjects, { ...page, stackId }, cli.signal);
      return { items: answer.deploymentObjects, token: answer.nextPageToken };
    });
    const rows = items.map((object) => [
      String(object.revision),
      String(object.objectCount),
      object.isDeletionMarker ? 'yes' : 'no',
      object.yamlChecksum.slice(0, 12),
      timeText(object.submittedAt),
      object.id,
    ]);
    return { header: ['REVISION', 'OBJECTS', 'DELETION', 'CHECKSUM', 'SUBMITTED', 'ID'], rows, more };
  },
};

const events: Listing = {
  async path(request) {
    if (request.name !== undefined) return { path: `/api/v1/agent-events/${encodeURIComponent(request.name)}`, single: true };
    const { agentId, stackId } = await eventFilter(request);
    return { path: `/api/v1/agent-events${query({ agent_id: agentId, stack_id: stackId })}`, single: false };
  },
  async rows(request) {
    const { client, options, cli, name } = request;
    if (name !== undefined) {
      const { event } = await client.call(AgentService.method.getAgentEvent, { id: name }, cli.signal);
      return eventRows(event ? [event] : [], new Map(), false);
    }
    const filter = await eventFilter(request);
    const { items, more } = await pages(options.limit, async (page) => {
      const answer = await client.call(AgentService.method.listAgentEvents, { ...page, ...filter }, cli.signal);
      return { items: answer.events, token: answer.nextPageToken };
    });
    const [named, stackNames] = await Promise.all([
      client.call(AgentService.method.listAgents, { limit: 1_000 }, cli.signal),
      client.call(StackService.method.listStacks, { limit: 1_000 }, cli.signal),
    ]);
    const names = new Map([...named.agents, ...stackNames.stacks].map(({ id, name: text }) => [id, text]));
    return eventRows(items, names, more);
  },
};

type Event = Awaited<ReturnType<typeof oneEvent>>;
declare function oneEvent(): Promise<NonNullable<import('#proto/brokkr/v1/agents_pb.js').GetAgentEventResponse['event']>>;

function eventRows(items: readonly Event[], names: ReadonlyMap<string, string>, more: boolean): Rows {
  const rows = items.map((event) => [
    timeText(event.occurredAt ?? event.createdAt),
    names.get(event.agentId) ?? event.agentId,
    names.get(event.stackId ?? '') ?? event.stackId ?? '-',
    event.generation === undefined ? '-' : String(event.generation),
    event.eventType,
    event.status === EventStatus.FAILURE ? { text: 'FAILURE', colour: 'red' as const } : { text: 'SUCCESS', colour: 'green' as const },
    event.message ?? '',
  ]);
  return { header: ['TIME', 'AGENT', 'STACK', 'GENERATION', 'TYPE', 'STATUS', 'MESSAGE'], rows, more };
}
