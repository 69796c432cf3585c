import { type Cidr, parseCidr } from '#flows/sets/addresses.ts';
import { covers } from '#flows/sets/intervals.ts';
import type { Facts } from './model.ts';

/**
 * Addresses that are not on the Internet: RFC 1918, shared (RFC 6598), link-local, loopback, "this network", and the special-purpose,
 * multicast and reserved blocks of the IANA registries (RFC 6890); for IPv6 also what embeds IPv4 addresses (NAT64, Teredo, 6to4), which
 * would be a way around.
 */
const PRIVATE: readonly string[] = [
  ...['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.0.0.0/24'],
  ...['192.168.0.0/16', '198.18.0.0/15', '224.0.0.0/4', '240.0.0.0/4'],
  ...['::/128', '::1/128', '64:ff9b::/96', '64:ff9b:1::/48', '100::/64', '2001::/32', '2002::/16'],
  ...['fc00::/7', 'fe80::/10', 'fec0::/10', 'ff00::/8'],
];

/** Sets that `cidr` and `except` may name, from the facts of the cluster. */
const NAMED: Readonly<Record<string, (facts: Facts) => readonly string[]>> = {
  pods: ({ podCIDRs }) => podCIDRs,
  services: ({ serviceCIDRs }) => serviceCIDRs,
  nodes: ({ nodeCIDRs }) => nodeCIDRs,
  metadata: ({ metadataIPs }) => metadataIPs.map(hostCidr),
  cluster: ({ podCIDRs, serviceCIDRs, nodeCIDRs }) => [...podCIDRs, ...serviceCIDRs, ...nodeCIDRs],
  private: (facts) => [
    ...PRIVATE,
    ...facts.podCIDRs,
    ...facts.serviceCIDRs,
    ...facts.nodeCIDRs,
    ...facts.metadataIPs.map(hostCidr),
  ],
};

const CLUSTER = ['podCIDRs', 'serviceCIDRs', 'nodeCIDRs'] as const;
const FACTS: Readonly<Record<string, readonly (keyof Facts)[]>> = {
  pods: ['podCIDRs'],
  services: ['serviceCIDRs'],
  nodes: ['nodeCIDRs'],
  metadata: ['metadataIPs'],
  cluster: CLUSTER,
  private: [...CLUSTER, 'metadataIPs'],
};

/** Names of the named sets, for messages. */
export const RANGE_NAMES: readonly string[] = Object.keys(NAMED);

/** Facts that a named set is made of; none for a CIDR. */
export function factsOfRange(range: string): readonly (keyof Facts)[] {
  return FACTS[range] ?? [];
}

/** The CIDRs of a named set, or the CIDR itself. */
export function expandRange(range: string, facts: Facts): readonly string[] {
  return NAMED[range]?.(facts) ?? [range];
}

/** A single address as a CIDR; a CIDR as it is. */
export function hostCidr(address: string): string {
  if (address.includes('/')) return address;
  return `${address}/${address.includes(':') ? 128 : 32}`;
}

/** Whether the second CIDR lies inside the first; `strictly` means it is not the same. */
export function cidrContains(outer: string, inner: string, how: 'strictly' | 'or equal'): boolean {
  const [a, b] = [cidrOf(outer), cidrOf(inner)];
  return covers(a.addresses, b.addresses) && (how === 'or equal' || a.size !== b.size);
}

/** The family of a CIDR or an address. */
export function familyOf(address: string): 'IPv4' | 'IPv6' {
  return address.includes(':') ? 'IPv6' : 'IPv4';
}

/** A CIDR with the parts of it that are excluded, as `ipBlock` of a policy has it: every exception lies inside and is not the whole. */
export interface Block {
  readonly cidr: string;
  readonly except: readonly string[];
}

/** The blocks of address ranges; exceptions that another covers are left out, and so are ranges that exceptions cover. */
export function blocksOf(cidrs: readonly string[], except: readonly string[]): Block[] {
  const outermost = except.filter(
    (inner, at) =>
      except.indexOf(inner) === at && !except.some((outer) => outer !== inner && cidrContains(outer, inner, 'strictly')),
  );
  return [...new Set(cidrs)]
    .filter((cidr) => !outermost.some((range) => cidrContains(range, cidr, 'or equal')))
    .map((cidr) => ({ cidr, except: outermost.filter((range) => cidrContains(cidr, range, 'strictly')) }));
}

function cidrOf(text: string): Cidr {
  const cidr = parseCidr(text);
  if (!cidr) throw new Error(`${text} is no CIDR`); // what is not was refused when it was read
  return cidr;
}
