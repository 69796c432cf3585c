import { beforeAll, describe, expect, it } from 'vitest';
import {
  type AgentValues,
  type BrokerValues,
  type PeerValue,
  withBrokerValues,
} from '../../flows/chart/network-policy-values.ts';
import {
  AGENT,
  API,
  allowed,
  BROKER,
  type BrokkrFlows,
  brokkrFlows,
  clusterWith,
  compiledPolicies,
  PUBLIC,
  policiesOf,
  TEN_ROWS,
} from './chart-cells.ts';

let flows: BrokkrFlows;
beforeAll(async () => {
  flows = await brokkrFlows();
});

/** The connections allowed in a cluster with both charts. */
function connections(broker: BrokerValues, agent: AgentValues): string[] {
  return allowed(clusterWith(compiledPolicies(flows, broker, agent)));
}

/** What a change of values changes in the table. */
function expectChange(
  broker: BrokerValues,
  agent: AgentValues,
  change: { gone?: readonly string[]; come?: readonly string[] },
): void {
  const now = connections(broker, agent);
  expect(TEN_ROWS.filter((row) => !now.includes(row))).toEqual(change.gone ?? []);
  expect(now.filter((row) => !TEN_ROWS.includes(row))).toEqual(change.come ?? []);
}

function broker(change: Partial<BrokerValues['networkPolicy']>, rest: Partial<BrokerValues> = {}): BrokerValues {
  return { ...BROKER, ...rest, networkPolicy: { ...BROKER.networkPolicy, ...change } };
}

function agent(change: Partial<AgentValues['networkPolicy']>, rest: Partial<AgentValues> = {}): AgentValues {
  return { ...AGENT, ...rest, networkPolicy: { ...AGENT.networkPolicy, ...change } };
}

const METRICS = {
  broker: 'monitoring/prometheus brokkr/broker TCP/3000',
  agent: 'monitoring/prometheus brokkr-agent/agent TCP/8080',
};
const STRAY: PeerValue = { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'default' } } };

describe("the values of Brokkr's charts", () => {
  it('as documented are the ten rows and nothing else', () => {
    const now = connections(BROKER, AGENT);
    expect(now.toSorted()).toEqual(TEN_ROWS.toSorted());
  });

  // N-111
  it('let every peer of allowIngressFrom reach the broker', () => {
    const ingress = BROKER.networkPolicy.allowIngressFrom ?? [];
    expectChange(broker({ allowIngressFrom: [...ingress, STRAY, { ipBlock: { cidr: '10.9.9.0/24' } }] }), AGENT, {
      come: ['default/stray brokkr/broker TCP/3000', '10.9.9.9 brokkr/broker TCP/3000'],
    });
  });

  // N-112
  it('without allowIngressFrom let every pod of the namespace reach the broker', () => {
    const policies = policiesOf(flows, withBrokerValues(flows.file, broker({ allowIngressFrom: [] })), {}, 'brokkr');
    const ingress = policies.find((policy) => JSON.stringify(policy).includes('"brokkr.broker"'));
    expect(ingress).toMatchObject({
      spec: {
        ingress: expect.arrayContaining([
          {
            from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'brokkr' } }, podSelector: {} }],
            ports: [{ protocol: 'TCP', port: 3000 }],
          },
        ]),
      },
    });
    expectChange(broker({ allowIngressFrom: [] }), AGENT, { gone: ['ingress-nginx/controller brokkr/broker TCP/3000'] });
  });

  // N-113
  it('let only allowMetricsFrom scrape the broker', () => {
    expectChange(broker({ allowMetricsFrom: [] }), AGENT, { gone: [METRICS.broker] });
    expectChange(broker({ allowMetricsFrom: [STRAY] }), AGENT, {
      gone: [METRICS.broker],
      come: ['default/stray brokkr/broker TCP/3000'],
    });
  });

  // N-115
  it('open the addresses of an external database, on its port, and nothing of the bundled one', () => {
    const external = { postgresql: { external: { cidr: '10.9.9.9/32', port: 6432 } } };
    expectChange(broker({}, external), AGENT, {
      gone: ['brokkr/broker brokkr/db TCP/5432'],
      come: ['brokkr/broker 10.9.9.9 TCP/6432'],
    });
  });

  // N-116, N-117
  it('switch webhooks, which never lead to private addresses', () => {
    expectChange(broker({ allowWebhookEgress: false }), AGENT, {
      gone: PUBLIC.map((address) => `brokkr/broker ${address} TCP/443`),
    });
  });

  // N-119
  it('limit the API server to kubernetesApiCidr', () => {
    expectChange(BROKER, agent({ kubernetesApiCidr: '10.0.0.2/32' }), {
      gone: [`brokkr-agent/agent ${API} TCP/443`, `brokkr-agent/agent ${API} TCP/6443`],
      come: ['brokkr-agent/agent 10.0.0.2 TCP/443', 'brokkr-agent/agent 10.0.0.2 TCP/6443'],
    });
  });

  // N-120
  it('take the broker as addresses, on the port that is configured', () => {
    expectChange(BROKER, agent({ brokerEndpoint: { ipBlock: { cidr: '203.0.113.0/24' } }, brokerPort: 443 }), {
      gone: ['brokkr-agent/agent brokkr/broker TCP/3000'],
      come: ['brokkr-agent/agent 203.0.113.7 TCP/443'],
    });
  });

  // N-121
  it.each([
    [true, true, []],
    [true, false, [METRICS.agent]],
    [false, true, [METRICS.agent]],
    [false, false, [METRICS.agent]],
  ])('let the agent be scraped with metrics (%s) and scrapers (%s) only', (enabled, from, gone) => {
    const allowMetricsFrom = from ? AGENT.networkPolicy.allowMetricsFrom : [];
    expectChange(BROKER, agent({ ...(allowMetricsFrom && { allowMetricsFrom }) }, { metrics: { enabled } }), { gone });
  });

  it('refuse a peer that names nobody', () => {
    expect(() => withBrokerValues(flows.file, broker({ allowIngressFrom: [{}] }))).toThrow('otherwise it would be everybody');
  });
});
