import { addressesOf, hasAddress, parseAddress } from '#flows/sets/addresses.ts';
import type { AwsPermission, AwsResource, AwsTemplate } from './aws.ts';
import type { Connection } from './connection.ts';

/**
 * What a security group of a template says to a new connection, as Amazon documents it: permissions only allow, their order is irrelevant,
 * none means no; and a group that is created without egress rules of its own allows all egress, whatever is added later by resources beside it.
 */
export function awsAllows(template: AwsTemplate, connection: Connection): boolean {
  const resources = Object.entries(template.Resources);
  const inbound = connection.direction === 'inbound';
  return resources.some(([name, resource]) => {
    if (resource.Type === 'AWS::EC2::SecurityGroup') {
      const { SecurityGroupIngress, SecurityGroupEgress } = resource.Properties;
      if (!inbound && SecurityGroupEgress.length === 0) return true;
      return (inbound ? SecurityGroupIngress : SecurityGroupEgress).some((permission) => matches(permission, connection, name));
    }
    const ofDirection = resource.Type === (inbound ? 'AWS::EC2::SecurityGroupIngress' : 'AWS::EC2::SecurityGroupEgress');
    return (
      ofDirection &&
      isGroup(template, resource) &&
      matches(resource.Properties, connection, resource.Properties.GroupId['Fn::GetAtt'][0])
    );
  });
}

function isGroup(template: AwsTemplate, resource: Extract<AwsResource, { Properties: { GroupId: unknown } }>): boolean {
  return template.Resources[resource.Properties.GroupId['Fn::GetAtt'][0]]?.Type === 'AWS::EC2::SecurityGroup';
}

function matches(permission: AwsPermission, { protocol, port, address, groups, own }: Connection, group: string): boolean {
  if (permission.IpProtocol !== protocol.toLowerCase()) return false;
  if (port < permission.FromPort || port > permission.ToPort) return false;
  const cidr = permission.CidrIp ?? permission.CidrIpv6;
  if (cidr !== undefined) return hasAddress(addressesOf(cidr), parseAddress(address) ?? 0n);
  const peer = permission.SourceSecurityGroupId ?? permission.DestinationSecurityGroupId;
  if (typeof peer === 'string') return groups.includes(peer);
  return own && JSON.stringify(peer) === JSON.stringify({ 'Fn::GetAtt': [group, 'GroupId'] });
}
