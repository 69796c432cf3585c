import type { Emitted } from './aws.ts';
import { type FirewallRule, flowIds, type HostFirewall, type PortRange } from './rules.ts';

/** That of what default networks allow among themselves: at one priority, deny wins over allow (VPC firewall rules, "Priority"). */
const DENY_PRIORITY = 65_534;
const ALLOW_PRIORITY = 1_000;
/** The network that every project begins with; another is a matter of replacing its name. */
const NETWORK = 'global/networks/default';
/** Longest name of a resource (RFC 1035, as the Compute Engine API asks). */
const MAX_NAME = 63;

/** Body of a `firewalls.insert` of the Compute Engine API, version 1. */
export interface GcpFirewall {
  readonly name: string;
  readonly description: string;
  readonly network: string;
  readonly direction: 'INGRESS' | 'EGRESS';
  readonly priority: number;
  readonly targetTags: readonly string[];
  readonly sourceRanges?: readonly string[];
  readonly sourceTags?: readonly string[];
  readonly destinationRanges?: readonly string[];
  readonly allowed?: readonly GcpProtocol[];
  readonly denied?: readonly GcpProtocol[];
}

/** Protocol with its ports; without `ports`, all of them. */
export interface GcpProtocol {
  readonly IPProtocol: string;
  readonly ports?: readonly string[];
}

/**
 * A firewall as VPC firewall rules for the instances with the host's tag. Egress is allowed by an implied rule of every network, so a
 * rule of low priority denies it; the same for ingress, since default networks allow it among themselves. A rule holds ranges of one family.
 * Throws an `Error` where an outbound peer has no addresses: egress rules cannot name tags.
 */
export function emitGcp({ name, identity, rules }: HostFirewall): Emitted<readonly GcpFirewall[]> {
  const tag = identity.gcpTag ?? name;
  const counters = { inbound: 0, outbound: 0 };
  const allows = rules.flatMap((rule) =>
    peersOf(rule).map((peer): GcpFirewall => {
      counters[rule.direction] += 1;
      return {
        name: resourceName(name, rule.direction, String(counters[rule.direction])),
        description: flowIds(rule).join(' '),
        network: NETWORK,
        direction: rule.direction === 'inbound' ? 'INGRESS' : 'EGRESS',
        priority: ALLOW_PRIORITY,
        targetTags: [tag],
        ...peer,
        allowed: [{ IPProtocol: rule.protocol.toLowerCase(), ...portsOf(rule.ports) }],
      };
    }),
  );
  const denies = (['inbound', 'outbound'] as const).flatMap((direction) =>
    (['0.0.0.0/0', '::/0'] as const).map((range): GcpFirewall => {
      const inbound = direction === 'inbound';
      return {
        name: resourceName(name, direction, range === '::/0' ? 'deny-ipv6' : 'deny-ipv4'),
        description: 'everything else',
        network: NETWORK,
        direction: inbound ? 'INGRESS' : 'EGRESS',
        priority: DENY_PRIORITY,
        targetTags: [tag],
        ...(inbound ? { sourceRanges: [range] } : { destinationRanges: [range] }),
        denied: [{ IPProtocol: 'all' }],
      };
    }),
  );
  return { document: [...allows, ...denies], warnings: [] };
}

type GcpPeer = Pick<GcpFirewall, 'sourceRanges' | 'sourceTags' | 'destinationRanges'>;

function peersOf(rule: FirewallRule): GcpPeer[] {
  const { cidrs, gcpTag } = rule.peer;
  if (rule.direction === 'inbound' && gcpTag !== undefined) return [{ sourceTags: [gcpTag] }];
  if (cidrs.length === 0)
    throw new Error(`flow ${flowIds(rule)[0]}: an egress rule of GCP needs addresses: give the destination firewall.cidrs`);
  const families = [cidrs.filter((cidr) => !cidr.includes(':')), cidrs.filter((cidr) => cidr.includes(':'))];
  return families
    .filter((ranges) => ranges.length > 0)
    .map((ranges) => (rule.direction === 'inbound' ? { sourceRanges: ranges } : { destinationRanges: ranges }));
}

function portsOf(ports: readonly PortRange[]): Pick<GcpProtocol, 'ports'> {
  if (ports.some(({ first, last }) => first === 1 && last === 65_535)) return {};
  return { ports: ports.map(({ first, last }) => (first === last ? String(first) : `${first}-${last}`)) };
}

function resourceName(host: string, direction: string, suffix: string): string {
  const tail = `-${direction}-${suffix}`;
  const head = host
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replace(/^[^a-z]+/, '');
  return `${head.slice(0, MAX_NAME - tail.length).replace(/-+$/, '')}${tail}`;
}
