import { addressesOf, hasAddress, parseAddress } from '#flows/sets/addresses.ts';
import type { Connection } from './connection.ts';
import type { GcpFirewall, GcpProtocol } from './gcp.ts';

/**
 * What the firewall rules of a VPC network say to a new connection of an instance with a tag: of the rules that match, the lowest number
 * of priority decides, and at one priority a deny. When none matches, the implied rules of every network allow egress and deny ingress.
 */
export function gcpAllows(rules: readonly GcpFirewall[], tag: string, connection: Connection): boolean {
  const direction = connection.direction === 'inbound' ? 'INGRESS' : 'EGRESS';
  const matching = rules.filter(
    (rule) =>
      rule.direction === direction &&
      rule.targetTags.includes(tag) &&
      matchesPeer(rule, connection) &&
      (rule.allowed ?? rule.denied ?? []).some((protocol) => matchesProtocol(protocol, connection)),
  );
  const priority = Math.min(...matching.map((rule) => rule.priority));
  const deciding = matching.filter((rule) => rule.priority === priority);
  if (deciding.length === 0) return direction === 'EGRESS';
  return deciding.every((rule) => rule.denied === undefined);
}

/** Ranges and tags of a source are alternatives. */
function matchesPeer(rule: GcpFirewall, { address, groups }: Connection): boolean {
  const ranges = (rule.direction === 'INGRESS' ? rule.sourceRanges : rule.destinationRanges) ?? [];
  if (ranges.some((range) => hasAddress(addressesOf(range), parseAddress(address) ?? 0n))) return true;
  return rule.direction === 'INGRESS' && (rule.sourceTags ?? []).some((tag) => groups.includes(tag));
}

function matchesProtocol({ IPProtocol, ports }: GcpProtocol, { protocol, port }: Connection): boolean {
  if (IPProtocol === 'all') return true;
  if (IPProtocol !== protocol.toLowerCase()) return false;
  if (ports === undefined) return true;
  return ports.some((range) => {
    const [first = 0, last = first] = range.split('-').map(Number);
    return port >= first && port <= last;
  });
}
