import { keyString } from '#lib/object.ts';
import type { ApplyOptions, ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import type { HealthWait } from '../health/seen.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { WaveGate } from './apply.ts';

/** What decides whether a wave may begin. */
export interface WaveGateInput {
  readonly inventory: Pick<Inventory, 'entries'>;
  readonly options: Pick<ApplyOptions, 'gateWaves' | 'failureDeadlineSeconds'>;
  /** Keys of the stack's objects. */
  readonly wanted: ReadonlySet<string>;
  /** Waits until the entries are ready; resolves with what is not in time, or with nothing once the sync is asked to stop. */
  readonly healthy: (wait: HealthWait, signal: AbortSignal) => Promise<readonly ObjectStatus[]>;
}

/** Unless the options set another (APPLY §5.9). */
const DEADLINE_SECONDS = 300;

/** With `gate_waves` a wave begins when all that is applied of earlier ones is ready, what did not change included. */
export function openWaveGate({ inventory, options, wanted, healthy }: WaveGateInput): WaveGate {
  return async (wave, signal) => {
    if (!options.gateWaves) return new Map();
    const entries = [...wanted].flatMap((key) => inventory.entries.get(key) ?? []);
    const earlier = entries.filter((entry) => entry.wave < wave && entry.state === 'applied');
    if (earlier.length === 0) return new Map();
    const timeoutMs = (options.failureDeadlineSeconds || DEADLINE_SECONDS) * 1000;
    const unready = await healthy({ wave, entries: earlier, timeoutMs }, signal);
    return new Map(unready.map((status) => [keyString(status), { kind: 'failed', class: 'dependency', status }]));
  };
}
