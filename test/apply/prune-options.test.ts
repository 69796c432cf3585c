import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Phase, PruneMode } from '#proto/brokkr/v1/content_pb.js';
import { configMap, openRemovalRig, type RemovalRig, yaml } from './removal-rig.ts';

let rig: RemovalRig;

beforeAll(async () => {
  rig = await openRemovalRig('prune-options');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

describe('the first sync', () => {
  it('deletes nothing after a new key or another broker before one complete apply', async () => {
    const { broker, server } = rig;
    const first = await broker.publish(yaml(configMap('first'), configMap('first-gone')));
    {
      await using agent = await rig.start();
      await rig.apply(agent, first);
    }
    await using agent = await rig.start({ credential: 'another key' });
    const mark = await server.auditMark();
    const second = await rig.apply(agent, await broker.publish(configMap('first', 'b'), { after: first }));
    await broker.until('pruned', () => broker.eventsOf(second).length === 3);
    expect(broker.eventsOf(second).slice(1)).toMatchObject([
      { success: true, counts: { configured: 1, kept: 1 }, objects: [{ name: 'first-gone', reason: 'first_sync' }] },
      { success: true, eventType: 'PRUNE', counts: { deleted: 1 } },
    ]);
    const made = (await rig.mutations(mark)).map(({ verb, objectRef }) => `${verb} ${objectRef?.name}`);
    expect(made.indexOf('patch first')).toBeLessThan(made.indexOf('delete first-gone'));
  });
});

describe('options and marks', () => {
  it('removes what left only after success, or also after a failure under best effort', async () => {
    const { broker } = rig;
    await using agent = await rig.start();
    const broken = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: broken, namespace: no-such-${rig.namespace}}\n`;
    const first = await rig.apply(agent, await broker.publish(yaml(configMap('effort'), configMap('effort-gone'))));
    const second = await broker.publish(yaml(configMap('effort'), broken), { after: first });
    agent.reconciler.offer(second);
    await broker.until('failed', () => broker.statuses.get(second.stackId)?.phase === Phase.FAILED);
    expect(await rig.present(['effort-gone'])).toEqual(['effort-gone']);
    const third = await broker.publish(yaml(configMap('effort'), broken), {
      after: second,
      options: { prune: PruneMode.BEST_EFFORT },
    });
    agent.reconciler.offer(third);
    await broker.until('pruned', () => broker.eventsOf(third).some(({ counts }) => counts.deleted === 1));
    expect(await rig.present(['effort-gone'])).toEqual([]);
  });

  it('removes webhook configurations before what serves them, whatever the waves', async () => {
    const { broker, server, namespace } = rig;
    await using agent = await rig.start();
    const hook = `${namespace}-hook`;
    const webhook = `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: ${hook}, annotations: {brokkr.io/wave: "-1"}}
webhooks:
  - name: hook.example.org
    admissionReviewVersions: [v1]
    sideEffects: None
    failurePolicy: Fail
    clientConfig: {service: {name: backend, namespace: ${namespace}}}
    rules: [{apiGroups: [none.example.org], apiVersions: [v1], operations: [CREATE], resources: [nothings]}]
`;
    const service = 'apiVersion: v1\nkind: Service\nmetadata: {name: backend}\nspec: {ports: [{port: 443}]}\n';
    const first = await rig.apply(agent, await broker.publish(yaml(configMap('hooked'), webhook, service)));
    const mark = await server.auditMark();
    await rig.apply(agent, await broker.publish(configMap('hooked'), { after: first }));
    const deleted = (await rig.mutations(mark)).filter(
      ({ verb, responseStatus }) => verb === 'delete' && responseStatus?.code === 200,
    );
    expect(deleted.map(({ objectRef }) => objectRef?.name)).toEqual([hook, 'backend']);
  });

  it('deletes as the propagation mark says', async () => {
    const { broker, server, namespace } = rig;
    await using agent = await rig.start();
    const marked = configMap('owner', 'a', '  annotations: {brokkr.io/propagation: Orphan}\n');
    const first = await rig.apply(agent, await broker.publish(yaml(configMap('propagation'), marked)));
    const { uid } = (await rig.live('owner')).metadata;
    const ownerReferences = [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'owner', uid }];
    await server.request('POST', rig.path('').slice(0, -1), { metadata: { name: 'dependent', namespace, ownerReferences } });
    const second = await rig.apply(agent, await broker.publish(configMap('propagation'), { after: first }));
    await broker.until('gone', () => rig.told(second, 'owner') === undefined);
    expect((await rig.live('dependent')).metadata.ownerReferences).toBeUndefined();
  });

  it('leaves objects without our marks when the service account they were applied as is gone', async () => {
    const { broker, server, namespace } = rig;
    await using agent = await rig.start();
    const { subject } = await server.identity('tenant', { clusterAdmin: true, namespace });
    const impersonate = `${namespace}/${subject.name}`;
    const text = yaml(configMap('tenant'), configMap('tenant-gone'));
    const first = await rig.apply(agent, await broker.publish(text, { options: { impersonate } }));
    await server.kubectl('-n', namespace, 'delete', 'serviceaccount', subject.name);
    await rig.apply(agent, await broker.publish(configMap('tenant'), { after: first, options: { impersonate } }));
    expect((await rig.live('tenant-gone')).metadata.labels).toBeUndefined();
    expect(broker.eventsOf(first).at(-1)).toMatchObject({
      counts: { orphaned: 1, deleted: 0 },
      objects: [{ name: 'tenant-gone', state: 'orphaned', reason: 'service_account_missing' }],
    });
  });
});
