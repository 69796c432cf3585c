import { AgentService, AgentStatus, Presence } from '#proto/brokkr/v1/agents_pb.js';
import { getAgent } from '../resolve.ts';
import { ageText, enumText } from '../show.ts';
import type { Cell } from '../terminal.ts';
import { entries, type Listing, query } from './listing.ts';

/** `brokkr get agents`. */
export const agents: Listing = {
  async path({ client, name, options, cli }) {
    if (name === undefined) return { path: `/api/v1/agents${query({ label: options.label })}`, single: false };
    return { path: `/api/v1/agents/${(await getAgent(client, name, cli.signal)).id}`, single: true };
  },
  async rows(request) {
    const { client, options, cli } = request;
    const { items, more } = await entries(
      request,
      (name) => getAgent(client, name, cli.signal),
      async (page) => {
        const filter = { ...page, label: options.label ?? '' };
        const { agents: found, nextPageToken } = await client.call(AgentService.method.listAgents, filter, cli.signal);
        return { items: found, token: nextPageToken };
      },
    );
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

function presenceCell(presence: Presence): Cell {
  const text = enumText(Presence, presence);
  if (presence === Presence.ONLINE) return { text, colour: 'green' };
  return presence === Presence.STALE || presence === Presence.OFFLINE ? { text, colour: 'yellow' } : text;
}
