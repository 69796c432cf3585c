import { randomUUID } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLog } from '#lib/log.ts';
import { keyString } from '#lib/object.ts';
import { DeletionPolicy } from '#proto/brokkr/v1/content_pb.js';
import { RevisionSchema } from '#proto/brokkr/v1/sync_pb.js';
import { startKubeProxy } from '../../test/http-proxy.ts';
import { type Kube as TestKube, useKube } from '../../test/kube.ts';
import { openTestKube } from '../../test/kube-client.ts';
import type { Kube } from '../kube/kube.ts';
import { decodeEntries, decodeHead, emptyHead, encodeEntries, encodeHead, type InventoryEntry } from './codec.ts';
import { Inventory, loadInventories, shardCount } from './inventory.ts';
import { type InventoryPlace, InventoryTakenError } from './maps.ts';

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
    const keyed = (list: readonly InventoryEntry[]) => new Map(list.map((one) => [keyString(one), one]));
    expect(decodeEntries(encodeEntries(keyed(entries)))).toEqual(keyed(entries));
    expect(encodeEntries(keyed(entries))).toBe(encodeEntries(keyed(entries.toReversed())));
    expect(decodeEntries(encodeEntries(new Map()))).toEqual(new Map());
    expect(decodeEntries(encodeEntries(new Map([['gone', undefined]])))).toEqual(new Map([['gone', undefined]]));
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
      ...{ shards: 4, sequence: 7, partial: true, origin: 'o', impersonate: 'shop/deployer' },
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
      const [loaded, ...others] = (await loadInventories(place, signal)).inventories;
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
    const [other] = (await loadInventories({ ...place, writer: 'two' }, signal)).inventories;
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

describe('an inventory that two processes begin', () => {
  it('is that of the first, which the second reads', async () => {
    const stackId = randomUUID();
    const [first, second] = [
      new Inventory(place, stackId, 'begun'),
      new Inventory({ ...place, writer: 'two' }, stackId, 'begun'),
    ];
    fill(first, 2);
    await first.save(signal);
    fill(second, 1);
    await expect(second.save(signal)).rejects.toMatchObject({ status: 409 });
    await expect(second.save(signal)).rejects.toThrow(InventoryTakenError);
    expect(await second.reload(signal)).toBeUndefined();
    expect(second.entries).toEqual(first.entries);
  });
});

describe('an inventory in shards', () => {
  /** Every write of a rewritten layout: four shards and the head. */
  const WRITES = 5;
  const marked = (one: InventoryEntry, digest: string): InventoryEntry => ({ ...one, digest: digest.repeat(32) });
  const states = (inventory: Inventory | undefined) =>
    new Map([...(inventory?.entries ?? [])].map(([key, { digest }]) => [key, digest[0] ?? '']));
  const writes = async (since: number) =>
    (await server.auditEvents({ since, verbs: ['patch', 'create'], resource: 'configmaps', namespace: place.namespace })).length;

  async function large(name: string, over: InventoryPlace = place): Promise<Inventory> {
    const inventory = new Inventory(over, randomUUID(), name);
    fill(inventory, 1200);
    await inventory.save(signal);
    return inventory;
  }

  async function load(inventory: Inventory): Promise<Inventory | undefined> {
    const { inventories } = await loadInventories({ ...place, writer: randomUUID() }, signal);
    return inventories.find(({ identity }) => identity.short === inventory.identity.short);
  }

  it('costs one write while few entries differ from the shards, and more only once they are many', async () => {
    const inventory = await large('journal');
    const keys = [...inventory.entries.keys()];
    const change = (from: number, to: number, digest: string) => {
      for (const key of keys.slice(from, to))
        inventory.entries.set(key, marked(inventory.entries.get(key) as InventoryEntry, digest));
    };
    const counts: number[] = [];
    for (const [from, to, digest] of [
      [0, 1, 'e'],
      [1, 190, 'e'],
      [190, 400, 'e'],
      [0, 1, 'f'],
    ] as const) {
      const mark = await server.auditMark();
      change(from, to, digest);
      await inventory.save(signal);
      counts.push(await writes(mark));
      expect(states(await load(inventory))).toEqual(states(inventory));
    }
    expect(counts).toEqual([1, 1, WRITES, 1]);
    const mark = await server.auditMark();
    await inventory.save(signal);
    await (await load(inventory))?.save(signal);
    expect(await writes(mark)).toBe(0);
    inventory.entries.delete(keys[5] ?? '');
    await inventory.save(signal);
    expect(states(await load(inventory))).toEqual(states(inventory));
  });

  it('says of every object what was or what is, whatever write a save is cut off after, and can be saved on', async () => {
    for (let k = 0; k <= WRITES; k++) {
      await using proxy = await startKubeProxy({ target: server.url, ca: server.caData });
      await using cut = openTestKube({ url: proxy.url, token: server.identities.ops.token });
      const inventory = await large(`cut-${k}`, { ...place, kube: cut });
      const keys = [...inventory.entries.keys()];
      // Something is said by the head alone before the shards are written.
      inventory.entries.set(keys[0] ?? '', marked(inventory.entries.get(keys[0] ?? '') as InventoryEntry, 'e'));
      inventory.entries.delete(keys[1] ?? '');
      await inventory.save(signal);
      const before = states(inventory);
      for (const key of keys.slice(2, 300)) inventory.entries.set(key, marked(inventory.entries.get(key) as InventoryEntry, 'f'));
      for (const key of keys.slice(300, 310)) inventory.entries.delete(key);
      inventory.entries.set(keys[0] ?? '', marked(inventory.entries.get(keys[0] ?? '') as InventoryEntry, 'f'));
      const after = states(inventory);
      void proxy.killAfter(k, ({ method }) => method !== 'GET');
      await inventory.save(signal).catch(() => undefined);
      const loaded = await load(inventory);
      for (const [key, state] of states(loaded)) expect([before.get(key), after.get(key)], `${k} ${key}`).toContain(state);
      for (const key of after.keys()) expect(loaded?.entries.has(key), `${k} ${key}`).toBe(true);
      if (k === WRITES - 1) expect(loaded?.entries.get(keys[0] ?? '')?.digest[0]).toBe('f'); // the shards are newer than the head
      expect(loaded?.head.partial).toBe(false);
      fill(loaded as Inventory, 1200);
      await loaded?.save(signal);
      expect(states(await load(inventory))).toEqual(states(loaded));
    }
  });

  it('is partial when a shard is missing, and holds what the others say', async () => {
    const inventory = await large('missing');
    await server.request('DELETE', `/api/v1/namespaces/${place.namespace}/configmaps/${inventory.identity.headName}-4-2`);
    const loaded = await load(inventory);
    expect(loaded?.head).toMatchObject({ partial: true, origin: '', appliedGeneration: 0n });
    expect(loaded?.entries.size).toBeGreaterThan(700);
    expect(loaded?.entries.size).toBeLessThan(1100);
    await loaded?.save(signal);
    expect((await load(inventory))?.entries.size).toBe(loaded?.entries.size);
  });
});
