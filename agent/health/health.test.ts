import { describe, expect, it } from 'vitest';
import { keyString } from '#lib/object.ts';
import { Health } from '#proto/brokkr/v1/content_pb.js';
import type { InventoryEntry } from '../inventory/codec.ts';
import { countHealth } from './health.ts';
import type { Readiness } from './readiness.ts';

const KEY = { group: 'apps', version: 'v1', kind: 'Deployment', namespace: 'shop', name: 'web' };
const ready: Readiness = { state: 'ready', reason: 'Available', message: '', podsReady: 1, podsTotal: 1 };

/** Written at generation 2. */
const entry: InventoryEntry = {
  ...KEY,
  ...{ plural: 'deployments', namespaced: true, uid: 'u', digest: 'd', wave: 0, state: 'applied', marks: {} },
  print: { resourceVersion: '7', generation: 2, time: '', fields: '' },
};

describe('health', () => {
  it.each([
    [1, Health.DEGRADED, 'NotSeen'],
    [2, Health.HEALTHY, undefined],
    [3, Health.HEALTHY, undefined],
  ])('of an object written at generation 2 and seen ready at %i', (generation, health, reason) => {
    const seen = new Map([[keyString(entry), { ...ready, generation }]]);
    const count = countHealth([entry], seen);
    expect([count.health, count.objects[0]?.reason]).toEqual([health, reason]);
  });
});
