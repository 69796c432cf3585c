import { expect, it } from 'vitest';
import type { InventoryEntry } from '../inventory/codec.ts';
import { openWaveGate } from './wave-gate.ts';

const entry = (name: string, wave = 0): InventoryEntry => ({
  ...{ group: 'apps', version: 'v1', kind: 'Deployment', plural: 'deployments', namespace: 'shop', namespaced: true },
  ...{ name, wave, uid: `uid of ${name}`, digest: '', state: 'applied', marks: {} },
  print: { resourceVersion: '1', generation: 1, time: '', fields: '' },
});

it('a gate asks about what is applied of earlier waves only, and for as long as the options say', async () => {
  const entries = [entry('web'), entry('own-wave', 1), { ...entry('unsent'), state: 'pending' as const }, entry('gone')];
  const inventory = { entries: new Map(entries.map((each) => [`apps/Deployment/shop/${each.name}`, each])) };
  const wanted = new Set([...inventory.entries.keys()].filter((key) => !key.endsWith('gone')));
  const waits: unknown[] = [];
  const gate = (gateWaves: boolean, failureDeadlineSeconds: number) =>
    openWaveGate({
      ...{ inventory, wanted, options: { gateWaves, failureDeadlineSeconds } },
      healthy: async ({ wave, entries: asked, timeoutMs }) => {
        waits.push([wave, asked.map(({ name }) => name), timeoutMs]);
        return [];
      },
    });
  const { signal } = new AbortController();
  await gate(true, 0)(1, signal);
  await gate(true, 7)(1, signal);
  await gate(true, 7)(0, signal);
  await gate(false, 7)(1, signal);
  expect(waits).toEqual([
    [1, ['web'], 300_000],
    [1, ['web'], 7000],
  ]);
});
