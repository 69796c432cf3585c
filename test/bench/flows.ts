import { compile } from '../../flows/compile/compile.ts';
import { connections } from '../../flows/evaluate/connectivity.ts';
import { createEvaluator, type Evaluator } from '../../flows/evaluate/evaluator.ts';
import { readCluster } from '../../flows/evaluate/read-cluster.ts';
import { resolveFacts } from '../../flows/model/facts.ts';
import { loadFlowSet } from '../../flows/model/load.ts';
import { resolve } from '../../flows/model/resolve.ts';
import type { ValueObject } from '../../lib/object.ts';
import { naivelyAllowed } from '../flows/naive-evaluator.ts';
import { createRandom } from '../soak/random.ts';
import { type Bench, median, type Result } from './bench.ts';

const PODS = 1_000;
const POLICIES = 200;
const NAMESPACES = 20;
const ROUNDS = 5;
/** Cells that the naive evaluation is timed on; all of them would take minutes. */
const SAMPLED_CELLS = 20_000;

/** The meaning of policies for a large cluster; `connectivity` lists every connection. */
export const bench: Bench = {
  name: 'flows',
  about: '1,000 pods × 200 policies: all connections; baseline: the same cells one by one, naively; compile of 1,000 flows',
  run(note) {
    const results: Result[] = [];
    for (const [name, distinct] of [
      ['replicas alike', false],
      ['every pod different', true],
    ] as const) {
      const objects = clusterOf(distinct);
      const { cluster } = readCluster(objects);
      const took: number[] = [];
      let count = 0;
      for (let round = 0; round < ROUNDS; round++) {
        const start = cpuMs();
        count = connections(createEvaluator(cluster, { ipBlockMode: 'any-ip' })).reduce((sum) => sum + 1, 0);
        took.push(cpuMs() - start);
      }
      const value = median(took);
      const baseline = naiveMs(createEvaluator(cluster, { ipBlockMode: 'any-ip' }), objects);
      note(`${name}: ${count} connections listed in ${value.toFixed(0)} ms`);
      results.push({
        metric: `full connectivity, ${name}`,
        value,
        unit: 'ms',
        baseline,
        ratio: value / baseline,
        budget: '< 2,000 ms on one core',
        met: value < 2_000,
      });
    }
    results.push(compileOf1000Flows(note));
    return Promise.resolve(results);
  },
};

/** Flows between 500 endpoints in 50 namespaces that deny by default, each of them with DNS. */
function compileOf1000Flows(note: (line: string) => void): Result {
  const zones = Array.from({ length: 50 }, (_, index) => ({ name: `zone-${index}`, namespace: `team-${index}` }));
  const apps = Array.from({ length: 500 }, (_, index) => [
    `app-${index}`,
    { zone: `zone-${index % 50}`, pods: { app: `app-${index}` } },
  ]);
  const flows = Array.from({ length: 1_000 }, (_, index) => ({
    ...{ id: `flow-${index}`, from: `app-${index % 500}`, to: `app-${(index * 7 + 1) % 500}` },
    ports: [1_000 + (index % 100), '2000-2010'],
  }));
  const spec = { zones, endpoints: Object.fromEntries(apps), flows };
  const text = JSON.stringify({ apiVersion: 'net.brokkr.dev/v1', kind: 'FlowSet', metadata: { name: 'large' }, spec });
  const model = resolve(loadFlowSet(text, 'large.yaml'), { today: '2026-01-01', facts: resolveFacts() });
  const took: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = cpuMs();
    compile(model);
    took.push(cpuMs() - start);
  }
  const value = median(took);
  note(`1,000 flows compiled in ${value.toFixed(0)} ms`);
  return { metric: 'compile of 1,000 flows', value, unit: 'ms', budget: '< 500 ms', met: value < 500 };
}

/** Processor time of this process, all its threads: what else runs on the machine does not count. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

/** What one port of every pair of pods costs without sets, index and memory; taken from a sample. */
function naiveMs({ cluster }: Evaluator, objects: readonly ValueObject[]): number {
  const policies = objects.filter(({ kind }) => kind === 'NetworkPolicy');
  const random = createRandom(7);
  const ends = cluster.pods.map((pod) => ({ ...pod, addresses: [] }));
  const start = cpuMs();
  for (let cell = 0; cell < SAMPLED_CELLS; cell++)
    naivelyAllowed(policies, random.pick(ends), random.pick(ends), 'TCP', 8080, 'external-only');
  return ((cpuMs() - start) / SAMPLED_CELLS) * PODS * PODS;
}

/** Pods of 50 apps in each of 20 namespaces, replicas of 10 apps or each with labels that a policy tells apart. */
function clusterOf(distinct: boolean): ValueObject[] {
  const random = createRandom(1);
  const namespaces = Array.from({ length: NAMESPACES }, (_, index) => ({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: `team-${index}`, labels: { tier: `tier-${index % 4}` } },
  }));
  const perNamespace = PODS / NAMESPACES;
  const pods = Array.from({ length: PODS }, (_, index) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: `pod-${index}`,
      namespace: `team-${index % NAMESPACES}`,
      labels: { app: `app-${Math.floor(index / NAMESPACES) % (distinct ? perNamespace : 10)}`, release: `r-${index % 3}` },
    },
    spec: { containers: [{ name: 'main', ports: [{ name: 'http', containerPort: 8080 + (index % 3) }] }] },
    status: { podIP: `10.1.${index >> 8}.${index & 255}` },
  }));
  const policies = Array.from({ length: POLICIES }, (_, index) => {
    const app = (): ValueObject => ({ matchLabels: { app: `app-${random.below(distinct ? perNamespace : 10)}` } });
    const peers = (): ValueObject[] => [
      { podSelector: app() },
      { namespaceSelector: { matchLabels: { tier: `tier-${random.below(4)}` } }, podSelector: app() },
      { namespaceSelector: { matchExpressions: [{ key: 'tier', operator: 'In', values: ['tier-0', 'tier-1'] }] } },
    ];
    const block = { ipBlock: { cidr: '0.0.0.0/0', except: ['10.0.0.0/8', `172.${16 + (index % 16)}.0.0/16`] } };
    return {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: `policy-${index}`, namespace: `team-${index % NAMESPACES}` },
      spec: {
        podSelector: index < NAMESPACES ? {} : app(),
        policyTypes: ['Ingress', 'Egress'],
        ingress: [{ from: peers(), ports: [{ port: 'http' }, { port: 9000 + (index % 10) }] }, { from: peers() }],
        egress: [{ to: [...peers(), block], ports: [{ port: 443 }, { port: 8080, endPort: 8090 }] }],
      },
    };
  });
  return [...namespaces, ...pods, ...policies];
}
