import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DeletionPolicy, Phase } from '#proto/brokkr/v1/content_pb.js';
import { configMap, names, openRemovalRig, type RemovalRig, yaml } from './removal-rig.ts';

let rig: RemovalRig;

beforeAll(async () => {
  rig = await openRemovalRig('leave');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const phaseOf = ({ stackId }: { readonly stackId: string }) => rig.broker.statuses.get(stackId)?.phase;
const release = (name: string) =>
  rig.server.request('PATCH', rig.path(name), [{ op: 'remove', path: '/metadata/finalizers' }], {
    'content-type': 'application/json-patch+json',
  });
const finalizer = '  finalizers: [example.org/hold]\n';
const inventories = async () => {
  const { body } = await rig.server.request('GET', `${rig.path('').slice(0, -1)}?labelSelector=brokkr.io/inventory`);
  return body.items as { data: { head: string } }[];
};

describe('T43 the broker withdraws a stack', () => {
  it('T43 delete: objects and inventory are gone, what finalizers hold is not waited for', async () => {
    const { broker } = rig;
    await using agent = await rig.start();
    const all = names('delete', 3);
    const documents = all.map((name) => configMap(name, 'a', name === 'delete-2' ? finalizer : ''));
    const target = await rig.apply(agent, await broker.publish(yaml(...documents)));
    agent.reconciler.withdraw(broker.tombstone(target));
    await broker.until('pruned', () => phaseOf(target) === Phase.PRUNED);
    await broker.until('forgotten', () => !agent.reconciler.stacks().some(({ stackId }) => stackId === target.stackId));
    expect(await rig.present(all)).toEqual(['delete-2']);
    expect((await rig.live('delete-2')).metadata.deletionTimestamp).toBeDefined();
    expect(broker.eventsOf(target).at(-1)).toMatchObject({
      eventType: 'PRUNE',
      success: true,
      counts: { deleted: 2, terminating: 1 },
      objects: [{ name: 'delete-2', state: 'terminating' }],
    });
    expect((await inventories()).filter(({ data }) => data.head?.includes(target.stackId))).toEqual([]);
    await release('delete-2');
  });

  it('T43 orphan: objects stay without our marks', async () => {
    const { broker } = rig;
    await using agent = await rig.start();
    const target = await rig.apply(agent, await broker.publish(configMap('orphan')));
    agent.reconciler.withdraw(broker.tombstone(target, { policy: DeletionPolicy.ORPHAN }));
    await broker.until('pruned', () => phaseOf(target) === Phase.PRUNED);
    const { metadata, data } = await rig.live('orphan');
    expect([metadata.labels, metadata.annotations, data]).toEqual([undefined, undefined, { key: 'a' }]);
    expect(JSON.stringify(metadata.managedFields ?? [])).not.toContain('"brokkr/');
  });

  it('T43 deleteAndWait: waits for the end as the watch tells it, also across a restart, and asks nobody meanwhile', async () => {
    const { broker, server } = rig;
    const target = await broker.publish(yaml(configMap('wait'), configMap('wait-held', 'a', finalizer)));
    const tombstone = broker.tombstone(target, { policy: DeletionPolicy.DELETE_AND_WAIT });
    const waits = () =>
      phaseOf(target) === Phase.PRUNING && broker.statuses.get(target.stackId)?.message.includes('1 terminating') === true;
    {
      await using agent = await rig.start();
      await rig.apply(agent, target);
      agent.reconciler.withdraw(tombstone);
      await broker.until('waiting', waits);
    }
    expect(await rig.present(['wait', 'wait-held'])).toEqual(['wait-held']);
    broker.statuses.clear();
    await using agent = await rig.start();
    agent.reconciler.withdraw(tombstone);
    await broker.until('waiting', waits);
    expect(rig.told(target, 'wait-held')).toMatchObject({ state: 'terminating', since: expect.anything() });
    const mark = await server.auditMark();
    await release('wait-held');
    await broker.until('pruned', () => phaseOf(target) === Phase.PRUNED);
    const gets = (await server.auditEvents({ user: rig.identity.user, since: mark, verbs: ['get'], resource: 'configmaps' }))
      .length;
    expect(gets).toBe(1);
    expect(broker.eventsOf(target).map(({ eventType, success }) => `${eventType} ${success}`)).toEqual([
      'APPLY true',
      'PRUNE false',
      'PRUNE true',
    ]);
  });

  it('T43 with the rights of the service account it was applied as, also after a restart', async () => {
    const { broker, server, namespace } = rig;
    const rules = [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get', 'create', 'patch'] }];
    const { subject } = await server.identity('tenant', { rules, namespace });
    const options = { impersonate: `${namespace}/${subject.name}` };
    const target = await broker.publish(configMap('tenant'), { options });
    {
      await using agent = await rig.start();
      await rig.apply(agent, target);
    }
    await using agent = await rig.start();
    agent.reconciler.withdraw(broker.tombstone(target));
    await broker.until('kept', () => phaseOf(target) === Phase.KEPT);
    expect(rig.told(target, 'tenant')).toMatchObject({ state: 'kept', reason: 'forbidden' }); // that account may not delete
    expect(await rig.present(['tenant'])).toEqual(['tenant']);
    await server.kubectl('-n', namespace, 'delete', 'serviceaccount', subject.name);
    agent.reconciler.withdraw(broker.tombstone(target));
    await broker.until('pruned', () => phaseOf(target) === Phase.PRUNED);
    expect((await rig.live('tenant')).metadata.labels).toBeUndefined();
    expect(broker.eventsOf(target).at(-1)).toMatchObject({
      success: true,
      counts: { orphaned: 1 },
      objects: [{ reason: 'service_account_missing' }],
    });
  });
});

describe('T43 the broker is silent', () => {
  it('T43 nothing is deleted on silence, and drift is corrected from a warm cache, reported from a cold one', async () => {
    const { broker, server } = rig;
    await using agent = await rig.start();
    const target = await rig.apply(agent, await broker.publish(yaml(configMap('silent'), configMap('silent-2'))));
    await server.request('DELETE', rig.path('silent'));
    await broker.until('corrected', () =>
      broker.eventsOf(target).some(({ eventType, success }) => eventType === 'DRIFT' && success),
    );
    expect(await rig.present(['silent', 'silent-2'])).toEqual(['silent', 'silent-2']);
    broker.forgetContent();
    await server.request('DELETE', rig.path('silent'));
    await broker.until('reported', () => broker.statuses.get(target.stackId)?.phase === Phase.FAILED);
    expect(broker.statuses.get(target.stackId)?.message).toBe('the broker cannot be reached');
    expect(broker.eventsOf(target).at(-1)).toMatchObject({ eventType: 'DRIFT', success: false });
    expect(await rig.present(['silent', 'silent-2'])).toEqual(['silent-2']);
    await broker.publish(configMap('silent')); // the content can be had again
    await broker.until('corrected', () => broker.statuses.get(target.stackId)?.phase === Phase.APPLIED);
    expect(await rig.present(['silent', 'silent-2'])).toEqual(['silent', 'silent-2']);
  });

  it('T43 an agent that restarts into the silence writes nothing, keeps everything, and asks for the target when there is drift', async () => {
    const { broker, server } = rig;
    const target = await broker.publish(yaml(configMap('restart'), configMap('restart-2')));
    {
      await using agent = await rig.start();
      await rig.apply(agent, target);
    }
    const mark = await server.auditMark();
    await using agent = await rig.start();
    await server.request('DELETE', rig.path('restart'));
    await broker.until('asked', () => broker.needed.includes(target.stackId));
    expect(await rig.mutations(mark)).toEqual([]);
    expect(await rig.present(['restart-2'])).toEqual(['restart-2']);
    agent.reconciler.offer(target);
    await broker.until('corrected', () => broker.eventsOf(target).some(({ eventType }) => eventType === 'DRIFT'));
    expect(await rig.present(['restart', 'restart-2'])).toEqual(['restart', 'restart-2']);
  });
});
