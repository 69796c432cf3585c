import { type FirewallRule, flowIds, type HostFirewall } from './rules.ts';

/** Most rules of a security group in one direction and one family, unless Amazon has raised it (Amazon VPC quotas, "Security groups"). */
const RULES_PER_DIRECTION = 60;
/** Longest description of a rule (EC2 API, IpRange). */
const MAX_DESCRIPTION = 255;

/** One permission of a security group, as in CloudFormation. One of the four peers is set. */
export interface AwsPermission {
  readonly IpProtocol: string;
  readonly FromPort: number;
  readonly ToPort: number;
  readonly Description: string;
  readonly CidrIp?: string;
  readonly CidrIpv6?: string;
  readonly SourceSecurityGroupId?: unknown;
  readonly DestinationSecurityGroupId?: unknown;
}

/** A CloudFormation template: the host's group, and a resource of its own for each reference to another group. */
export interface AwsTemplate {
  readonly AWSTemplateFormatVersion: '2010-09-09';
  readonly Description: string;
  readonly Parameters: { readonly VpcId: { readonly Type: 'AWS::EC2::VPC::Id' } };
  readonly Resources: Readonly<Record<string, AwsResource>>;
}

/** The resources in use. */
export type AwsResource =
  | {
      readonly Type: 'AWS::EC2::SecurityGroup';
      readonly Properties: {
        readonly GroupName: string;
        readonly GroupDescription: string;
        readonly VpcId: { readonly Ref: 'VpcId' };
        readonly SecurityGroupIngress: readonly AwsPermission[];
        readonly SecurityGroupEgress: readonly AwsPermission[];
      };
    }
  | {
      readonly Type: 'AWS::EC2::SecurityGroupIngress' | 'AWS::EC2::SecurityGroupEgress';
      readonly Properties: AwsPermission & { readonly GroupId: typeof OWN_GROUP };
    };

/** What a platform's document is, and what its reader has to know beside it. */
export interface Emitted<T> {
  readonly document: T;
  readonly warnings: readonly string[];
}

const OWN_GROUP = { 'Fn::GetAtt': ['SecurityGroup', 'GroupId'] } as const;

/**
 * Without any embedded egress rule a group allows all egress (CloudFormation, AWS::EC2::SecurityGroup); one that matches nothing useful
 * takes that away.
 */
const NO_EGRESS: AwsPermission = {
  IpProtocol: 'icmp',
  FromPort: 252,
  ToPort: 86,
  Description: 'takes the default rule away, which allows all egress',
  CidrIp: '255.255.255.255/32',
};

/**
 * A firewall as a security group. References to other groups are resources of their own, so that two groups may refer to each other.
 * Throws an `Error` for SCTP, whose ports a security group cannot tell apart. Warns above 60 rules in a direction.
 */
export function emitAws({ name, identity, rules }: HostFirewall): Emitted<AwsTemplate> {
  const own = identity.awsSecurityGroup;
  const inline = (direction: FirewallRule['direction']) =>
    rules.filter((rule) => rule.direction === direction && rule.peer.awsSecurityGroup === undefined).flatMap(permissions);
  const [ingress, egress] = [inline('inbound'), inline('outbound')];
  const references = rules.flatMap((rule) => (rule.peer.awsSecurityGroup === undefined ? [] : groupResources(rule, own)));
  const resources: [string, AwsResource][] = references.map((resource, index) => {
    const kind = resource.Type.slice('AWS::EC2::SecurityGroup'.length);
    return [`${kind}${index + 1}`, resource];
  });
  const group: AwsResource = {
    Type: 'AWS::EC2::SecurityGroup',
    Properties: {
      GroupName: own?.startsWith('sg-') === false ? own : name,
      GroupDescription: `network flows of ${name}`,
      VpcId: { Ref: 'VpcId' },
      SecurityGroupIngress: ingress,
      SecurityGroupEgress: egress.length > 0 ? egress : [NO_EGRESS],
    },
  };
  const count = (type: string) => references.filter(({ Type }) => Type === type).length;
  return {
    document: {
      AWSTemplateFormatVersion: '2010-09-09',
      Description: `security group of ${name}`,
      Parameters: { VpcId: { Type: 'AWS::EC2::VPC::Id' } },
      Resources: Object.fromEntries([['SecurityGroup', group], ...resources]),
    },
    warnings: [
      ...quotaWarnings('inbound', ingress, count('AWS::EC2::SecurityGroupIngress')),
      ...quotaWarnings('outbound', egress, count('AWS::EC2::SecurityGroupEgress')),
    ],
  };
}

/** One permission for each range of ports and each CIDR: a security group has no lists. */
function permissions(rule: FirewallRule): AwsPermission[] {
  return basePermissions(rule).flatMap((base) =>
    rule.peer.cidrs.map((cidr) => ({ ...base, ...(cidr.includes(':') ? { CidrIpv6: cidr } : { CidrIp: cidr }) })),
  );
}

function groupResources(
  rule: FirewallRule,
  own: string | undefined,
): Extract<AwsResource, { Properties: { GroupId: unknown } }>[] {
  const { awsSecurityGroup } = rule.peer;
  const peer = awsSecurityGroup === own ? OWN_GROUP : awsSecurityGroup;
  return basePermissions(rule).map((base) =>
    rule.direction === 'inbound'
      ? { Type: 'AWS::EC2::SecurityGroupIngress', Properties: { GroupId: OWN_GROUP, ...base, SourceSecurityGroupId: peer } }
      : { Type: 'AWS::EC2::SecurityGroupEgress', Properties: { GroupId: OWN_GROUP, ...base, DestinationSecurityGroupId: peer } },
  );
}

function basePermissions(rule: FirewallRule): AwsPermission[] {
  if (rule.protocol === 'SCTP') throw new Error(`flow ${flowIds(rule)[0]}: a security group cannot filter ports of SCTP`);
  return rule.ports.map(({ first, last }) => ({
    IpProtocol: rule.protocol.toLowerCase(),
    FromPort: first,
    ToPort: last,
    Description: flowIds(rule).join(' ').slice(0, MAX_DESCRIPTION),
  }));
}

/** A reference to a group counts once for each family. */
function quotaWarnings(direction: string, inline: readonly AwsPermission[], references: number): string[] {
  return (['CidrIp', 'CidrIpv6'] as const).flatMap((family) => {
    const count = inline.filter((permission) => permission[family] !== undefined).length + references;
    if (count <= RULES_PER_DIRECTION) return [];
    const version = family === 'CidrIp' ? 'IPv4' : 'IPv6';
    return [
      `${count} ${direction} rules for ${version}: a security group has ${RULES_PER_DIRECTION} unless Amazon raises it; fewer ranges in firewall.cidrs need fewer rules`,
    ];
  });
}
