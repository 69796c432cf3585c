import { randomUUID } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLog } from '#lib/log.ts';
import { keyString } from '#lib/object.ts';
import { DeletionPolicy } from '#proto/brokkr/v1/content_pb.js';
import { RevisionSchema } from '#proto/brokkr/v1/sync_pb.js';
import { type Kube as TestKube, useKube } from '../test/kube.ts';
import { Inventory, type InventoryPlace, InventoryTakenError, loadInventories, shardCount } from './inventory.ts';
import { decodeEntries, decodeHead, emptyHead, encodeEntries, encodeHead, type InventoryEntry } from './inventory-codec.ts';
import type { Kube } from './kube/kube.ts';
import { openTestKube } from './kube/testing.ts';

const { signal } = new AbortController();
let server: TestKube;
let kube: Kube;
let place: InventoryPlace;

beforeAll(async () => {
  server = await useKube();
  kube = openTestKube({ ...server, token: server.identities.ops.token });
  const namespace = `inventory-${randomUUID().slice(0, 8)}`;
  place = { kube, log: createLog('test', { level: 'fatal' }), agentId: randomUUID(), namespace, writer: 'one' };
});
afterAll(() => kube?.[Symbol.asyncDispose]());

function entry(name: string): InventoryEntry {
  const key = { group: 'apps', version: 'v1', kind: 'Deployment', namespace: 'shop', name };
  const print = { resourceVersion: '12', generation: 3, time: '2026-01-01T00:00:00Z', fields: '0123456789abcdef' };
  return {
    ...key,
    plural: 'deployments',
    namespaced: true,
    uid: randomUUID(),
    digest: 'd'.repeat(32),
    wave: -1,
    state: 'kept',
    marks: { prune: 'orphan' },
    print,
  };
}

function fill(inventory: Inventory, count: number): void {
  inventory.entries.clear();
  for (let index = 0; index < count; index++) {
    const one = entry(`web-${index}`);
    inventory.entries.set(keyString(one), one);
  }
}

const byKey = (entries: Iterable<InventoryEntry>) => [...entries].sort((a, b) => (a.name < b.name ? -1 : 1));

describe('the inventory format', () => {
  it('gives back entries and head as they were, and equal text for equal entries', () => {
    const entries = [
      entry('b'),
      { ...entry('a'), group: '', namespaced: false, namespace: '', print: undefined, uid: '', digest: '' },
    ];
    expect(byKey(decodeEntries(encodeEntries(entries)))).toEqual(byKey(entries));
    expect(encodeEntries(entries)).toBe(encodeEntries(entries.toReversed()));
    expect(decodeEntries(encodeEntries([]))).toEqual([]);
    const head = {
      ...emptyHead(randomUUID(), 'shop'),
      ...{
        receivedGeneration: 2n ** 60n,
        appliedGeneration: 4n,
        manifestDigest: Buffer.alloc(32, 1),
        optionsDigest: Buffer.alloc(32, 2),
      },
      revision: create(RevisionSchema, { xid: 7n, seq: 8n, nonce: 2n ** 63n }),
      tombstone: { policy: DeletionPolicy.ORPHAN, generation: 9n },
      attempt: { id: 'a', generation: 5n, type: 'PRUNE' as const, deploymentObjectId: 'd' },
    };
    expect(decodeHead(encodeHead(head))).toEqual(head);
  });

  it('spreads large stacks over shards that never become fewer', () => {
    expect([0, 1000, 1001, 1500, 10_000].map((count) => shardCount(count, 1))).toEqual([1, 1, 4, 4, 32]);
    expect(shardCount(10, 4)).toBe(4);
  });
});

describe('a stored inventory', () => {
  it('survives growing into shards and shrinking again, and is read in one list', async () => {
    const stackId = randomUUID();
    const inventory = new Inventory(place, stackId, 'large');
    for (const count of [3, 1200, 7]) {
      fill(inventory, count);
      await inventory.save(signal);
      const [loaded, ...others] = await loadInventories(place, signal);
      expect(others).toEqual([]);
      expect(byKey(loaded?.entries.values() ?? [])).toEqual(byKey(inventory.entries.values()));
      expect(loaded?.head).toEqual({ ...inventory.head, manifestDigest: Buffer.alloc(0), optionsDigest: Buffer.alloc(0) });
    }
    await inventory.removeShards(signal);
    await inventory.removeHead(signal);
    const { body } = await server.request(
      'GET',
      `/api/v1/namespaces/${place.namespace}/configmaps?labelSelector=brokkr.io/inventory`,
    );
    expect(body.items).toEqual([]);
  });

  it('is not overwritten when another process has written it, and can be read again', async () => {
    const inventory = new Inventory(place, randomUUID(), 'shared');
    fill(inventory, 1);
    await inventory.save(signal);
    const [other] = await loadInventories({ ...place, writer: 'two' }, signal);
    fill(other as Inventory, 2);
    await other?.save(signal);
    fill(inventory, 3);
    await expect(inventory.save(signal)).rejects.toMatchObject({ status: 409 });
    await expect(inventory.save(signal)).rejects.toThrow(InventoryTakenError);
    await inventory.reload(signal);
    expect(inventory.entries.size).toBe(2);
    await inventory.save(signal);
  });
});
