import type { Bench, Result } from './bench.ts';
import { startCluster } from './cluster.ts';
import { cpuMs, residentBytes, startBroker } from './environment.ts';

const STACKS = 20;
const SETTLE_MS = 10_000;
const WATCH_MS = 20_000;

/** An idle agent with 20 stacks: memory, CPU, and the time from its start to its first heartbeat. */
export const bench: Bench = {
  name: 'agent',
  about: `idle agent with ${STACKS} stacks: memory, CPU; start to connected; baseline: an empty Node process`,
  async run(note, signal) {
    await using broker = await startBroker();
    for (let index = 0; index < STACKS; index++) {
      const yaml = Array.from(
        { length: 10 },
        (_, object) =>
          `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s${index}-${object}, namespace: default}\ndata: {value: "1"}\n`,
      ).join('---\n');
      await broker.call('PUT', `/api/v1/stacks/by-name/stack-${index}/apply?label=bench`, yaml, 'application/yaml');
    }
    const start = performance.now();
    await using cluster = await startCluster(broker, ['bench']);
    note(`cluster and agent up after ${(performance.now() - start).toFixed(0)} ms`);
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    signal.throwIfAborted();
    const before = await cpuMs(cluster.agent.pid);
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
    const cpu = ((await cpuMs(cluster.agent.pid)) - before) / WATCH_MS;
    const bytes = await residentBytes(cluster.agent.pid);
    const baseline = await emptyNode();
    const results: Result[] = [
      {
        metric: 'memory, idle',
        value: bytes / 2 ** 20,
        unit: 'MiB',
        baseline: baseline / 2 ** 20,
        ratio: bytes / baseline,
        budget: '≤ 90 MB',
        met: bytes <= 90 * 2 ** 20,
      },
      { metric: 'CPU, idle', value: cpu * 100, unit: '% of a core', budget: '≤ 0.5 %' },
    ];
    return results;
  },
};

/** What Node itself takes. */
async function emptyNode(): Promise<number> {
  const { spawn } = await import('node:child_process');
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)'], { stdio: 'ignore' });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const bytes = await residentBytes(child.pid ?? 0);
  child.kill('SIGKILL');
  return bytes;
}
