import { type AgentEvent, AgentService, EventStatus } from '#proto/brokkr/v1/agents_pb.js';
import { StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { CliError } from '../failure.ts';
import { getAgent, getStack } from '../resolve.ts';
import { timeText } from '../show.ts';
import { entries, type Listing, query, type Request } from './listing.ts';

/** `brokkr get events`: outcomes of attempts, newest first. */
export const events: Listing = {
  async path(request) {
    if (request.name !== undefined) return { path: `/api/v1/agent-events/${encodeURIComponent(request.name)}`, single: true };
    const { agentId, stackId } = await filterOf(request);
    return { path: `/api/v1/agent-events${query({ agent_id: agentId, stack_id: stackId })}`, single: false };
  },
  async rows(request) {
    const { client, cli } = request;
    const filter = await filterOf(request);
    const { items, more } = await entries<AgentEvent>(
      request,
      async (id) => {
        const { event } = await client.call(AgentService.method.getAgentEvent, { id }, cli.signal);
        if (!event) throw new CliError('agent_event_not_found', `no event ${id}`);
        return event;
      },
      async (page) => {
        const method = AgentService.method.listAgentEvents;
        const { events: found, nextPageToken } = await client.call(method, { ...page, ...filter }, cli.signal);
        return { items: found, token: nextPageToken };
      },
    );
    const names = await namesOf(request);
    const rows = items.map((event) => [
      timeText(event.occurredAt ?? event.createdAt),
      names.get(event.agentId) ?? event.agentId,
      event.stackId === undefined ? '-' : (names.get(event.stackId) ?? event.stackId),
      event.generation === undefined ? '-' : String(event.generation),
      event.eventType,
      event.status === EventStatus.FAILURE
        ? { text: 'FAILURE', colour: 'red' as const }
        : { text: 'SUCCESS', colour: 'green' as const },
      event.message ?? '',
    ]);
    return { header: ['TIME', 'AGENT', 'STACK', 'GENERATION', 'TYPE', 'STATUS', 'MESSAGE'], rows, more };
  },
};

async function filterOf({ client, options, cli }: Request): Promise<{ agentId: string; stackId: string }> {
  const { agent, stack } = options;
  return {
    agentId: agent === undefined ? '' : (await getAgent(client, agent, cli.signal)).id,
    stackId: stack === undefined ? '' : (await getStack(client, stack, cli.signal)).id,
  };
}

/** Names by id of up to 1,000 agents and stacks; others are shown by their id. */
async function namesOf({ client, cli }: Request): Promise<ReadonlyMap<string, string>> {
  const [{ agents }, { stacks }] = await Promise.all([
    client.call(AgentService.method.listAgents, { limit: 1_000 }, cli.signal),
    client.call(StackService.method.listStacks, { limit: 1_000 }, cli.signal),
  ]);
  return new Map([
    ...agents.map(({ id, clusterName, name }) => [id, `${clusterName}/${name}`] as const),
    ...stacks.map(({ id, name }) => [id, name] as const),
  ]);
}
