import { type Bench, percentile, type Result } from './bench.ts';
import { startCluster } from './cluster.ts';
import { startBroker } from './environment.ts';
import { bareServer, scriptedAgents } from './fan-out.ts';

const ROUNDS = 60;
const WARM_UP = 10;
const PAUSE_MS = 20;

const configMap = (round: number) =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: latency, namespace: default}\ndata: {round: "${round}"}\n`;

/** Publish → frame at the agent (scripted, 1 and 100 agents), and publish → applied in a real API server by a real agent. */
export const bench: Bench = {
  name: 'latency',
  about: 'publish → frame at the agent, publish → applied in a real API server; baseline: a bare HTTP/2 echo, a bare patch',
  async run(note, signal) {
    const results: Result[] = [];
    for (const agents of [1, 100]) {
      results.push(await frames(agents, note, signal));
    }
    results.push(...(await applied(note, signal)));
    return results;
  },
};

async function frames(count: number, note: (line: string) => void, signal: AbortSignal): Promise<Result> {
  await using broker = await startBroker();
  using bare = await bareServer();
  const samples: number[] = [];
  const baseline: number[] = [];
  using fleet = await scriptedAgents(broker, count);
  for (let round = 0; round < ROUNDS; round++) {
    signal.throwIfAborted();
    const start = performance.now();
    const all = fleet.allAt(round + 1);
    await broker.call('PUT', '/api/v1/stacks/by-name/latency/apply?label=fleet', configMap(round), 'application/yaml');
    await all;
    if (round >= WARM_UP) samples.push(performance.now() - start);
    if (round >= WARM_UP) baseline.push(await bare.echo());
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  const value = percentile(samples, 0.99);
  const base = percentile(baseline, 0.99);
  note(`${count} agents: p50 ${percentile(samples, 0.5).toFixed(1)} ms, p99 ${value.toFixed(1)} ms`);
  return {
    metric: `publish → frame, ${count} agent${count === 1 ? '' : 's'}, p99`,
    value,
    unit: 'ms',
    baseline: base,
    ratio: value / base,
    budget: count === 1 ? '≤ 10 ms' : '1,000 agents ≤ 35 ms',
  };
}

async function applied(note: (line: string) => void, signal: AbortSignal): Promise<Result[]> {
  await using broker = await startBroker();
  await using cluster = await startCluster(broker, ['fleet']);
  const samples: number[] = [];
  const baseline: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    signal.throwIfAborted();
    const seen = cluster.configMapValue('latency', 'round', String(round), signal);
    const start = performance.now();
    await broker.call('PUT', '/api/v1/stacks/by-name/latency/apply?label=fleet', configMap(round), 'application/yaml');
    await seen;
    if (round >= WARM_UP) samples.push(performance.now() - start);
    if (round >= WARM_UP) baseline.push(await cluster.barePatch('bare', String(round)));
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  const p50 = percentile(samples, 0.5);
  const p99 = percentile(samples, 0.99);
  const base50 = percentile(baseline, 0.5);
  const base99 = percentile(baseline, 0.99);
  note(`publish → applied: p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms`);
  return [
    {
      metric: 'publish → applied, p50',
      value: p50,
      unit: 'ms',
      baseline: base50,
      ratio: p50 / base50,
      budget: '≤ 150 ms',
      met: p50 <= 150,
    },
    { metric: 'publish → applied, p99', value: p99, unit: 'ms', baseline: base99, ratio: p99 / base99, budget: '≤ 150 ms' },
  ];
}
