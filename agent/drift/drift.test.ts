import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#lib/clock.ts';
import { Health } from '#proto/brokkr/v1/content_pb.js';
import type { TestBroker } from '../../test/agent-engine.ts';
import { openEngineRig } from '../../test/engine-rig.ts';
import type { Kube as TestKube } from '../../test/kube.ts';
import type { TestIdentity } from '../../test/kube-identity.ts';

let server: TestKube;
let identity: TestIdentity;
let namespace: string;
let broker: TestBroker;

beforeAll(async () => {
  ({ server, identity, namespace, broker } = await openEngineRig('drift'));
});
afterAll(() => broker?.[Symbol.asyncDispose]());

const start = (token = identity.token) => broker.start({ url: server.url, caData: server.caData, token }, { namespace });
const configMap = (name: string) =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${name}\n  labels: {ours: kept}\ndata:\n  key: a\n`;
const deployment = (name: string, image = 'i') => `apiVersion: apps/v1
kind: Deployment
metadata: {name: ${name}}
spec:
  replicas: 2
  selector: {matchLabels: {app: ${name}}}
  template:
    metadata: {labels: {app: ${name}}}
    spec: {containers: [{name: c, image: ${image}}]}
`;
const yaml = (...documents: string[]) => documents.join('---\n');
const path = (name: string) => `/api/v1/namespaces/${namespace}/configmaps/${name}`;
const get = async (name: string) => (await server.request('GET', path(name))).body;
const patch = (where: string, body: object) =>
  server.request('PATCH', where, body, { 'content-type': 'application/merge-patch+json' });

/** Stack applied, and its objects seen by the watches. */
async function settled(
  target: Awaited<ReturnType<TestBroker['publish']>>,
  agent: Awaited<ReturnType<typeof start>>,
): Promise<void> {
  agent.reconciler.offer(target);
  await broker.applied(target);
  await broker.until('seen', () => broker.transitions.some(({ stackId }) => stackId === target.stackId));
}

const corrections = (target: { readonly stackId: string }) =>
  broker.eventsOf(target).filter(({ eventType }) => eventType === 'DRIFT');

describe('drift', () => {
  it('restores a deleted object', async () => {
    await using agent = await start();
    const target = await broker.publish(yaml(configMap('deleted'), configMap('not-deleted')));
    await settled(target, agent);
    await server.request('DELETE', path('deleted'));
    await broker.until('corrected', () => corrections(target).length === 1);
    expect((await get('deleted')).data).toEqual({ key: 'a' });
    expect(corrections(target)).toMatchObject([{ success: true, counts: { created: 1, unchanged: 1 } }]);
  });

  it.each([
    ['a changed value', () => patch(path('edited'), { data: { key: 'b' } })],
    ['a removed label of ours', () => patch(path('edited'), { metadata: { labels: { ours: null } } })],
    ['the label of the stack removed', () => patch(path('edited'), { metadata: { labels: { 'brokkr.io/stack': null } } })],
  ])('puts back %s', async (_, edit) => {
    await using agent = await start();
    const target = await broker.publish(configMap('edited'));
    await settled(target, agent);
    const { uid } = (await get('edited')).metadata;
    expect((await edit()).status).toBe(200);
    await broker.until('corrected', () => corrections(target).length === 1);
    const now = await get('edited');
    expect(now.data).toEqual({ key: 'a' });
    expect(now.metadata.labels).toMatchObject({ ours: 'kept', 'brokkr.io/stack': expect.any(String) });
    expect(now.metadata.uid).toBe(uid);
    agent.reconciler.withdraw(broker.tombstone(target));
    await broker.until('gone', () => !agent.reconciler.stacks().some(({ stackId }) => stackId === target.stackId));
  });

  it('finds what was deleted while the agent was away', async () => {
    const target = await broker.publish(yaml(configMap('away-1'), configMap('away-2')));
    {
      await using agent = await start();
      await settled(target, agent);
    }
    await server.request('DELETE', path('away-1'));
    await using agent = await start();
    await broker.until('asked for the target', () => broker.needed.includes(target.stackId));
    expect(corrections(target)).toEqual([]);
    agent.reconciler.offer(target);
    await broker.until('corrected', () => corrections(target).length === 1);
    expect((await get('away-1')).data).toEqual({ key: 'a' });
  });

  it('is not seen in status updates, fields of others and our own writes', async () => {
    await using agent = await start();
    const first = await broker.publish(yaml(configMap('calm'), deployment('calm')));
    await settled(first, agent);
    const second = await broker.publish(yaml(configMap('calm'), deployment('calm', 'j')), { after: first });
    agent.reconciler.offer(second);
    await broker.applied(second);
    await patch(path('calm'), { metadata: { annotations: { theirs: 'x' } }, data: { other: 'theirs' } });
    const scale = `/apis/apps/v1/namespaces/${namespace}/deployments/calm`;
    await patch(scale, { spec: { minReadySeconds: 1 } });
    await broker.until('healthy', () => broker.statuses.get(first.stackId)?.health === Health.HEALTHY);
    await systemClock.sleep(500, new AbortController().signal); // nothing happens: there is no condition to wait for
    expect(corrections(first)).toEqual([]);
    expect((await get('calm')).data).toEqual({ key: 'a', other: 'theirs' });
  });

  it('is corrected namespace by namespace where the agent may not watch the whole cluster', async () => {
    const everything = { apiGroups: ['*'], resources: ['*'], verbs: ['*'] };
    const { token } = await server.identity('confined', { rules: [everything], namespace });
    await using agent = await start(token);
    const target = await broker.publish(configMap('confined'));
    await settled(target, agent);
    await server.request('DELETE', path('confined'));
    await broker.until('corrected', () => corrections(target).length === 1);
    expect((await get('confined')).data).toEqual({ key: 'a' });
  });
});

describe('health', () => {
  it('is reported once a workload is ready, with its pods, and in a summary', async () => {
    await using agent = await start();
    agent.reconciler.healthIntervalMs = 300;
    const target = await broker.publish(yaml(configMap('beside'), deployment('web')));
    agent.reconciler.offer(target);
    const mine = () => broker.transitions.filter(({ stackId }) => stackId === target.stackId);
    await broker.until('healthy', () => mine().at(-1)?.health === Health.HEALTHY);
    expect(mine().at(-1)).toMatchObject({
      objectsReady: 2,
      objectsTotal: 2,
      podsReady: 2,
      podsTotal: 2,
      deploymentObjectId: target.deploymentObjectId,
    });
    expect(mine()[0]).toMatchObject({ health: Health.DEGRADED });
    const isHealthy = (items: readonly { readonly stackId: string; readonly health: Health }[] | undefined) =>
      items?.some(({ stackId, health }) => stackId === target.stackId && health === Health.HEALTHY) === true;
    await broker.until('summarised', () => isHealthy(broker.summaries.at(-1)));
    expect(broker.statuses.get(target.stackId)).toMatchObject({ health: Health.HEALTHY, objectsReady: 2 });
  });
});
