import { describe, expect, it } from 'vitest';
import { handMadeModel } from '../../test/flows/models.ts';
import type { Protocol } from '../model/model.ts';
import { emitAws } from './aws.ts';
import { awsAllows } from './aws-evaluator.ts';
import { emitAzure } from './azure.ts';
import { azureAllows } from './azure-evaluator.ts';
import type { Connection } from './connection.ts';
import { emitGcp } from './gcp.ts';
import { gcpAllows } from './gcp-evaluator.ts';
import { emitNftables } from './nftables.ts';
import { nftablesAllows } from './nftables-evaluator.ts';
import { firewallOf, type HostFirewall } from './rules.ts';

const VNET = ['10.1.0.0/16'];

/** A host that a peer with these addresses, and no group, may reach. */
function reachedFrom(cidrs: readonly string[], protocol: Protocol = 'TCP'): HostFirewall {
  const endpoints = { peer: { firewall: { cidrs } }, host: {} };
  return firewallOf(
    handMadeModel({ endpoints, flows: [{ id: 'x', from: 'peer', to: 'host', ports: [3868], protocols: [protocol] }] }),
    'host',
  );
}

describe('a platform', () => {
  it('aws: takes the default egress away when no rule does', () => {
    const { document } = emitAws(reachedFrom(['192.0.2.1']));
    const outbound: Connection = {
      direction: 'outbound',
      protocol: 'TCP',
      port: 443,
      address: '8.8.8.8',
      groups: [],
      own: false,
    };
    expect(awsAllows(document, outbound)).toBe(false);
    const group = document.Resources.SecurityGroup;
    if (group?.Type !== 'AWS::EC2::SecurityGroup') throw new Error('no group');
    const bare = {
      ...document,
      Resources: { SecurityGroup: { ...group, Properties: { ...group.Properties, SecurityGroupEgress: [] } } },
    };
    expect(awsAllows(bare, outbound)).toBe(true);
  });

  it('aws: warns above 60 rules of one family in one direction', () => {
    const hosts = (count: number) => Array.from({ length: count }, (_, index) => `192.0.2.${index * 2 + 1}`);
    expect(emitAws(reachedFrom(hosts(60))).warnings).toEqual([]);
    expect(emitAws(reachedFrom([...hosts(61), 'fd00::1'])).warnings).toEqual([
      '61 inbound rules for IPv4: a security group has 60 unless Amazon raises it; fewer ranges in firewall.cidrs need fewer rules',
    ]);
  });

  it('gcp: names resources as the API asks', () => {
    const names = emitGcp({ ...reachedFrom(['192.0.2.1', 'fd00::1']), name: `9_Broker_${'x'.repeat(80)}` }).document.map(
      ({ name }) => name,
    );
    expect(new Set(names).size).toBe(6);
    for (const name of names) expect(name).toMatch(/^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/);
  });

  it('gcp: beats what a default network allows at the lowest priority', () => {
    const { document } = emitGcp(reachedFrom(['192.0.2.1']));
    const inside: Connection = { direction: 'inbound', protocol: 'TCP', port: 22, address: '10.128.0.2', groups: [], own: false };
    const allowInternal = { ...document[0]!, priority: 65_534, sourceRanges: ['10.128.0.0/9'], allowed: [{ IPProtocol: 'all' }] };
    expect(gcpAllows([allowInternal], 'host', inside)).toBe(true);
    expect(gcpAllows([allowInternal, ...document], 'host', inside)).toBe(false);
  });

  it('gcp and nftables filter SCTP; aws and azure refuse it', () => {
    const firewall = reachedFrom(['192.0.2.1'], 'SCTP');
    const connection: Connection = {
      direction: 'inbound',
      protocol: 'SCTP',
      port: 3868,
      address: '192.0.2.1',
      groups: [],
      own: false,
    };
    expect(gcpAllows(emitGcp(firewall).document, 'host', connection)).toBe(true);
    expect(nftablesAllows(emitNftables(firewall).document, connection)).toBe(true);
    expect(nftablesAllows(emitNftables(firewall).document, { ...connection, protocol: 'TCP' })).toBe(false);
    expect(() => emitAws(firewall)).toThrow('flow x: a security group cannot filter ports of SCTP');
    expect(() => emitAzure(firewall)).toThrow('flow x: a network security group cannot name SCTP');
  });

  it('azure: has distinct priorities from 100 to 4096 and denies before the default rules', () => {
    const rules = emitAzure(reachedFrom(['192.0.2.1', 'fd00::1'])).document.resources[0].properties.securityRules;
    for (const direction of ['Inbound', 'Outbound']) {
      const priorities = rules
        .filter(({ properties }) => properties.direction === direction)
        .map(({ properties }) => properties.priority);
      expect(new Set(priorities).size).toBe(priorities.length);
      expect([priorities[0], priorities.at(-1)]).toEqual([direction === 'Inbound' ? 100 : 4_096, 4_096]);
    }
    const connection: Connection = {
      direction: 'inbound',
      protocol: 'TCP',
      port: 22,
      address: '10.1.0.99',
      groups: [],
      own: false,
    };
    const { document } = emitAzure(reachedFrom(['192.0.2.1']));
    expect(azureAllows(document, VNET, connection)).toBe(false);
    const bare = { ...document, resources: [{ ...document.resources[0], properties: { securityRules: [] } }] as const };
    expect(azureAllows(bare, VNET, connection)).toBe(true);
  });

  it.each([
    ['gcp, outbound', () => emitGcp(groupOnly('outbound')), 'an egress rule of GCP needs addresses'],
    ['nftables', () => emitNftables(groupOnly('inbound')), 'nftables needs addresses'],
  ])('%s: refuses a peer that is known as a group only', (_, emit, message) => {
    expect(emit).toThrow(message);
  });
});

/** A host whose only peer has a tag and no addresses. */
function groupOnly(direction: 'inbound' | 'outbound'): HostFirewall {
  const endpoints = { peer: { firewall: { gcpTag: 'peer' } }, host: {} };
  const [from, to] = direction === 'inbound' ? ['peer', 'host'] : ['host', 'peer'];
  return firewallOf(handMadeModel({ endpoints, flows: [{ from: from!, to: to!, ports: [80] }] }), 'host');
}
