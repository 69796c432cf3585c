import { describe, expect, it } from 'vitest';
import { addressesAtEdges, firewallModel, flowsAllow, type GroupKey } from '../../test/flows/firewall-model.ts';
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
import { firewallOf, flowIds, type HostFirewall } from './rules.ts';

const VNET = ['10.1.0.0/16'];

function connections(key: GroupKey): Connection[] {
  const ports = [1, 442, 443, 444, 2999, 3000, 3001, 5432, 6443, 7000, 7999, 8000, 8005, 8010, 8011, 9100, 65_535];
  const peers = [
    ...addressesAtEdges().map((address) => ({ address, groups: [], own: false })),
    ...[...firewallModel.endpoints.values()].flatMap(({ name, firewall }) => {
      const group = key && firewall[key];
      return group === undefined
        ? []
        : [{ address: firewall.cidrs[0]!.replace(/\/.*/, ''), groups: [group], own: name === 'broker' }];
    }),
  ];
  return (['inbound', 'outbound'] as const).flatMap((direction) =>
    (['TCP', 'UDP'] as const satisfies Protocol[]).flatMap((protocol) =>
      ports.flatMap((port) => peers.map((peer) => ({ direction, protocol, port, ...peer }))),
    ),
  );
}

interface Platform {
  readonly key: GroupKey;
  readonly groupsOutbound: boolean;
  /** Emits, and judges connections by what was emitted. */
  readonly judge: (firewall: HostFirewall) => (connection: Connection) => boolean;
}

const PLATFORMS: Readonly<Record<string, Platform>> = {
  aws: {
    key: 'awsSecurityGroup',
    groupsOutbound: true,
    judge: (firewall) => awsAllows.bind(undefined, emitAws(firewall).document),
  },
  gcp: {
    key: 'gcpTag',
    groupsOutbound: false,
    judge: (firewall) => gcpAllows.bind(undefined, emitGcp(firewall).document, 'broker'),
  },
  azure: {
    key: 'azureApplicationSecurityGroup',
    groupsOutbound: true,
    judge: (firewall) => azureAllows.bind(undefined, emitAzure(firewall).document, VNET),
  },
  nftables: {
    key: undefined,
    groupsOutbound: false,
    judge: (firewall) => nftablesAllows.bind(undefined, emitNftables(firewall).document),
  },
};

describe('the firewall of a host', () => {
  it.each(Object.entries(PLATFORMS))(
    'lets through on %s what the flows say, and nothing else',
    (_, { key, groupsOutbound, judge }) => {
      const allows = judge(firewallOf(firewallModel, 'broker'));
      const cells = connections(key);
      const wrong = cells.filter((cell) => allows(cell) !== flowsAllow(cell, key, groupsOutbound));
      const allowed = cells.filter((cell) => flowsAllow(cell, key, groupsOutbound));
      expect(wrong).toEqual([]);
      expect(cells.length).toBeGreaterThan(1_000);
      expect(allowed.length).toBeGreaterThan(100);
      expect(allowed.length).toBeLessThan(cells.length / 2);
    },
  );

  it.each(Object.entries(PLATFORMS))('notices on %s any rule that is missing', (_, { key, groupsOutbound, judge }) => {
    const firewall = firewallOf(firewallModel, 'broker');
    const cells = connections(key);
    for (const rule of firewall.rules) {
      const allows = judge({ ...firewall, rules: firewall.rules.filter((other) => other !== rule) });
      expect(cells.some((cell) => allows(cell) !== flowsAllow(cell, key, groupsOutbound))).toBe(true);
    }
  });

  it('merges flows with the same peer and ports and names them all', () => {
    const twice = handMadeModel({
      endpoints: { a: { firewall: { cidrs: ['192.0.2.1'] } }, b: {} },
      flows: [
        { id: 'one', from: 'a', to: 'b', ports: [443] },
        { id: 'two', from: 'a', to: 'b', ports: [443] },
      ],
    });
    expect(firewallOf(twice, 'b').rules.map(flowIds)).toEqual([['one', 'two']]);
  });

  it('is, for a zone or a cluster, what crosses its edge', () => {
    const crossing = (name: string) =>
      firewallOf(firewallModel, name).rules.map((rule) => `${rule.direction} ${flowIds(rule).join(' ')}`);
    expect(crossing('east')).toEqual(['outbound agent-broker']);
    expect(crossing('west')).toEqual([
      'inbound agent-broker',
      'inbound office-broker',
      'inbound metrics',
      'inbound world-broker',
      'inbound world-broker',
      'outbound broker-db',
      'outbound broker-internet',
      'outbound broker-api',
      'outbound broker-office',
    ]);
  });

  it('takes addresses of the families of the facts only', () => {
    const single = { ...firewallModel, facts: { ...firewallModel.facts, ipFamilies: ['IPv4' as const] } };
    expect(JSON.stringify(firewallOf(single, 'broker').rules.map(({ peer }) => peer))).not.toContain('::');
  });

  it('refuses what it cannot know: a name, an address, a named port', () => {
    expect(() => firewallOf(firewallModel, 'nobody')).toThrow(
      'no endpoint, zone or cluster is named nobody; there are broker, agent',
    );
    const flows = [{ id: 'x', from: 'a', to: 'b', ports: [80] }];
    expect(() => firewallOf(handMadeModel({ endpoints: { a: {}, b: {} }, flows }), 'b')).toThrow(
      'test.yaml:1:1: flow x needs addresses or a group for a: give it firewall.cidrs',
    );
    const named = [{ id: 'x', from: 'a', to: 'b', ports: [{ kind: 'name' as const, name: 'http' }] }];
    const endpoints = { a: { firewall: { cidrs: ['192.0.2.1'] } }, b: {} };
    expect(() => firewallOf(handMadeModel({ endpoints, flows: named }), 'b')).toThrow('needs the number of port http of b');
  });

  it('notes an added DNS flow that no host can name', () => {
    const endpoints = { a: {}, dns: { peer: { kind: 'dns' as const } } };
    const flows = [{ id: 'dns', from: 'a', to: 'dns', implicit: true, ports: [53], protocols: ['UDP' as const, 'TCP' as const] }];
    expect(firewallOf(handMadeModel({ endpoints, flows }), 'a')).toMatchObject({
      rules: [],
      notes: ['left out, since dns has no addresses outside the cluster: dns'],
    });
    const facts = { ...firewallModel.facts, dns: { ...firewallModel.facts.dns, nodeLocalIP: '169.254.20.10' } };
    const { rules } = firewallOf(handMadeModel({ endpoints, flows, facts }), 'a');
    expect(rules.map(({ protocol, ports, peer }) => [protocol, ports[0]?.first, peer.cidrs])).toEqual([
      ['UDP', 53, ['169.254.20.10/32']],
      ['TCP', 53, ['169.254.20.10/32']],
    ]);
  });
});
