import { load } from 'js-yaml';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  type AgentValues,
  type BrokerValues,
  type PeerValue,
  withAgentValues,
  withBrokerValues,
} from '../../flows/chart/network-policy-values.ts';
import { compile } from '../../flows/compile/compile.ts';
import type { Evaluator } from '../../flows/evaluate/evaluator.ts';
import { loadFacts, type PartialFacts, resolveFacts } from '../../flows/model/facts.ts';
import type { FlowSetFile } from '../../flows/model/flowset.ts';
import { loadFlowSet } from '../../flows/model/load.ts';
import type { Protocol } from '../../flows/model/model.ts';
import { resolve } from '../../flows/model/resolve.ts';
import { documentsOf, evaluatorOf, exampleText, isAllowed, TODAY } from './flow-rig.ts';

/** The values that the network documentation shows, word by word. */
const BROKER = load(`
  networkPolicy:
    enabled: true
    allowIngressFrom:
      - namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: ingress-nginx } }
        podSelector: { matchLabels: { app.kubernetes.io/name: ingress-nginx } }
    allowMetricsFrom:
      - namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: monitoring } }
    allowWebhookEgress: true
`) as BrokerValues;
const AGENT = load(`
  metrics: { enabled: true }
  networkPolicy:
    enabled: true
    kubernetesApiCidr: "10.0.0.1/32"
    brokerEndpoint:
      podSelector: { matchLabels: { app.kubernetes.io/name: brokkr-broker } }
      namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: brokkr } }
    allowMetricsFrom:
      - namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: monitoring } }
`) as AgentValues;

const PODS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'brokkr/broker': { 'app.kubernetes.io/name': 'brokkr-broker' },
  'brokkr/db': { 'app.kubernetes.io/name': 'postgresql' },
  'brokkr/other': { app: 'other' },
  'brokkr-agent/agent': { 'app.kubernetes.io/name': 'brokkr-agent' },
  'ingress-nginx/controller': { 'app.kubernetes.io/name': 'ingress-nginx' },
  'ingress-nginx/other': { app: 'other' },
  'monitoring/prometheus': { app: 'prometheus' },
  'observability/collector': { 'app.kubernetes.io/name': 'opentelemetry-collector' },
  'kube-system/dns': { 'k8s-app': 'kube-dns' },
  'default/stray': { app: 'stray' },
};
const PUBLIC = ['203.0.113.7', '8.8.8.8', '2606:4700::1'];
const PRIVATE = [
  '10.9.9.9',
  '172.16.0.1',
  '192.168.1.1',
  '169.254.169.254',
  '100.64.0.1',
  '127.0.0.1',
  '::1',
  'fc00::1',
  'fe80::1',
];
const API = '10.0.0.1';
const ADDRESSES = [...PUBLIC, ...PRIVATE, API, '10.0.0.2'];
const PORTS: readonly (readonly [Protocol, number])[] = [
  ...[53, 80, 443, 3000, 3001, 4317, 5432, 6432, 6443, 8080].map((port) => ['TCP', port] as const),
  ['UDP', 53],
  ['UDP', 3000],
];

let file: FlowSetFile;
let declared: PartialFacts;
beforeAll(async () => {
  file = load(await exampleText('brokkr', 'flows.yaml')) as FlowSetFile;
  declared = loadFacts(await exampleText('brokkr', 'facts.yaml'), 'facts.yaml');
});

/** The policies of the namespace of a chart. */
function policiesOf(edited: FlowSetFile, facts: PartialFacts, namespace: string): object[] {
  const set = loadFlowSet(JSON.stringify(edited), 'values.json');
  const layers = [facts, declared].map((known) => ({ facts: known, source: 'declared' as const }));
  const model = resolve(set, { today: TODAY, facts: resolveFacts(...layers) });
  return compile(model).objects.filter(({ metadata }) => metadata.namespace === namespace);
}

/** A cluster with both charts. */
function installed(broker: BrokerValues, agent: AgentValues): Evaluator {
  const pods = Object.entries(PODS).map(([name, labels], index) => {
    const [namespace, pod] = name.split('/');
    const spec = { containers: [{ name: 'main', image: 'x' }] };
    return {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: pod, namespace, labels },
      spec,
      status: { podIP: `10.244.0.${index + 1}` },
    };
  });
  const agentSide = withAgentValues(file, agent);
  return evaluatorOf(documentsOf(pods.map((pod) => JSON.stringify(pod)).join('\n---\n')), [
    ...policiesOf(withBrokerValues(file, broker), {}, 'brokkr'),
    ...policiesOf(agentSide.file, agentSide.facts, 'brokkr-agent'),
  ]);
}

/** All connections of the two namespaces that are allowed, as `source destination protocol/port`. */
function allowed(evaluator: Evaluator): string[] {
  const ours = (name: string) => name.startsWith('brokkr');
  const names = [...Object.keys(PODS), ...ADDRESSES];
  return names.flatMap((source) =>
    names
      .filter((destination) => source !== destination && (ours(source) || ours(destination)))
      .flatMap((destination) =>
        PORTS.filter(([protocol, port]) => isAllowed(evaluator, { source, destination, protocol, port })).map(
          ([protocol, port]) => `${source} ${destination} ${protocol}/${port}`,
        ),
      ),
  );
}

/** The ten rows between these pods and addresses, written from the table: agents, ingress and Prometheus in; database, DNS, and so on out. */
const TEN_ROWS = [
  'ingress-nginx/controller brokkr/broker TCP/3000', // Admin/UI and Generator, through the ingress
  'brokkr-agent/agent brokkr/broker TCP/3000',
  'brokkr/broker brokkr/db TCP/5432',
  `brokkr-agent/agent ${API} TCP/443`,
  `brokkr-agent/agent ${API} TCP/6443`,
  ...PUBLIC.map((address) => `brokkr/broker ${address} TCP/443`),
  'monitoring/prometheus brokkr/broker TCP/3000',
  'monitoring/prometheus brokkr-agent/agent TCP/8080',
  'brokkr/broker observability/collector TCP/4317',
  'brokkr-agent/agent observability/collector TCP/4317',
  ...['brokkr/broker', 'brokkr-agent/agent'].flatMap((pod) => [`${pod} kube-system/dns TCP/53`, `${pod} kube-system/dns UDP/53`]),
];

/** What a change of values changes in the table. */
function expectChange(
  broker: BrokerValues,
  agent: AgentValues,
  change: { gone?: readonly string[]; come?: readonly string[] },
): void {
  const now = allowed(installed(broker, agent));
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
    const now = allowed(installed(BROKER, AGENT));
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
    const policies = policiesOf(withBrokerValues(file, broker({ allowIngressFrom: [] })), {}, 'brokkr');
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
    expect(() => withBrokerValues(file, broker({ allowIngressFrom: [{}] }))).toThrow('otherwise it would be everybody');
  });
});
