import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { keyString } from '#lib/object.ts';
import { DeletionPolicy, Phase } from '#proto/brokkr/v1/content_pb.js';
import type { TestBroker } from '../../test/agent-engine.ts';
import { openEngineRig } from '../../test/engine-rig.ts';
import type { Kube as TestKube } from '../../test/kube.ts';
import type { TestIdentity } from '../../test/kube-identity.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import { judgeRemovals } from './prune.ts';

let server: TestKube;
let identity: TestIdentity;
let namespace: string;
let broker: TestBroker;

beforeAll(async () => {
  ({ server, identity, namespace, broker } = await openEngineRig('prune'));
});
afterAll(() => broker?.[Symbol.asyncDispose]());

const start = (options: { readonly held?: boolean } = {}) =>
  broker.start({ url: server.url, caData: server.caData, token: identity.token }, { namespace, ...options });
const configMap = (name: string, extra = '') =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${name}\n${extra}data:\n  key: a\n`;
const many = (prefix: string, count: number) => Array.from({ length: count }, (_, index) => configMap(`${prefix}-${index}`));
const yaml = (...documents: string[]) => documents.join('---\n');
const path = (name: string) => `/api/v1/namespaces/${namespace}/configmaps/${name}`;
const exists = async (name: string) => (await server.request('GET', path(name))).status === 200;
const phaseOf = ({ stackId }: { readonly stackId: string }) => broker.statuses.get(stackId)?.phase;
const inventories = async (agentId: string) => {
  const { body } = await server.request('GET', `/api/v1/namespaces/${namespace}/configmaps?labelSelector=brokkr.io/inventory`);
  return body.items.filter((item: { data?: { head?: string } }) => item.data?.head?.includes(agentId)).length as number;
};

describe('objects that left a stack', () => {
  it('are deleted, unless replaced, unlabelled, or marked to stay', async () => {
    await using agent = await start();
    const names = ['gone', 'replaced', 'unlabelled', 'live-never', 'copy-never', 'copy-orphan'];
    const never = (name: string, value: string) => configMap(name, `  annotations: {brokkr.io/prune: ${value}}\n`);
    const first = await broker.publish(
      yaml(
        configMap('stays'),
        ...names.slice(0, 4).map((name) => configMap(name)),
        never('copy-never', 'never'),
        never('copy-orphan', 'orphan'),
      ),
    );
    agent.reconciler.offer(first);
    await broker.applied(first);
    agent.reconciler.suspend('test'); // so that what is done by hand is not corrected first
    await server.request('DELETE', path('replaced'));
    await server.request('POST', path('').slice(0, -1), { metadata: { name: 'replaced' }, data: { mine: 'yes' } });
    await server.kubectl('-n', namespace, 'label', 'configmap', 'unlabelled', 'brokkr.io/stack-');
    await server.kubectl('-n', namespace, 'annotate', 'configmap', 'live-never', 'brokkr.io/prune=never');
    await server.kubectl('-n', namespace, 'annotate', '--overwrite', 'configmap', 'copy-never', 'brokkr.io/prune=no');
    const second = await broker.publish(configMap('stays'), { after: first });
    agent.reconciler.offer(second);
    agent.reconciler.resume();
    await broker.applied(second);
    const left = [];
    for (const name of ['stays', ...names]) if (await exists(name)) left.push(name);
    expect(left).toEqual(['stays', 'replaced', 'unlabelled', 'live-never', 'copy-never', 'copy-orphan']);
    const { metadata } = (await server.request('GET', path('copy-orphan'))).body;
    expect(metadata.labels?.['brokkr.io/stack']).toBeUndefined();
    expect(broker.eventsOf(second).at(-1)).toMatchObject({ success: true, counts: { deleted: 1, orphaned: 1, released: 4 } });
    expect(broker.statuses.get(second.stackId)?.objectsTotal).toBe(1);
  });

  it('are all kept when too many would go, until the publisher approves', async () => {
    await using agent = await start();
    const first = await broker.publish(yaml(configMap('base'), ...many('mass', 25)));
    agent.reconciler.offer(first);
    await broker.applied(first);
    const second = await broker.publish(configMap('base'), { after: first });
    agent.reconciler.offer(second);
    await broker.applied(second);
    expect(broker.statuses.get(second.stackId)?.objects[0]).toMatchObject({ state: 'kept', reason: 'approval' });
    expect(await exists('mass-3')).toBe(true);
    const third = await broker.publish(configMap('base'), { after: second, options: { approveDeletes: 25 } });
    agent.reconciler.offer(third);
    await broker.applied(third);
    expect(await exists('mass-3')).toBe(false);
    expect(broker.eventsOf(third).at(-1)).toMatchObject({ counts: { deleted: 25 } });
  });

  it('are kept while deletions are held, and go when they are allowed', async () => {
    const first = await broker.publish(yaml(configMap('held-1'), configMap('held-2')));
    await using agent = await start({ held: true });
    agent.reconciler.offer(first);
    await broker.applied(first);
    const second = await broker.publish(configMap('held-1'), { after: first });
    agent.reconciler.offer(second);
    await broker.applied(second);
    expect(await exists('held-2')).toBe(true);
    agent.reconciler.holdDeletions(false);
    await broker.until('deleted', () => broker.eventsOf(second).some(({ counts }) => counts.deleted === 1));
    expect(await exists('held-2')).toBe(false);
  });

  it('are kept when the new version is empty without saying that it is meant', async () => {
    await using agent = await start();
    const first = await broker.publish(configMap('not-empty'));
    agent.reconciler.offer(first);
    await broker.applied(first);
    const second = await broker.publish('# nothing\n', { after: first });
    agent.reconciler.offer(second);
    await broker.until('refused', () => phaseOf(second) === Phase.REFUSED);
    expect(await exists('not-empty')).toBe(true);
    const third = await broker.publish('# nothing\n', { after: second, options: { allowEmpty: true } });
    agent.reconciler.offer(third);
    await broker.applied(third);
    expect(await exists('not-empty')).toBe(false);
  });
});

describe('a withdrawn stack', () => {
  it('is deleted with its inventory, and says so once', async () => {
    await using agent = await start();
    const target = await broker.publish(yaml(...many('leaving', 3)));
    agent.reconciler.offer(target);
    await broker.applied(target);
    expect(await inventories(target.stackId)).toBe(1);
    agent.reconciler.withdraw(broker.tombstone(target));
    await broker.until('pruned', () => phaseOf(target) === Phase.PRUNED);
    await broker.until('forgotten', () => !agent.reconciler.stacks().some(({ stackId }) => stackId === target.stackId));
    expect(await exists('leaving-1')).toBe(false);
    expect(await inventories(target.stackId)).toBe(0);
    expect(broker.eventsOf(target).at(-1)).toMatchObject({ eventType: 'PRUNE', success: true, counts: { deleted: 3 } });
    broker.statuses.clear();
    agent.reconciler.withdraw(broker.tombstone(target)); // the report was lost: told again
    await broker.until('pruned', () => phaseOf(target) === Phase.PRUNED);
    expect(broker.eventsOf(target)).toHaveLength(2);
  });

  it('leaves its objects without our marks when the policy is orphan, also when the agent was away', async () => {
    const target = await broker.publish(configMap('orphan'));
    {
      await using agent = await start();
      agent.reconciler.offer(target);
      await broker.applied(target);
    }
    await using agent = await start();
    agent.reconciler.withdraw(broker.tombstone(target, { policy: DeletionPolicy.ORPHAN }));
    await broker.until('pruned', () => phaseOf(target) === Phase.PRUNED);
    const { status, body } = await server.request('GET', path('orphan'));
    expect([status, body.data]).toEqual([200, { key: 'a' }]);
    expect(body.metadata.labels).toBeUndefined();
    expect(body.metadata.annotations).toBeUndefined();
    expect(JSON.stringify(body.metadata.managedFields ?? [])).not.toContain('brokkr/');
  });

  it('keeps everything while deletions are held or the fuse asks, and a newer target takes it back', async () => {
    await using agent = await start({ held: true });
    const target = await broker.publish(yaml(...many('fused', 21)));
    agent.reconciler.offer(target);
    await broker.applied(target);
    agent.reconciler.withdraw(broker.tombstone(target, { approved: false }));
    await broker.until('kept', () => phaseOf(target) === Phase.KEPT);
    expect(broker.statuses.get(target.stackId)?.message).toContain('deletions are held');
    agent.reconciler.holdDeletions(false);
    await broker.until('kept for approval', () => broker.statuses.get(target.stackId)?.objects[0]?.reason === 'approval');
    expect(await exists('fused-20')).toBe(true);
    const again = await broker.publish(configMap('fused-0'), { after: target, options: { approveDeletes: 100 } });
    agent.reconciler.offer(again);
    await broker.applied(again);
    expect([await exists('fused-0'), await exists('fused-20')]).toEqual([true, false]);
  });

  it('stays when it is targeted again at the same generation before it has gone', async () => {
    await using agent = await start();
    const target = await broker.publish(yaml(...many('back', 21)));
    agent.reconciler.offer(target);
    await broker.applied(target);
    agent.reconciler.withdraw(broker.tombstone(target, { approved: false }));
    await broker.until('kept for approval', () => broker.statuses.get(target.stackId)?.objects[0]?.reason === 'approval');
    agent.reconciler.offer(target); // labels and targets do not raise the generation
    await broker.applied(target);
    expect(await exists('back-20')).toBe(true);
    agent.reconciler.withdraw(broker.tombstone(target));
    await broker.until('gone', () => phaseOf(target) === Phase.PRUNED);
    expect(await exists('back-20')).toBe(false);
  });
});

describe('judgeRemovals', () => {
  const entry = (kind: string, name: string, group = ''): InventoryEntry => ({
    ...{ group, version: 'v1', kind, namespace: '', name, plural: '', namespaced: false },
    ...{ uid: 'u', digest: '', wave: 0, state: 'applied', marks: {}, print: undefined },
  });
  const guards = {
    total: 100,
    approvedDeletes: 0,
    approved: false,
    ownNamespace: 'agents',
    frozen: undefined,
    isMoving: () => false,
  };
  const reasons = (removals: InventoryEntry[], rest = {}) =>
    [...judgeRemovals({ ...guards, removals, ...rest }).kept].map(([object, guard]) => `${keyString(object)} ${guard.reason}`);

  it('lets up to 25 % of a stack and at least 20 objects go', () => {
    const some = (count: number) => Array.from({ length: count }, (_, index) => entry('ConfigMap', `${index}`));
    expect(reasons(some(25))).toEqual([]);
    expect(reasons(some(26))).toHaveLength(26);
    expect(reasons(some(20), { total: 20 })).toEqual([]);
    expect(reasons(some(26), { approvedDeletes: 26 })).toEqual([]);
  });

  it('never deletes system namespaces, and asks for what holds data', () => {
    const namespaces = ['kube-system', 'default', 'agents', 'shop'].map((name) => entry('Namespace', name));
    expect(reasons(namespaces, { approved: true })).toEqual([
      '/Namespace//kube-system system_namespace',
      '/Namespace//default system_namespace',
      '/Namespace//agents own_namespace',
    ]);
    expect(reasons([entry('PersistentVolumeClaim', 'data'), entry('StatefulSet', 'db', 'apps')])).toHaveLength(2);
    expect(reasons([entry('PersistentVolumeClaim', 'data')], { approvedDeletes: 1 })).toEqual([]);
  });
});
