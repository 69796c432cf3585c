import type { PartialFacts } from '#flows/model/facts.ts';
import { AgentService } from '#proto/brokkr/v1/agents_pb.js';
import type { ClusterNetwork } from '#proto/brokkr/v1/network_pb.js';
import type { Client } from '../client.ts';

/** An agent that gets a flow set, with what it found out about its cluster. */
export interface TargetedAgent {
  readonly id: string;
  readonly name: string;
  readonly network: ClusterNetwork | undefined;
}

/** Agents of one label that are looked at. */
const MAX_AGENTS = 1000;

/** The agents that have one of the labels, by name. */
export async function targetedAgents(
  client: Client,
  labels: readonly string[],
  signal: AbortSignal,
): Promise<readonly TargetedAgent[]> {
  const ids = new Set<string>();
  for (const label of labels) {
    const { agents } = await client.call(AgentService.method.listAgents, { label, limit: MAX_AGENTS }, signal);
    for (const { id } of agents) ids.add(id);
  }
  const found: TargetedAgent[] = [];
  for (const id of ids) {
    const { agent } = await client.call(AgentService.method.getAgent, { id }, signal); // lists have no facts
    if (agent) found.push({ id, name: agent.name, network: agent.network });
  }
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}

const PLUGINS: readonly string[] = ['calico', 'cilium', 'aws', 'ovn'] satisfies PartialFacts['cni'][];

/** What an agent found out, as facts; what it did not is left out. */
export function agentFacts(network: ClusterNetwork | undefined): PartialFacts {
  if (!network) return {};
  const { cni, podCidrs, serviceCidrs, nodeCidrs, apiServer, dns, ipFamilies } = network;
  return {
    ...(PLUGINS.includes(cni) && { cni: cni as NonNullable<PartialFacts['cni']> }),
    ...(podCidrs.length > 0 && { podCIDRs: podCidrs }),
    ...(serviceCidrs.length > 0 && { serviceCIDRs: serviceCidrs }),
    ...(nodeCidrs.length > 0 && { nodeCIDRs: nodeCidrs }),
    ...(apiServer && {
      apiServer: {
        ...(apiServer.serviceIp !== '' && { serviceIP: apiServer.serviceIp }),
        ...(apiServer.endpoints.length > 0 && { endpoints: apiServer.endpoints }),
        ...(apiServer.ports.length > 0 && { ports: apiServer.ports }),
      },
    }),
    ...(dns && {
      dns: {
        namespace: dns.namespace,
        selector: { matchLabels: dns.selector },
        ...(dns.ports.length > 0 && { ports: dns.ports }),
        nodeLocalIP: dns.nodeLocalIp,
      },
    }),
    ...(ipFamilies.length > 0 && { ipFamilies: ipFamilies as NonNullable<PartialFacts['ipFamilies']> }),
  };
}
