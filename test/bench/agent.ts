import { type Bench, median, type Result } from './bench.ts';
import { startCluster } from './cluster.ts';
import { cpuMs, publishSmallStacks, residentBytes, startBroker } from './environment.ts';

const STACKS = 20;
const STARTS = 3;
/** The agent gives back what its start took five to ten seconds after it. */
const SETTLE_MS = 45_000; // the YAML thread goes after 30 s
const WATCH_MS = 20_000;

/** An idle agent with 20 stacks: memory, CPU, and the time from its start to its first heartbeat. */
export const bench: Bench = {
  name: 'agent',
  about: `idle agent with ${STACKS} stacks: memory, CPU; start to its session with the broker; baseline: an empty Node process`,
  async run(note, signal) {
    await using broker = await startBroker();
    await publishSmallStacks(broker, STACKS, 'bench');
    const start = performance.now();
    await using cluster = await startCluster(broker, ['bench']);
    note(`cluster and agent up after ${(performance.now() - start).toFixed(0)} ms`);
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    const starts: number[] = [];
    for (let round = 0; round < STARTS; round++) {
      signal.throwIfAborted();
      starts.push((await cluster.agent.restart()).connectedMs);
      note(`session after ${starts.at(-1)?.toFixed(0)} ms`);
    }
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    const { pid } = cluster.agent;
    const before = await cpuMs(pid);
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
    const cpu = ((await cpuMs(pid)) - before) / WATCH_MS;
    const bytes = await residentBytes(pid);
    const baseline = await emptyNode();
    const startMs = median(starts);
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
      { metric: 'CPU, idle', value: cpu * 100, unit: '% of a core', budget: '≤ 0.5 %', met: cpu <= 0.005 },
      { metric: 'start to first heartbeat', value: startMs, unit: 'ms', budget: '≤ 1 s', met: startMs <= 1000 },
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
