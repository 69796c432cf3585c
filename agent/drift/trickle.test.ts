import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { keyString } from '#lib/object.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import { VerifySchedule } from './trickle.ts';

const DAY = 86_400_000;
const NOW = 1_700_000_000_000;

/** An inventory of so many objects, with UIDs as random as those of a server. */
function inventory(size: number): ReadonlyMap<string, InventoryEntry> {
  const common = { group: '', version: 'v1', kind: 'ConfigMap', plural: 'configmaps', namespaced: true, namespace: 'n' };
  const entries = Array.from({ length: size }, (_, index): InventoryEntry => {
    const uid = createHash('sha256').update(`${index}`).digest('hex').slice(0, 32);
    return { ...common, name: `${index}`, uid, digest: 'd', wave: 0, state: 'applied', marks: {}, print: undefined };
  });
  return new Map(entries.map((entry) => [keyString(entry), entry]));
}

/** Runs a schedule over a time and says which keys came when. */
function run(entries: ReadonlyMap<string, InventoryEntry>, { fromMs = NOW, forMs = DAY, seed = '00c0ffee' } = {}) {
  const schedule = new VerifySchedule(DAY, seed);
  const batches: { readonly at: number; readonly keys: readonly string[] }[] = [];
  for (let now = fromMs; ; ) {
    now += schedule.nextIn(now, entries.size) + 1;
    if (now > fromMs + forMs) return batches;
    batches.push({ at: now, keys: schedule.batch(now, entries) });
  }
}

describe('the schedule of verification', () => {
  it.each([1, 31, 500, 2000])('has a turn for each of %i objects within two periods, in small batches spread evenly', (size) => {
    const batches = run(inventory(size), { forMs: 2 * DAY });
    const seen = batches.flatMap(({ keys }) => keys);
    expect(new Set(seen).size).toBe(size);
    expect(seen.length).toBeLessThanOrEqual(2 * size + 80); // the time begins in the middle of a batch
    expect(Math.max(...batches.map(({ keys }) => keys.length))).toBeLessThan(80);
    const gaps = batches.slice(1).map(({ at }, index) => at - (batches[index]?.at ?? 0));
    expect(Math.max(...gaps) - Math.min(...gaps)).toBeLessThanOrEqual(2);
  });

  it('goes on after a restart where it would be without', () => {
    const entries = inventory(500);
    const whole = run(entries);
    const restarted = run(entries, { fromMs: NOW + DAY / 2, forMs: DAY / 2 });
    const second = whole.filter(({ at }) => at > NOW + DAY / 2);
    expect(restarted.map(({ keys }) => keys)).toEqual(second.map(({ keys }) => keys));
  });

  it('gives an object another time of the day after some days, and stacks different times', () => {
    const entries = inventory(500);
    const key = [...entries.keys()][0] ?? '';
    const at = (fromMs: number) => run(entries, { fromMs }).findIndex(({ keys }) => keys.includes(key));
    expect(at(NOW + 5 * DAY)).not.toBe(at(NOW));
    const next = (seed: string) => new VerifySchedule(DAY, seed).nextIn(NOW, 1);
    expect(next('00c0ffee')).not.toBe(next('80c0ffee'));
  });

  it('leaves out what is not applied', () => {
    const entries = new Map([...inventory(10)].map(([key, entry]) => [key, { ...entry, state: 'pending' as const }]));
    expect(run(entries).flatMap(({ keys }) => keys)).toEqual([]);
  });
});
