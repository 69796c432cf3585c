import { readFileSync } from 'node:fs';
import { load } from 'js-yaml';
import {
  type AgentValues,
  type BrokerValues,
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

/** The examples of values in docs/network.md, in their order. */
const [ingress, certManager, brokerPolicy, agentPolicy] = [
  ...readFileSync(new URL('../../docs/network.md', import.meta.url), 'utf8').matchAll(/^```yaml\n(.*?)^```$/gms),
].map(([, text = '']) => load(text) as object);

/** The values that the network documentation shows, word by word: of TLS at an Ingress, and of cert-manager. */
export const [INGRESS, CERT_MANAGER] = [ingress ?? {}, certManager ?? {}];
/** Of the policies of the broker's chart. */
export const BROKER = brokerPolicy as BrokerValues;
/** Of those of the agent's chart, where scraping is on by default. */
export const AGENT = { metrics: { enabled: true }, ...agentPolicy } as AgentValues;

/** Pods and their labels: `namespace/pod`; both charts are installed under their own names. */
export const PODS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'brokkr/broker': { 'app.kubernetes.io/name': 'brokkr-broker', 'app.kubernetes.io/instance': 'brokkr-broker' },
  'brokkr/db': { 'app.kubernetes.io/name': 'postgresql', 'app.kubernetes.io/instance': 'brokkr-broker' },
  'brokkr/other': { app: 'other' },
  'brokkr-agent/agent': { 'app.kubernetes.io/name': 'brokkr-agent', 'app.kubernetes.io/instance': 'brokkr-agent' },
  'ingress-nginx/controller': { 'app.kubernetes.io/name': 'ingress-nginx' },
  'ingress-nginx/other': { app: 'other' },
  'monitoring/prometheus': { app: 'prometheus' },
  'observability/collector': { 'app.kubernetes.io/name': 'opentelemetry-collector' },
  'kube-system/dns': { 'k8s-app': 'kube-dns' },
  'default/stray': { app: 'stray' },
};
/** Addresses that webhooks may go to. */
export const PUBLIC = ['203.0.113.7', '8.8.8.8', '2606:4700::1'];
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
/** Of the API server in the documented values. */
export const API = '10.0.0.1';
const ADDRESSES = [...PUBLIC, ...PRIVATE, API, '10.0.0.2'];
const PORTS: readonly (readonly [Protocol, number])[] = [
  ...[53, 80, 443, 3000, 3001, 4317, 5432, 6432, 6443, 8080].map((port) => ['TCP', port] as const),
  ['UDP', 53],
  ['UDP', 3000],
];

/** The flow set of the example, and what is declared about its cluster. */
export async function brokkrFlows(): Promise<{ readonly file: FlowSetFile; readonly declared: PartialFacts }> {
  const file = load(await exampleText('brokkr', 'flows.yaml')) as FlowSetFile;
  return { file, declared: loadFacts(await exampleText('brokkr', 'facts.yaml'), 'facts.yaml') };
}

/** The flow set of the example. */
export type BrokkrFlows = Awaited<ReturnType<typeof brokkrFlows>>;

/** The compiled policies of the namespace of a chart. */
export function policiesOf({ declared }: BrokkrFlows, edited: FlowSetFile, facts: PartialFacts, namespace: string) {
  const set = loadFlowSet(JSON.stringify(edited), 'values.json');
  const layers = [facts, declared].map((known) => ({ facts: known, source: 'declared' as const }));
  const model = resolve(set, { today: TODAY, facts: resolveFacts(...layers) });
  return compile(model).objects.filter(({ metadata }) => metadata.namespace === namespace);
}

/** The compiled policies of both charts under these values. */
export function compiledPolicies(flows: BrokkrFlows, broker: BrokerValues, agent: AgentValues) {
  const agentSide = withAgentValues(flows.file, agent);
  return [
    ...policiesOf(flows, withBrokerValues(flows.file, broker), {}, 'brokkr'),
    ...policiesOf(flows, agentSide.file, agentSide.facts, 'brokkr-agent'),
  ];
}

/** A cluster of `PODS` with policies. */
export function clusterWith(policies: readonly object[]): Evaluator {
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
  return evaluatorOf(documentsOf(pods.map((pod) => JSON.stringify(pod)).join('\n---\n')), policies);
}

/** All connections of the two namespaces that are allowed, as `source destination protocol/port`. */
export function allowed(evaluator: Evaluator): string[] {
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
export const TEN_ROWS = [
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
