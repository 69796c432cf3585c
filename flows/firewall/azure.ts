import type { Emitted } from './aws.ts';
import { type FirewallRule, flowIds, type HostFirewall, type PortRange } from './rules.ts';

/** First and last priority that a rule may have; lower numbers are asked first (Azure, "Network security groups"). */
const PRIORITIES = { first: 100, last: 4_096 } as const;
/** Most characters of a rule's description (ARM reference, securityRules). */
const MAX_DESCRIPTION = 140;

/** A rule of a network security group. Lists make it an augmented rule; either prefixes or application security groups. */
export interface AzureRule {
  readonly name: string;
  readonly properties: {
    readonly description: string;
    readonly priority: number;
    readonly direction: 'Inbound' | 'Outbound';
    readonly access: 'Allow' | 'Deny';
    readonly protocol: 'Tcp' | 'Udp' | '*';
    readonly sourcePortRange: '*';
    readonly destinationPortRanges?: readonly string[];
    readonly destinationPortRange?: '*';
    readonly sourceAddressPrefix?: '*';
    readonly sourceAddressPrefixes?: readonly string[];
    readonly sourceApplicationSecurityGroups?: readonly { readonly id: string }[];
    readonly destinationAddressPrefix?: '*';
    readonly destinationAddressPrefixes?: readonly string[];
    readonly destinationApplicationSecurityGroups?: readonly { readonly id: string }[];
  };
}

/** An ARM template with one network security group. */
export interface AzureTemplate {
  readonly $schema: string;
  readonly contentVersion: '1.0.0.0';
  readonly resources: readonly [
    {
      readonly type: 'Microsoft.Network/networkSecurityGroups';
      readonly apiVersion: '2024-05-01';
      readonly name: string;
      readonly location: string;
      readonly properties: { readonly securityRules: readonly AzureRule[] };
    },
  ];
}

/**
 * A firewall as a network security group. The default rules, which nobody can delete, allow the virtual network both ways and the
 * Internet outbound from priority 65000 on: explicit denies come before them. Throws an `Error` for SCTP, which rules cannot name, and
 * when there are more rules than priorities.
 */
export function emitAzure({ name, rules }: HostFirewall): Emitted<AzureTemplate> {
  const securityRules = (['Inbound', 'Outbound'] as const).flatMap((direction) => {
    const allows = rules
      .filter((rule) => rule.direction === direction.toLowerCase())
      .flatMap((rule) => peersOf(rule).map((peer) => ({ rule, peer })));
    if (PRIORITIES.first + allows.length > PRIORITIES.last)
      throw new Error(
        `${allows.length} ${direction.toLowerCase()} rules for ${name}: there are priorities for ${PRIORITIES.last - PRIORITIES.first}`,
      );
    return [
      ...allows.map(({ rule, peer }, index) => allowRule(rule, peer, direction, PRIORITIES.first + index)),
      denyRule(direction),
    ];
  });
  return {
    document: {
      $schema: 'https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#',
      contentVersion: '1.0.0.0',
      resources: [
        {
          type: 'Microsoft.Network/networkSecurityGroups',
          apiVersion: '2024-05-01',
          name,
          location: '[resourceGroup().location]',
          properties: { securityRules },
        },
      ],
    },
    warnings: [],
  };
}

/** Prefixes of one family, or a group: a rule cannot mix them. */
type AzurePeer = { readonly prefixes: readonly string[] } | { readonly group: string };

function peersOf({ peer }: FirewallRule): AzurePeer[] {
  if (peer.azureApplicationSecurityGroup !== undefined) return [{ group: peer.azureApplicationSecurityGroup }];
  const families = [peer.cidrs.filter((cidr) => !cidr.includes(':')), peer.cidrs.filter((cidr) => cidr.includes(':'))];
  return families.filter((prefixes) => prefixes.length > 0).map((prefixes) => ({ prefixes }));
}

function allowRule(rule: FirewallRule, peer: AzurePeer, direction: 'Inbound' | 'Outbound', priority: number): AzureRule {
  const ids = flowIds(rule);
  if (rule.protocol === 'SCTP') throw new Error(`flow ${ids[0]}: a network security group cannot name SCTP`);
  const near = direction === 'Inbound' ? 'destination' : 'source';
  const far = direction === 'Inbound' ? 'source' : 'destination';
  return {
    name: `Allow-${direction}-${priority}`,
    properties: {
      description: ids.join(' ').slice(0, MAX_DESCRIPTION),
      priority,
      direction,
      access: 'Allow',
      protocol: rule.protocol === 'TCP' ? 'Tcp' : 'Udp',
      sourcePortRange: '*',
      destinationPortRanges: rule.ports.map(portText),
      [`${near}AddressPrefix`]: '*',
      ...('group' in peer
        ? { [`${far}ApplicationSecurityGroups`]: [{ id: peer.group }] }
        : { [`${far}AddressPrefixes`]: peer.prefixes }),
    },
  };
}

function denyRule(direction: 'Inbound' | 'Outbound'): AzureRule {
  return {
    name: `Deny-${direction}`,
    properties: {
      description: 'everything else, before the default rules allow it',
      priority: PRIORITIES.last,
      direction,
      access: 'Deny',
      protocol: '*',
      sourcePortRange: '*',
      destinationPortRange: '*',
      sourceAddressPrefix: '*',
      destinationAddressPrefix: '*',
    },
  };
}

function portText({ first, last }: PortRange): string {
  return first === last ? String(first) : `${first}-${last}`;
}
