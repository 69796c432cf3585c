import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Phase } from '#proto/brokkr/v1/content_pb.js';
import type { TestBroker } from '../test/agent-engine.ts';
import { openEngineRig } from '../test/engine-rig.ts';
import { startKubeProxy } from '../test/http-proxy.ts';
import type { Kube as TestKube } from '../test/kube.ts';
import type { TestIdentity } from '../test/kube-identity.ts';

let server: TestKube;
let identity: TestIdentity;
let namespace: string;
let broker: TestBroker;

beforeAll(async () => {
  ({ server, identity, namespace, broker } = await openEngineRig('faults'));
});
afterAll(() => broker?.[Symbol.asyncDispose]());

const configMap = (name: string, value: string) =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${name}\n  labels: {round: ${namespace}}\ndata:\n  key: ${value}\n`;
const yaml = (documents: string[]) => documents.join('---\n');
const isWrite = ({ method }: { readonly method: string }) => method !== 'GET';

/** ConfigMaps of a round with their value, inventories aside. */
async function present(prefix: string): Promise<Record<string, string>> {
  const { body } = await server.request('GET', `/api/v1/namespaces/${namespace}/configmaps?labelSelector=round=${namespace}`);
  const items = body.items as { metadata: { name: string }; data: { key: string } }[];
  const mine = items.filter(({ metadata }) => metadata.name.startsWith(prefix));
  return Object.fromEntries(mine.map(({ metadata, data }) => [metadata.name, data.key]));
}

describe('an agent killed after the k-th write', () => {
  it('leaks nothing and loses nothing when another version comes afterwards, for every k of a first sync', async () => {
    let rounds = 0;
    for (let k = 0; ; k++) {
      const prefix = `first${k}`;
      const first = await broker.publish(
        yaml(['a', 'b', 'c', 'd', 'e', 'f'].map((name) => configMap(`${prefix}-${name}`, 'one'))),
      );
      const second = await broker.publish(yaml(['e', 'f', 'g'].map((name) => configMap(`${prefix}-${name}`, 'two'))), {
        after: first,
      });
      if (await crash(first, k)) break;
      await recover(second);
      expect(await present(prefix), `after ${k} writes`).toEqual({
        [`${prefix}-e`]: 'two',
        [`${prefix}-f`]: 'two',
        [`${prefix}-g`]: 'two',
      });
      const events = broker.eventsOf(first);
      expect(new Set(events.map(({ attemptId }) => attemptId)).size).toBe(events.length);
      expect(events.filter(({ generation, success }) => generation === 2n && success)).toHaveLength(1);
      rounds++;
    }
    expect(rounds).toBeGreaterThanOrEqual(8); // two inventory writes and six objects
  });

  it('ends at the version that comes afterwards, for every k of an update with removals', async () => {
    for (let k = 0; ; k++) {
      const prefix = `next${k}`;
      const object = (value: string) => (name: string) => configMap(`${prefix}-${name}`, value);
      const first = await broker.publish(yaml(['a', 'b', 'c', 'd'].map(object('one'))));
      const second = await broker.publish(yaml(['c', 'd', 'e'].map(object('two'))), { after: first });
      const third = await broker.publish(yaml(['a', 'c', 'd'].map(object('one'))), { after: second });
      await recover(first);
      if (await crash(second, k)) break;
      await recover(third);
      expect(await present(prefix), `after ${k} writes`).toEqual({
        [`${prefix}-a`]: 'one',
        [`${prefix}-c`]: 'one',
        [`${prefix}-d`]: 'one',
      });
    }
  });

  /** Runs an agent whose connection dies for good after k writes. True when it got to the end before that. */
  async function crash(target: Parameters<TestBroker['applied']>[0], k: number): Promise<boolean> {
    await using proxy = await startKubeProxy({ target: server.url, ca: server.caData });
    const agent = await broker.start({ url: proxy.url, token: identity.token }, { namespace });
    const killed = proxy.killAfter(k, isWrite);
    agent.reconciler.offer(target);
    let isKilled = false;
    void killed.then(() => {
      isKilled = true;
    });
    const isApplied = () =>
      broker.statuses.get(target.stackId)?.phase === Phase.APPLIED &&
      broker.statuses.get(target.stackId)?.appliedGeneration === target.generation;
    await broker.until('killed or applied', () => isKilled || isApplied());
    await agent.stop();
    broker.statuses.delete(target.stackId);
    return !isKilled;
  }

  async function recover(target: Parameters<TestBroker['applied']>[0]): Promise<void> {
    await using agent = await broker.start({ url: server.url, caData: server.caData, token: identity.token }, { namespace });
    agent.reconciler.offer(target);
    await broker.applied(target);
  }
});

describe('an API server that goes away', () => {
  it('does not lose a sync that it interrupts', async () => {
    await using proxy = await startKubeProxy({ target: server.url, ca: server.caData });
    await using agent = await broker.start({ url: proxy.url, token: identity.token }, { namespace });
    const target = await broker.publish(yaml(Array.from({ length: 30 }, (_, index) => configMap(`down-${index}`, 'one'))));
    const killed = proxy.killAfter(10, isWrite);
    agent.reconciler.offer(target);
    await killed;
    await broker.until('failed', () => broker.statuses.get(target.stackId)?.phase === Phase.FAILED);
    proxy.heal();
    await broker.applied(target);
    expect(Object.keys(await present('down-'))).toHaveLength(30);
    expect(broker.eventsOf(target).map(({ success }) => success)).toEqual([false, true]);
  });

  it('does not let a stack whose calls hang delay another one', async () => {
    await using proxy = await startKubeProxy({
      target: server.url,
      ca: server.caData,
      onRequest: ({ path }) => (path.includes('/stuck-') ? 'hang' : undefined),
    });
    await using agent = await broker.start({ url: proxy.url, token: identity.token }, { namespace });
    const stuck = await broker.publish(yaml(Array.from({ length: 50 }, (_, index) => configMap(`stuck-${index}`, 'one'))));
    agent.reconciler.offer(stuck);
    await broker.until('stuck', () => proxy.count('PATCH', '/stuck-') >= 10);
    const other = await broker.publish(yaml(['x', 'y', 'z'].map((name) => configMap(`free-${name}`, 'one'))));
    agent.reconciler.offer(other);
    await broker.until('applied', () => broker.statuses.get(other.stackId)?.phase === Phase.APPLIED, 5000);
  });
});
