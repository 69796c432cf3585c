import { createHash } from 'node:crypto';
import { HARD_LIMITS } from '../../lib/yaml.ts';
import { createYamlPool } from '../../lib/yaml-pool.ts';
import { type Bench, median, percentile, type Result } from './bench.ts';
import { mixedDocuments, startBroker } from './environment.ts';

const ROUNDS = 9;
const WARM_UP = 3;

/**
 * 1,000 documents published, every one of them new each round; the baseline is what nobody can avoid: parsing and
 * hashing the same text in a warm worker.
 */
export const bench: Bench = {
  name: 'publish',
  about: '1,000-document snapshot accepted; event-loop delay meanwhile; baseline: parse and hash alone',
  async run(note, signal) {
    await using broker = await startBroker();
    await using pool = createYamlPool({ maxThreads: 1 });
    const accepted: number[] = [];
    const baseline: number[] = [];
    const probes: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      signal.throwIfAborted();
      const text = mixedDocuments(1000, [`round-${round}`], round);
      const parse = performance.now();
      await pool.publish(
        { text, salt: createHash('sha256').update('salt').digest(), limits: HARD_LIMITS, validation: 'full' },
        signal,
      );
      const parsed = performance.now() - parse;
      const probing = probe(broker.url);
      const start = performance.now();
      await broker.call('PUT', '/api/v1/stacks/by-name/bench/apply', text, 'application/yaml');
      const took = performance.now() - start;
      const waits = await probing.stop();
      if (round < WARM_UP) continue;
      accepted.push(took);
      baseline.push(parsed);
      probes.push(...waits);
      note(
        `round ${round}: accepted in ${took.toFixed(0)} ms, parse alone ${parsed.toFixed(0)} ms, worst probe ${Math.max(...waits).toFixed(1)} ms`,
      );
    }
    const value = median(accepted);
    const results: Result[] = [
      {
        metric: '1,000 documents accepted, median',
        value,
        unit: 'ms',
        baseline: median(baseline),
        ratio: value / median(baseline),
        budget: '≤ 300 ms now, ≤ 150 ms by design',
        met: value <= 300,
      },
      {
        metric: 'healthz answered meanwhile, p99',
        value: percentile(probes, 0.99),
        unit: 'ms',
        budget: 'event-loop delay p99 ≤ 20 ms',
      },
    ];
    return results;
  },
};

/** Asks /healthz again and again; its answer is as late as the event loop. */
function probe(url: string): { stop(): Promise<number[]> } {
  const waits: number[] = [];
  let running = true;
  const loop = (async () => {
    while (running) {
      const start = performance.now();
      await (await fetch(`${url}/healthz`)).text();
      waits.push(performance.now() - start);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  return {
    async stop() {
      running = false;
      await loop;
      return waits;
    },
  };
}
