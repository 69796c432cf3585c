import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StackTarget } from '../../agent/stack/target.ts';
import { type EngineRig, openEngineRig } from '../engine-rig.ts';
import { configMap, deployment, engineCalls, isInventory, namespaceOf, yaml } from './graph-rig.ts';

let rig: EngineRig;
beforeAll(async () => {
  rig = await openEngineRig('sync');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const NAMESPACES = 10;
/** 1,000 objects: ten namespaces, in each 60 ConfigMaps, 20 Services, 10 Deployments that refer to them, 9 ServiceAccounts. */
function thousand(prefix: string): string {
  const documents: string[] = [];
  for (let index = 0; index < NAMESPACES; index++) {
    const namespace = `${prefix}-${index}`;
    const each = (count: number, document: (number: number) => string) => {
      for (let number = 0; number < count; number++) documents.push(document(number));
    };
    each(10, (n) =>
      deployment(`web-${n}`, { namespace }, `volumes: [{name: v, configMap: {name: map-${n}}}], serviceAccountName: account-0`),
    );
    each(
      20,
      (n) =>
        `apiVersion: v1\nkind: Service\nmetadata: {name: service-${n}, namespace: ${namespace}}\nspec: {clusterIP: None, selector: {app: web-0}, ports: [{port: 80}]}\n`,
    );
    each(60, (n) => configMap(`map-${n}`, { namespace }));
    each(9, (n) => `apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: account-${n}, namespace: ${namespace}}\n`);
    documents.push(namespaceOf(namespace));
  }
  return yaml(...documents);
}

describe('T01 1,000 mixed objects', () => {
  let target: StackTarget;

  it('T01 first sync: all are there after one PATCH each, nothing is created or replaced otherwise', async () => {
    const { broker, server, namespace } = rig;
    await using agent = await rig.start();
    target = await broker.publish(thousand(namespace));
    const mark = await server.auditMark();
    agent.reconciler.offer(target);
    await broker.until('applied', () => broker.eventsOf(target).length > 0, 120_000);
    expect(broker.eventsOf(target)).toMatchObject([{ success: true, counts: { created: 1000, failed: 0 } }]);
    const calls = (await engineCalls(rig, mark)).filter((call) => !isInventory(call));
    const writes = calls.filter(({ verb }) => verb !== 'get' && verb !== 'list');
    expect(writes.filter(({ verb }) => verb === 'patch')).toHaveLength(1000);
    expect(writes).toHaveLength(1000);
    expect(new Set(writes.map(({ requestURI }) => requestURI)).size).toBe(1000);
    // What is left are documents of discovery and schemas.
    expect(
      calls.filter((call) => !writes.includes(call) && !/^\/(api|apis|openapi\/v3.*)(\?.*)?$/.test(call.requestURI)),
    ).toEqual([]);
    // Members came after their namespace, workloads after what they refer to: nothing was refused on the way.
    expect(writes.filter(({ responseStatus }) => responseStatus?.code !== 201)).toEqual([]);
    expect(broker.statuses.get(target.stackId)).toMatchObject({ objectsTotal: 1000 });
  }, 180_000);

  it('T02 the same snapshot again: no call at all', async () => {
    const { broker, server } = rig;
    await using agent = await rig.start();
    agent.reconciler.offer(target);
    await broker.applied(target);
    const seen = () => (broker.statuses.get(target.stackId)?.objectsReady ?? 0) > 900; // the watches have begun
    await broker.until('seen', seen, 60_000);
    const mark = await server.auditMark();
    agent.reconciler.offer(target);
    agent.reconciler.offer({ ...target, deploymentObjectId: crypto.randomUUID() });
    await broker.applied(target);
    expect(await engineCalls(rig, mark)).toEqual([]);
    const approved = async (more: bigint) => {
      const again = { ...target, generation: target.generation + more }; // an approval, say: the content is the same
      agent.reconciler.offer(again);
      await broker.applied(again);
    };
    await approved(1n); // the first one after a start asks discovery
    const second = await server.auditMark();
    await approved(2n);
    const calls = await engineCalls(rig, second);
    expect(calls.map(({ verb, objectRef }) => `${verb} ${objectRef?.name}`)).toEqual([
      expect.stringMatching(/^patch brokkr-inv-[0-9a-f]+-[0-9a-f]+$/),
    ]);
  }, 120_000);
});

it('T06 a namespace and its members in random order, others in the default namespace: one pass', async () => {
  const { broker, server, namespace } = rig;
  await using agent = await rig.start();
  const own = `${namespace}-own`;
  const members = Array.from({ length: 20 }, (_, index) => configMap(`member-${index}`, { namespace: own }));
  const target = await broker.publish(
    yaml(...members.slice(0, 7), configMap('at-home'), deployment('at-home'), ...members.slice(7), namespaceOf(own)),
  );
  const mark = await server.auditMark();
  agent.reconciler.offer(target);
  await broker.applied(target);
  expect(broker.eventsOf(target)).toMatchObject([{ success: true, counts: { created: 23, failed: 0 } }]);
  expect((await engineCalls(rig, mark)).filter(({ responseStatus }) => (responseStatus?.code ?? 0) >= 400)).toEqual([]);
  expect((await server.request('GET', `/api/v1/namespaces/${namespace}/configmaps/at-home`)).status).toBe(200);
  const { body } = await server.request('GET', `/api/v1/namespaces/${own}/configmaps`);
  expect(
    (body.items as { metadata: { name: string } }[]).filter(({ metadata }) => metadata.name.startsWith('member-')),
  ).toHaveLength(20);
});
