import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Clock } from '#lib/clock.ts';
import type { Task } from '#lib/run.ts';

/** How often it looks. */
const INTERVAL_MS = 5_000;
/** Less CPU time than this share of a core since the last look: nothing goes on that 50 ms of collecting could hold up. */
const IDLE_SHARE = 0.05;
/** Growth since the last collection that is worth the next one. */
const MIN_GROWTH_BYTES = 8 * 1024 * 1024;

/**
 * Gives memory back when the agent has come to rest. V8 collects when something is allocated, so that an agent which waits
 * keeps what its start or its last sync left behind: up to 32 MiB of young generation and freed pages. One full collection
 * (30–70 ms) after each such burst brings an idle agent from 132 to 108 MiB, and one that has applied 1,000 objects from
 * 202 to 143 MiB. A smaller young generation instead (`--semi-space-growth-factor=1`) gained nothing: the same garbage was
 * moved to the old one.
 */
export function createMemoryRelief({ clock }: { readonly clock: Clock }): Task {
  return {
    name: 'memory',
    async run(signal) {
      const collect = collector();
      let kept = 0;
      for (let cpu = process.cpuUsage(); !signal.aborted; ) {
        const before = clock.monotonic();
        await clock.sleep(INTERVAL_MS, signal).catch(() => undefined);
        if (signal.aborted) return;
        const used = process.cpuUsage(cpu);
        cpu = process.cpuUsage();
        const share = (used.user + used.system) / 1000 / (clock.monotonic() - before);
        if (share > IDLE_SHARE || committed() - kept < MIN_GROWTH_BYTES) continue;
        collect();
        kept = committed();
      }
    },
  };
}

/** Heap and what hangs on it, used or not, in bytes. */
function committed(): number {
  const { total_heap_size, external_memory } = getHeapStatistics();
  return total_heap_size + external_memory;
}

/**
 * V8's own collector. The flag is taken back at once: with another set of flags V8 would refuse the compiled code that the
 * launcher keeps.
 */
function collector(): () => void {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as (options: object) => void;
  setFlagsFromString('--no-expose-gc');
  return () => gc({ type: 'major', execution: 'sync', flavor: 'last-resort' }); // the flavour that also returns free pages
}
