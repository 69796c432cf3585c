import { type Hop, hopsOf } from '#flows/model/hops.ts';
import type { Endpoint, FirewallIdentity, Model, Protocol } from '#flows/model/model.ts';
import { peerCidrs } from './peers.ts';

/** An inclusive range of ports. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** The other end of a rule: groups where the platform has them, addresses where not. */
export interface FirewallPeer {
  /** CIDRs of both families; empty where only groups are known. */
  readonly cidrs: readonly string[];
  readonly awsSecurityGroup: string | undefined;
  readonly gcpTag: string | undefined;
  readonly azureApplicationSecurityGroup: string | undefined;
}

/** Connections that a firewall lets through. There is no other kind of rule: what none of them names is denied. */
export interface FirewallRule {
  readonly direction: 'inbound' | 'outbound';
  readonly protocol: Protocol;
  /** Sorted as declared; every port is 1 to 65535. */
  readonly ports: readonly PortRange[];
  readonly peer: FirewallPeer;
  /** The connections it was made for, at least one. */
  readonly hops: readonly Hop[];
}

/** The firewall of a host, or of all hosts of a zone or cluster: stateful, and closed but for its rules. */
export interface HostFirewall {
  /** Name of the endpoint, zone or cluster. */
  readonly name: string;
  readonly identity: FirewallIdentity;
  /** Inbound first, each direction in the order of the model's flows. */
  readonly rules: readonly FirewallRule[];
  /** Connections that could not be turned into a rule although nobody declared them wrongly: DNS at pods, which a host cannot name. */
  readonly notes: readonly string[];
}

/** All ports. */
const ALL: PortRange = { first: 1, last: 65_535 };

/**
 * The firewall that the flows of a model ask for at an endpoint, or at the edge of a zone or cluster (connections within it are nobody's
 * business there). Throws an `Error` for a name that is none of the three, for a peer without addresses or groups, and for a port name that
 * the destination does not declare.
 */
export function firewallOf(model: Model, name: string): HostFirewall {
  const members = membersOf(model, name);
  const endpoint = model.endpoints.get(name);
  const rules: FirewallRule[] = [];
  const unnamed = new Map<string, Set<string>>();
  for (const direction of ['inbound', 'outbound'] as const) {
    const merged = new Map<string, FirewallRule>();
    for (const hop of model.flows.flatMap((flow) => hopsOf(model, flow))) {
      const [near, far] = direction === 'inbound' ? [hop.to, hop.from] : [hop.from, hop.to];
      if (!members.has(near.name) || (members.has(far.name) && !(endpoint && near === far))) continue;
      const peer = peerOf(model, far, hop);
      if (peer === undefined) unnamed.set(far.name, (unnamed.get(far.name) ?? new Set()).add(hop.flow.id));
      else for (const protocol of hop.protocols) add(merged, { direction, protocol, ports: portsOf(hop), peer, hops: [hop] });
    }
    rules.push(...merged.values());
  }
  const notes = [...unnamed].map(([far, ids]) => {
    return `left out, since ${far} has no addresses outside the cluster: ${[...ids].join(', ')}`;
  });
  return { name, identity: endpoint?.firewall ?? NOBODY, rules, notes };
}

/** Ids of the flows that a rule lets through, each once, in the model's order. */
export function flowIds(rule: FirewallRule): readonly string[] {
  return [...new Set(rule.hops.map(({ flow }) => flow.id))];
}

const NOBODY: FirewallIdentity = {
  cidrs: [],
  awsSecurityGroup: undefined,
  gcpTag: undefined,
  azureApplicationSecurityGroup: undefined,
};

function membersOf(model: Model, name: string): ReadonlySet<string> {
  if (model.endpoints.has(name)) return new Set([name]);
  const zones = [...model.zones.values()].filter((zone) => zone.name === name || zone.cluster === name).map((zone) => zone.name);
  if (zones.length === 0) {
    const known = [...model.endpoints.keys(), ...model.zones.keys()];
    throw new Error(`no endpoint, zone or cluster is named ${name}; there are ${known.join(', ')}`);
  }
  return new Set([...model.endpoints.values()].filter(({ zone }) => zones.includes(zone)).map((endpoint) => endpoint.name));
}

function add(merged: Map<string, FirewallRule>, rule: FirewallRule): void {
  const key = JSON.stringify([rule.protocol, rule.ports, rule.peer]);
  const earlier = merged.get(key);
  merged.set(key, earlier ? { ...earlier, hops: [...earlier.hops, ...rule.hops] } : rule);
}

/** Undefined for what was added to the model and is no concern of hosts. */
function peerOf(model: Model, endpoint: Endpoint, { flow }: Hop): FirewallPeer | undefined {
  const { awsSecurityGroup, gcpTag, azureApplicationSecurityGroup } = endpoint.firewall;
  const cidrs = peerCidrs(model, endpoint);
  if (cidrs.length > 0 || (awsSecurityGroup ?? gcpTag ?? azureApplicationSecurityGroup) !== undefined)
    return { cidrs, awsSecurityGroup, gcpTag, azureApplicationSecurityGroup };
  if (flow.implicit) return undefined;
  throw new Error(`${flow.place}: flow ${flow.id} needs addresses or a group for ${endpoint.name}: give it firewall.cidrs`);
}

function portsOf({ to, flow, ports }: Hop): readonly PortRange[] {
  return ports.map((port) => {
    if (port.kind === 'all') return ALL;
    if (port.kind === 'range') return { first: port.first, last: port.last };
    const named = to.namedPorts[port.name];
    if (!named)
      throw new Error(
        `${flow.place}: flow ${flow.id} needs the number of port ${port.name} of ${to.name}: give it in namedPorts`,
      );
    return { first: named.port, last: named.port };
  });
}
