import type { Connection } from '../../flows/firewall/connection.ts';
import { hopsOf } from '../../flows/model/hops.ts';
import type { Endpoint, PortSpec } from '../../flows/model/model.ts';
import { addressesOf, addressText, hasAddress, parseAddress } from '../../flows/sets/addresses.ts';
import { handMadeModel } from './models.ts';

/** A model with every kind of peer that a host's firewall can have; `broker` is the host. */
export const firewallModel = handMadeModel({
  zones: { west: { cluster: 'west' }, east: { cluster: 'east' } },
  endpoints: {
    broker: {
      zone: 'west',
      namedPorts: { metrics: { protocol: 'TCP', port: 9100 } },
      firewall: {
        cidrs: ['10.1.0.10', 'fd00:1::10'],
        awsSecurityGroup: 'broker',
        gcpTag: 'broker',
        azureApplicationSecurityGroup: '/asg/broker',
      },
    },
    agent: {
      zone: 'east',
      firewall: {
        cidrs: ['10.2.0.0/24'],
        awsSecurityGroup: 'sg-agent',
        gcpTag: 'agent',
        azureApplicationSecurityGroup: '/asg/agent',
      },
    },
    office: { peer: { kind: 'addresses', cidrs: ['192.0.2.0/24'], except: ['192.0.2.7/32', '192.0.2.128/25'] } },
    internet: { peer: { kind: 'addresses', cidrs: ['0.0.0.0/0', '::/0'], except: ['10.0.0.0/8', '192.168.0.0/16', 'fc00::/7'] } },
    world: { peer: { kind: 'any' } },
    api: { peer: { kind: 'kube-api' } },
    db: { firewall: { cidrs: ['10.3.0.0/30'], awsSecurityGroup: 'sg-db' } },
    ingress: { zone: 'west', firewall: { cidrs: ['10.1.0.20'] } },
  },
  flows: [
    { from: 'agent', to: 'broker', ports: [3000] },
    { from: 'office', to: 'broker', ports: [3000], via: [{ endpoint: 'ingress', port: 443, application: 'HTTPS', label: '' }] },
    { from: 'office', to: 'broker', id: 'metrics', ports: [{ kind: 'name', name: 'metrics' }] },
    { from: 'world', to: 'broker', ports: [{ kind: 'range', first: 8000, last: 8010 }], protocols: ['TCP', 'UDP'] },
    { from: 'broker', to: 'broker', ports: [7000] },
    { from: 'broker', to: 'db', ports: [5432] },
    { from: 'broker', to: 'internet', ports: [443] },
    { from: 'broker', to: 'api', ports: [6443] },
    { from: 'broker', to: 'office', ports: [{ kind: 'all' }], protocols: ['UDP'] },
  ],
});

/** How a platform names groups; undefined where it has none. */
export type GroupKey = 'awsSecurityGroup' | 'gcpTag' | 'azureApplicationSecurityGroup' | undefined;

/**
 * What the flows of `firewallModel` mean at its broker, written without any of the code under test: where the platform has groups, being
 * in the peer's; elsewhere, its addresses.
 */
export function flowsAllow({ direction, ...connection }: Connection, key: GroupKey, groupsOutbound: boolean): boolean {
  return firewallModel.flows
    .flatMap((flow) => hopsOf(firewallModel, flow))
    .some((hop) => {
      const [near, far] = direction === 'inbound' ? [hop.to, hop.from] : [hop.from, hop.to];
      if (near.name !== 'broker' || !hop.protocols.includes(connection.protocol)) return false;
      if (!portsOf(hop.ports).some(([first, last]) => connection.port >= first && connection.port <= last)) return false;
      const group = key && far.firewall[key];
      if (group !== undefined && (direction === 'inbound' || groupsOutbound))
        return connection.groups.includes(group) || (far.name === 'broker' && connection.own);
      return inEndpoint(far, connection.address);
    });
}

function portsOf(ports: readonly PortSpec[]): [number, number][] {
  return ports.map((port) => {
    if (port.kind === 'all') return [1, 65_535];
    return port.kind === 'name' ? [9100, 9100] : [port.first, port.last];
  });
}

function inEndpoint({ peer, firewall }: Endpoint, address: string): boolean {
  const within = (cidrs: readonly string[]) => cidrs.some((cidr) => hasAddress(addressesOf(cidr), parseAddress(address)!));
  if (peer.kind === 'any') return true;
  if (peer.kind === 'kube-api') return address === '10.0.0.2';
  return peer.kind === 'addresses' ? within(peer.cidrs) && !within(peer.except) : within(firewall.cidrs);
}

/** Addresses at every edge of every range of `firewallModel`, and one on each side of it. */
export function addressesAtEdges(): string[] {
  const texts = [...firewallModel.endpoints.values()].flatMap(({ peer, firewall }) => [
    ...firewall.cidrs,
    ...(peer.kind === 'addresses' ? [...peer.cidrs, ...peer.except] : []),
  ]);
  const numbers = texts.flatMap((text) => {
    const [first = 0n, end = 0n] = addressesOf(text);
    return [first - 1n, first, end - 1n, end];
  });
  const ends = new Set([0n, 1n << 32n, 1n << 128n, 1n << 129n]);
  const valid = (number: bigint) => number >= 0n && number < 1n << 129n && (number < 1n << 32n || number >= 1n << 128n);
  return [
    ...new Set([
      '10.0.0.2',
      '10.1.9.9',
      '8.8.8.8',
      '2001:db8::1',
      ...numbers.filter((n) => valid(n) && !ends.has(n)).map(addressText),
    ]),
  ];
}
