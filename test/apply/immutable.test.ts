import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Phase, RecreatePolicy } from '#proto/brokkr/v1/content_pb.js';
import { configMap, deployment, type ObjectRig, openObjectRig, yaml } from './object-rig.ts';

let rig: ObjectRig;

beforeAll(async () => {
  rig = await openObjectRig('immutable');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const IMMUTABLE = { recreate: RecreatePolicy.IMMUTABLE };
const text = (object: object) => `${JSON.stringify(object)}\n`;
const selecting = (name: string, app: string, metadata: object = {}) => {
  const labels = { app };
  const template = { metadata: { labels }, spec: { containers: [{ name: 'c', image: 'i' }] } };
  return deployment(name, { selector: { matchLabels: labels }, template }, metadata);
};
const job = (image: string) =>
  text({
    ...{ apiVersion: 'batch/v1', kind: 'Job', metadata: { name: 'job' } },
    spec: { template: { spec: { restartPolicy: 'Never', containers: [{ name: 'c', image }] } } },
  });
const binding = (role: string) =>
  text({
    ...{ apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'RoleBinding', metadata: { name: 'binding' } },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: role },
    subjects: [{ kind: 'ServiceAccount', name: 'default' }],
  });
const frozen = (value: string) =>
  text({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'frozen' }, immutable: true, data: { key: value } });
const service = (clusterIP: string) =>
  text({ apiVersion: 'v1', kind: 'Service', metadata: { name: 'service' }, spec: { clusterIP, ports: [{ port: 80 }] } });
/** Two addresses of the service range; one is free when this is called. */
const addresses = () => [
  `10.96.200.${10 + Math.floor(Math.random() * 100)}`,
  `10.96.200.${120 + Math.floor(Math.random() * 100)}`,
];

describe('a field that cannot be changed', () => {
  const [first = '', second = ''] = addresses();
  it.each([
    ['the selector of a Deployment', ['deployments', 'web', 'apps/v1'], selecting('web', 'a'), selecting('web', 'b'), /selector/],
    ['the template of a Job', ['jobs', 'job', 'batch/v1'], job('one'), job('two'), /template/],
    [
      'the role of a RoleBinding',
      ['rolebindings', 'binding', 'rbac.authorization.k8s.io/v1'],
      binding('x'),
      binding('y'),
      /roleRef/,
    ],
    ['the data of an immutable ConfigMap', ['configmaps', 'frozen', 'v1'], frozen('a'), frozen('b'), /data/],
    ['the address of a Service', ['services', 'service', 'v1'], service(first), service(second), /clusterIP/],
  ] as const)(
    'T09 %s: refused without a policy, created anew once with it',
    async (_, [plural, name, version], one, two, field) => {
      await using agent = await rig.start();
      const path = rig.path(plural, name, version);
      const beside = configMap(`beside-${name}`);
      const created = await rig.sync(agent, yaml(one, beside));
      const { uid } = (await rig.get(path)).metadata;
      const neighbour = await rig.get(rig.path('configmaps', `beside-${name}`));

      const refused = await rig.sync(agent, yaml(two, beside), { after: created });
      expect(rig.phase(refused)).toBe(Phase.REFUSED);
      expect(rig.told(refused, name)).toMatchObject({
        state: 'rejected',
        reason: 'immutable',
        path: expect.stringMatching(field),
      });
      expect((await rig.get(path)).metadata.uid).toBe(uid);

      const mark = await rig.server.auditMark();
      const anew = await rig.sync(agent, yaml(two, beside), { after: refused, options: IMMUTABLE });
      expect(rig.phase(anew)).toBe(Phase.APPLIED);
      expect(rig.event(anew)).toMatchObject({ success: true, counts: { recreated: 1, unchanged: 1 } });
      expect(rig.told(anew, name)).toMatchObject({
        state: 'recreated',
        reason: 'immutable',
        message: expect.stringMatching(field),
      });
      expect((await rig.get(path)).metadata.uid).not.toBe(uid);
      expect(await rig.calls(mark, plural, 'delete')).toHaveLength(1);
      expect((await rig.get(rig.path('configmaps', `beside-${name}`))).metadata).toEqual(neighbour.metadata);
    },
  );

  it('T09 by the mark of the object, and with dependents left alone when it says so', async () => {
    await using agent = await rig.start();
    const annotations = { 'brokkr.io/recreate': 'immutable', 'brokkr.io/propagation': 'Orphan' };
    const first = await rig.sync(agent, selecting('marked', 'a', { annotations }));
    const replicaSets = async () =>
      (await rig.get(`/apis/apps/v1/namespaces/${rig.namespace}/replicasets`)).items.filter(
        ({ metadata }: { metadata: { name: string } }) => metadata.name.startsWith('marked-'),
      );
    await expect.poll(replicaSets).toHaveLength(1);
    const [before] = await replicaSets();
    const second = await rig.sync(agent, selecting('marked', 'b', { annotations }), { after: first });
    expect(rig.event(second)).toMatchObject({ success: true, counts: { recreated: 1 } });
    await expect.poll(replicaSets).toHaveLength(2);
    expect((await replicaSets()).map(({ metadata }: { metadata: { uid: string } }) => metadata.uid)).toContain(
      before.metadata.uid,
    );
  });

  it('T09 spares volumes and what is marked as not to be pruned unless they are marked for it themselves', async () => {
    await using agent = await rig.start();
    const claim = (name: string, size: string, annotations: object) =>
      text({
        ...{ apiVersion: 'v1', kind: 'PersistentVolumeClaim', metadata: { name, annotations } },
        spec: { accessModes: [size], resources: { requests: { storage: '1Gi' } } },
      });
    const objects = (mode: string, address: string) =>
      yaml(
        claim('spared', mode, {}),
        text({ ...JSON.parse(frozen(address)), metadata: { name: 'kept', annotations: { 'brokkr.io/prune': 'never' } } }),
      );
    const first = await rig.sync(agent, objects('ReadWriteOnce', 'a'), { options: IMMUTABLE });
    const second = await rig.sync(agent, objects('ReadWriteMany', 'b'), { after: first, options: IMMUTABLE });
    expect(rig.phase(second)).toBe(Phase.REFUSED);
    for (const name of ['spared', 'kept']) expect(rig.told(second, name)).toMatchObject({ reason: 'immutable' });

    const marked = { 'brokkr.io/recreate': 'immutable' };
    const third = await rig.sync(agent, claim('own-mark', 'ReadWriteOnce', marked));
    const fourth = await rig.sync(agent, claim('own-mark', 'ReadWriteMany', marked), { after: third });
    expect(rig.told(fourth, 'own-mark')).toMatchObject({ state: 'recreated' });
  });
});

describe('an invalid change', () => {
  it('T10 is never a reason to delete, whatever the policy', async () => {
    await using agent = await rig.start();
    const first = await rig.sync(agent, deployment('invalid'), { options: IMMUTABLE });
    const path = rig.path('deployments', 'invalid', 'apps/v1');
    const before = await rig.get(path);
    const mark = await rig.server.auditMark();
    const second = await rig.sync(agent, deployment('invalid', { replicas: -1 }), { after: first, options: IMMUTABLE });
    expect(rig.phase(second)).toBe(Phase.REFUSED);
    expect(rig.told(second, 'invalid')).toMatchObject({ state: 'rejected', reason: 'invalid', path: 'spec.replicas' });
    expect(await rig.calls(mark, 'deployments', 'delete')).toEqual([]);
    expect((await rig.get(path)).metadata.uid).toBe(before.metadata.uid);
  });
});

describe('an object that cannot go', () => {
  it('T11 is deleted once, waited for in bounds and reported as terminating, while others proceed', async () => {
    await using agent = await rig.start({ recreateWaitMs: 300 });
    const held = (value: string) =>
      text({ ...JSON.parse(frozen(value)), metadata: { name: 'held', finalizers: ['example.org/hold'] } });
    const objects = (value: string, other: string) => yaml(held(value), configMap('proceeds', { key: other }));
    const path = rig.path('configmaps', 'held');
    const first = await rig.sync(agent, objects('a', 'one'), { options: IMMUTABLE });
    const { uid } = (await rig.get(path)).metadata;
    const mark = await rig.server.auditMark();
    const second = await rig.sync(agent, objects('b', 'two'), { after: first, options: IMMUTABLE });
    expect(rig.phase(second)).toBe(Phase.FAILED);
    expect(rig.told(second, 'held')).toMatchObject({
      ...{ state: 'terminating', reason: 'finalizers', message: expect.stringContaining('example.org/hold') },
    });
    expect((await rig.get(rig.path('configmaps', 'proceeds'))).data).toEqual({ key: 'two' });

    const third = await rig.sync(agent, objects('b', 'three'), { after: second, options: IMMUTABLE });
    expect(rig.told(third, 'held')).toMatchObject({ state: 'terminating' });
    expect((await rig.get(rig.path('configmaps', 'proceeds'))).data).toEqual({ key: 'three' });
    expect(await rig.calls(mark, 'configmaps', 'delete')).toHaveLength(1);

    await rig.patchAs('operator', path, { metadata: { finalizers: null } });
    await rig.broker.applied(third);
    const now = await rig.get(path);
    expect(now.data).toEqual({ key: 'b' });
    expect(now.metadata.uid).not.toBe(uid);
    expect(await rig.calls(mark, 'configmaps', 'delete')).toHaveLength(1);
    await rig.patchAs('operator', path, { metadata: { finalizers: null } });
  });
});
