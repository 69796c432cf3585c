import { addressesOf, hasAddress, parseAddress } from '#flows/sets/addresses.ts';
import type { AzureRule, AzureTemplate } from './azure.ts';
import type { Connection } from './connection.ts';

/**
 * What a network security group says to a new connection: the first rule that matches, in the order of priorities, decides. After the
 * group's own rules come the default ones: the virtual network (`virtualNetwork`, CIDRs) both ways, the Internet outbound, nothing else.
 */
export function azureAllows(
  { resources: [group] }: AzureTemplate,
  virtualNetwork: readonly string[],
  connection: Connection,
): boolean {
  const direction = connection.direction === 'inbound' ? 'Inbound' : 'Outbound';
  const decides = group.properties.securityRules
    .filter((rule) => rule.properties.direction === direction)
    .toSorted((a, b) => a.properties.priority - b.properties.priority)
    .find((rule) => matches(rule, connection));
  if (decides) return decides.properties.access === 'Allow';
  return direction === 'Outbound' || within(virtualNetwork, connection.address);
}

function matches({ properties }: AzureRule, { direction, protocol, port, address, groups }: Connection): boolean {
  if (properties.protocol !== '*' && properties.protocol.toUpperCase() !== protocol) return false;
  const ports = properties.destinationPortRanges ?? [properties.destinationPortRange ?? ''];
  if (!ports.some((range) => range === '*' || inRange(range, port))) return false;
  const inbound = direction === 'inbound';
  const prefix = inbound ? properties.sourceAddressPrefix : properties.destinationAddressPrefix;
  const prefixes = (inbound ? properties.sourceAddressPrefixes : properties.destinationAddressPrefixes) ?? [];
  const members = (inbound ? properties.sourceApplicationSecurityGroups : properties.destinationApplicationSecurityGroups) ?? [];
  return prefix === '*' || within(prefixes, address) || members.some(({ id }) => groups.includes(id));
}

function inRange(range: string, port: number): boolean {
  const [first = 0, last = first] = range.split('-').map(Number);
  return port >= first && port <= last;
}

function within(cidrs: readonly string[], address: string): boolean {
  return cidrs.some((cidr) => hasAddress(addressesOf(cidr), parseAddress(address) ?? 0n));
}
