import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Phase } from '#proto/brokkr/v1/content_pb.js';
import { configMap, names, openRemovalRig, type RemovalRig, yaml } from './removal-rig.ts';

let rig: RemovalRig;

beforeAll(async () => {
  rig = await openRemovalRig('prune');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const namespaceOf = (name: string) => `apiVersion: v1\nkind: Namespace\nmetadata: {name: ${name}}\n`;
const inside = (name: string, namespace: string) =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}, namespace: ${namespace}}\n`;
const exists = async (path: string) => (await rig.server.request('GET', path)).status === 200;
const options = { approveDeletes: 100 };

describe('T08 a stack drops its Namespace', () => {
  it('T08 while another stack lives inside: kept with an event, nothing deleted; gone once the other has left', async () => {
    const { broker } = rig;
    await using agent = await rig.start();
    const shared = `${rig.namespace}-shared`;
    const first = await rig.apply(agent, await broker.publish(yaml(configMap('t08'), namespaceOf(shared))));
    const tenant = await rig.apply(agent, await broker.publish(inside('tenant', shared)));
    const second = await rig.apply(agent, await broker.publish(configMap('t08'), { after: first, options }));
    expect(rig.told(second, shared)).toMatchObject({ state: 'kept', reason: 'in_use' });
    expect(broker.eventsOf(second).at(-1)).toMatchObject({
      success: true,
      counts: { kept: 1, deleted: 0 },
      objects: [{ kind: 'Namespace', name: shared, state: 'kept', reason: 'in_use' }],
    });
    expect(await exists(`/api/v1/namespaces/${shared}/configmaps/tenant`)).toBe(true);
    agent.reconciler.withdraw(broker.tombstone(tenant));
    await broker.until('left', () => broker.statuses.get(tenant.stackId)?.phase === Phase.PRUNED);
    await rig.apply(agent, await broker.publish(configMap('t08'), { after: second, options }));
    await broker.until('gone', () => rig.told(second, shared) === undefined);
    expect(await exists(`/api/v1/namespaces/${shared}`)).toBe(false);
  });

  it('T08 with an object nobody knows inside: kept, and it says which; what every namespace has does not count', async () => {
    const { broker, server } = rig;
    await using agent = await rig.start();
    const own = `${rig.namespace}-own`;
    const first = await rig.apply(agent, await broker.publish(yaml(configMap('t08b'), namespaceOf(own), inside('ours', own))));
    await server.kubectl('-n', own, 'create', 'role', 'foreign', '--verb=get', '--resource=pods');
    const second = await rig.apply(agent, await broker.publish(configMap('t08b'), { after: first, options }));
    expect(rig.told(second, own)).toMatchObject({
      state: 'kept',
      reason: 'foreign',
      message: 'Role foreign is in the namespace and not of this stack',
    });
    expect(await exists(`/api/v1/namespaces/${own}/configmaps/ours`)).toBe(false);
    expect(await exists(`/api/v1/namespaces/${own}/configmaps/kube-root-ca.crt`)).toBe(true);
    await server.kubectl('-n', own, 'delete', 'role', 'foreign');
    await rig.apply(agent, await broker.publish(configMap('t08b'), { after: second, options }));
    await broker.until('gone', () => rig.told(second, own) === undefined);
    expect(await exists(`/api/v1/namespaces/${own}`)).toBe(false);
  });

  it('T08 with a member of its own that a guard keeps: the Namespace stays with it', async () => {
    const { broker } = rig;
    await using agent = await rig.start();
    const own = `${rig.namespace}-kept`;
    const marked = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: never, namespace: ${own}, annotations: {brokkr.io/prune: never}}\n`;
    const first = await rig.apply(agent, await broker.publish(yaml(configMap('t08c'), namespaceOf(own), marked)));
    const second = await rig.apply(agent, await broker.publish(configMap('t08c'), { after: first, options }));
    expect(rig.told(second, own)).toMatchObject({ state: 'kept', reason: 'foreign' });
    expect(await exists(`/api/v1/namespaces/${own}/configmaps/never`)).toBe(true);
  });
});

it('T24 ten removed objects, one marked never on the live object only, one in our last copy only: eight deleted, two kept', async () => {
  const { broker, server, namespace } = rig;
  await using agent = await rig.start();
  const all = names('t24', 10);
  const never = '  annotations: {brokkr.io/prune: never}\n';
  const documents = all.map((name) => configMap(name, 'a', name === 't24-9' ? never : ''));
  const first = await rig.apply(agent, await broker.publish(yaml(configMap('t24'), ...documents)));
  agent.reconciler.suspend('marking by hand');
  await server.kubectl('-n', namespace, 'annotate', 'configmap', 't24-8', 'brokkr.io/prune=never');
  await server.kubectl('-n', namespace, 'annotate', '--overwrite', 'configmap', 't24-9', 'brokkr.io/prune=no');
  const second = await broker.publish(configMap('t24'), { after: first });
  agent.reconciler.offer(second);
  agent.reconciler.resume();
  await broker.applied(second);
  expect(await rig.present(all)).toEqual(['t24-8', 't24-9']);
  const event = broker.eventsOf(second).at(-1);
  expect(event).toMatchObject({ success: true, counts: { deleted: 8, released: 2 } });
  expect(event?.objects.map(({ name, reason }) => `${name} ${reason}`).sort()).toEqual([
    't24-8 prune_never',
    't24-9 prune_never',
  ]);
});

it('T25 another UID than in the inventory, or without the stack label: released, not deleted, also when it changes under the deletion', async () => {
  const { broker, server, namespace } = rig;
  await using agent = await rig.start();
  const all = ['replaced', 'unlabelled', 'touched'];
  const first = await rig.apply(agent, await broker.publish(yaml(configMap('t25'), ...all.map((name) => configMap(name)))));
  agent.reconciler.suspend('edits by hand');
  await server.request('DELETE', rig.path('replaced'));
  await server.request('POST', rig.path('').slice(0, -1), { metadata: { name: 'replaced' }, data: { mine: 'yes' } });
  await server.kubectl('-n', namespace, 'label', 'configmap', 'unlabelled', 'brokkr.io/stack-');
  await server.kubectl('-n', namespace, 'annotate', 'configmap', 'touched', 'seen=yes');
  const mark = await server.auditMark();
  const second = await broker.publish(configMap('t25'), { after: first });
  agent.reconciler.offer(second);
  agent.reconciler.resume();
  await broker.applied(second);
  expect(await rig.present(all)).toEqual(['replaced', 'unlabelled']);
  const event = broker.eventsOf(second).at(-1);
  expect(event).toMatchObject({ counts: { deleted: 1, released: 2 } });
  expect(event?.objects.map(({ reason }) => reason)).toEqual(['not_ours', 'not_ours']);
  const deletes = (await rig.mutations(mark)).filter(({ verb }) => verb === 'delete');
  // Each was first deleted under the version of our last write, which the server refused for all three.
  const codes = deletes.map(({ objectRef, responseStatus }) => `${objectRef?.name} ${responseStatus?.code}`).sort();
  expect(codes).toEqual(['replaced 409', 'touched 200', 'touched 409', 'unlabelled 409']);
});

describe('T27 mass deletion', () => {
  it('T27 a snapshot with no objects is refused, and 60 % removed trips the fuse; approved, they are deleted', async () => {
    const { broker } = rig;
    await using agent = await rig.start();
    const all = names('t27', 50);
    const first = await rig.apply(agent, await broker.publish(yaml(...all.map((name) => configMap(name)))));
    const empty = await broker.publish('# nothing\n', { after: first });
    agent.reconciler.offer(empty);
    await broker.until('refused', () => broker.statuses.get(first.stackId)?.phase === Phase.REFUSED);
    expect(await rig.present(all)).toHaveLength(50);

    const stays = yaml(...all.slice(0, 20).map((name) => configMap(name)));
    const second = await rig.apply(agent, await broker.publish(stays, { after: empty }));
    const status = broker.statuses.get(second.stackId);
    expect(status).toMatchObject({ awaitingApproval: 30, message: '30 objects are kept' });
    expect(status?.objects).toHaveLength(30);
    expect(rig.told(second, 't27-49')).toMatchObject({ state: 'kept', reason: 'approval' });
    expect(await rig.present(all)).toHaveLength(50);

    const few = await rig.apply(agent, await broker.publish(stays, { after: second, options: { approveDeletes: 29 } }));
    expect(broker.statuses.get(few.stackId)?.awaitingApproval).toBe(30);
    const third = await rig.apply(agent, await broker.publish(stays, { after: few, options: { approveDeletes: 30 } }));
    expect(broker.statuses.get(third.stackId)).toMatchObject({ awaitingApproval: 0, objects: [] });
    expect(await rig.present(all)).toEqual(all.slice(0, 20));
  });

  it('T27 is still visible after a restart, at no cost in writes', async () => {
    const { broker, server } = rig;
    const all = names('t27b', 21);
    let target = await broker.publish(yaml(configMap('t27b'), ...all.map((name) => configMap(name))));
    {
      await using agent = await rig.start();
      target = await rig.apply(agent, await broker.publish(configMap('t27b'), { after: await rig.apply(agent, target) }));
    }
    broker.statuses.clear();
    const mark = await server.auditMark();
    await using agent = await rig.start();
    await rig.apply(agent, target);
    await broker.until('told', () => broker.statuses.get(target.stackId)?.awaitingApproval === 21);
    expect(await rig.mutations(mark)).toEqual([]);
  });
});

describe('T28 a CRD leaves with resources of it', () => {
  const definition = (group: string) => `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.${group}}
spec:
  group: ${group}
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget}
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
`;
  const gadget = (group: string, name: string) => `apiVersion: ${group}/v1\nkind: Gadget\nmetadata: {name: ${name}}\n`;

  it('T28 ours go first, then the CRD', async () => {
    const { broker, server } = rig;
    await using agent = await rig.start();
    const group = `ours.${rig.namespace}.example.org`;
    const text = yaml(configMap('t28'), definition(group), gadget(group, 'one'), gadget(group, 'two'));
    const first = await rig.apply(agent, await broker.publish(text));
    const mark = await server.auditMark();
    await rig.apply(agent, await broker.publish(configMap('t28'), { after: first, options }));
    const deleted = (await rig.mutations(mark)).filter(({ verb }) => verb === 'delete').map(({ objectRef }) => objectRef?.name);
    expect(deleted.slice(0, 2).sort()).toEqual(['one', 'two']);
    expect(deleted.slice(2)).toEqual([`gadgets.${group}`]);
  });

  it('T28 one of somebody else keeps the CRD, and is named', async () => {
    const { broker, server, namespace } = rig;
    await using agent = await rig.start();
    const group = `foreign.${namespace}.example.org`;
    const first = await rig.apply(agent, await broker.publish(yaml(configMap('t28b'), definition(group), gadget(group, 'ours'))));
    const gadgets = `/apis/${group}/v1/namespaces/${namespace}/gadgets`;
    await server.request('POST', gadgets, { apiVersion: `${group}/v1`, kind: 'Gadget', metadata: { name: 'theirs' } });
    const second = await rig.apply(agent, await broker.publish(configMap('t28b'), { after: first, options }));
    expect(rig.told(second, `gadgets.${group}`)).toMatchObject({
      state: 'kept',
      reason: 'instances',
      message: `Gadget ${namespace}/theirs still exists`,
    });
    expect([await exists(`${gadgets}/ours`), await exists(`${gadgets}/theirs`)]).toEqual([false, true]);
    await server.request('DELETE', `${gadgets}/theirs`);
    await rig.apply(agent, await broker.publish(configMap('t28b'), { after: second, options }));
    await broker.until('gone', () => rig.told(second, `gadgets.${group}`) === undefined);
  });
});
