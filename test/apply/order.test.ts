import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StackTarget } from '../../agent/stack/target.ts';
import { Phase, Preflight } from '../../proto/gen/brokkr/v1/content_pb.js';
import { type EngineRig, openEngineRig } from '../engine-rig.ts';
import { startKubeProxy } from '../http-proxy.ts';
import {
  configMap,
  custom,
  definition,
  deployment,
  engineCalls,
  isInventory,
  metadata,
  namespaceOf,
  told,
  yaml,
} from './graph-rig.ts';

let rig: EngineRig;
beforeAll(async () => {
  rig = await openEngineRig('order');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const statusOf = async (path: string) => (await rig.server.request('GET', path)).status;
const mapPath = (name: string, namespace = rig.namespace) => `/api/v1/namespaces/${namespace}/configmaps/${name}`;
const failedOnce = (target: { readonly stackId: string }) =>
  rig.broker.until('failed', () => rig.broker.statuses.get(target.stackId)?.phase === Phase.FAILED);

describe('T04 definitions and their resources', () => {
  it('T04 a definition and 50 resources of it, listed first: one pass and no error event', async () => {
    const { broker, server, namespace } = rig;
    await using agent = await rig.start();
    const group = `t04.${namespace}.example.org`;
    const resources = Array.from({ length: 50 }, (_, index) => custom(group, 'Widget', `w-${index}`));
    const target = await broker.publish(yaml(...resources, definition(group, 'widgets', 'Widget')));
    const mark = await server.auditMark();
    agent.reconciler.offer(target);
    await broker.applied(target);
    expect(broker.eventsOf(target)).toMatchObject([{ success: true, counts: { created: 51, failed: 0 } }]);
    const writes = (await engineCalls(rig, mark)).filter((call) => call.verb === 'patch' && !isInventory(call));
    expect(writes[0]?.objectRef?.resource).toBe('customresourcedefinitions');
    expect(writes.filter(({ responseStatus }) => responseStatus?.code === 201)).toHaveLength(51);
  });

  it('T04 a resource waits for its own definition only, also when another one of the group cannot be served', async () => {
    const { broker, namespace } = rig;
    await using agent = await rig.start();
    const group = `own.${namespace}.example.org`;
    // A second definition that claims the same names is stored and never established.
    const first = await broker.publish(definition(group, 'gizmos', 'Gizmo'));
    agent.reconciler.offer(first);
    await broker.applied(first);
    const clashing = definition(group, 'gimmicks', 'Gizmo').replace('singular: gizmo', 'singular: gimmick');
    const target = await broker.publish(
      yaml(custom(group, 'Widget', 'served'), clashing, definition(group, 'widgets', 'Widget'), configMap('beside')),
    );
    agent.reconciler.offer(target);
    await failedOnce(target);
    expect(told(rig, target)).toEqual([`retrying not_established CustomResourceDefinition gimmicks.${group}`]);
    expect(broker.eventsOf(target)[0]).toMatchObject({ success: false, counts: { created: 3, failed: 1 } });
    expect(broker.eventsOf(target)[0]?.objects[0]?.message).toContain('is already in use');
    expect(await statusOf(`/apis/${group}/v1/namespaces/${namespace}/widgets/served`)).toBe(200);
  });
});

describe('a failed object', () => {
  it('blocks what needs it, over several steps, and nothing else', async () => {
    const { broker, namespace } = rig;
    await using agent = await rig.start();
    const target = await broker.publish(
      yaml(
        // The server refuses the type of a Secret that lacks its data; nothing refuses it before.
        `apiVersion: v1\nkind: Secret\nmetadata: {name: broken}\ntype: kubernetes.io/tls\nstringData: {a: b}\n`,
        deployment('needs-it', {}, 'volumes: [{name: v, secret: {secretName: broken}}]'),
        `apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: scales-it}\nspec: {maxReplicas: 2, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: needs-it}}\n`,
        deployment('free', {}, 'volumes: [{name: v, secret: {secretName: elsewhere, optional: true}}]'),
        configMap('free'),
      ),
    );
    agent.reconciler.offer(target);
    await failedOnce(target);
    expect(told(rig, target).toSorted()).toEqual([
      'blocked blocked Deployment needs-it',
      'blocked blocked HorizontalPodAutoscaler scales-it',
      'rejected invalid Secret broken',
    ]);
    const { objects } = broker.statuses.get(target.stackId) ?? {};
    for (const { message } of objects?.filter(({ state }) => state === 'blocked') ?? []) {
      expect(message).toContain(`needs Secret ${namespace}/broken: `);
    }
    const deployments = `/apis/apps/v1/namespaces/${namespace}/deployments`;
    expect(
      await Promise.all([statusOf(`${deployments}/free`), statusOf(mapPath('free')), statusOf(`${deployments}/needs-it`)]),
    ).toEqual([200, 200, 404]);
    expect(broker.eventsOf(target)[0]).toMatchObject({ counts: { created: 2, failed: 3 } });
  });

  it('does not reach what intercepts requests, unless that is its own backend; and nothing waits for an interceptor', async () => {
    const { broker, server, namespace } = rig;
    await using agent = await rig.start();
    const hook = (name: string, service: string) => `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: ${name}-${namespace}}
webhooks:
  - name: ${name}.example.org
    clientConfig: {service: {name: ${service}, namespace: ${namespace}}}
    rules: [{apiGroups: [nothing.example.org], apiVersions: [v1], operations: [CREATE], resources: [nothings]}]
    sideEffects: None
    admissionReviewVersions: [v1]
`;
    const service = (name: string, port: string) =>
      `apiVersion: v1\nkind: Service\nmetadata: ${metadata(name)}\nspec: {clusterIP: None, selector: {app: x}, ports: [{port: ${port}}]}\n`;
    const target = await broker.publish(
      yaml(
        hook('isolated', 'good'),
        hook('dependent', 'bad'),
        service('good', '443'),
        service('bad', '70000'),
        deployment('backend'),
      ),
    );
    const mark = await server.auditMark();
    agent.reconciler.offer(target);
    await failedOnce(target);
    expect(told(rig, target).toSorted()).toEqual([
      `blocked blocked ValidatingWebhookConfiguration dependent-${namespace}`,
      'rejected invalid Service bad',
    ]);
    const writes = (await engineCalls(rig, mark)).filter((call) => call.verb === 'patch' && !isInventory(call));
    expect(writes.at(-1)?.objectRef?.name).toBe(`isolated-${namespace}`);
    await server.request('DELETE', `/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/isolated-${namespace}`);
  });
});

describe('T07 a namespace deleted under us', () => {
  const members = (doomed: string, value: string) =>
    yaml(...Array.from({ length: 5 }, (_, index) => configMap(`m-${index}`, { namespace: doomed }, value)));
  const retrying = (target: StackTarget) =>
    told(rig, target).filter((line) => line.startsWith('retrying namespace_terminating ConfigMap m-')).length;

  /** Deletes the namespace; an object of somebody else with a finalizer keeps it terminating. Returns its UID. */
  async function doom(name: string): Promise<string> {
    const { server } = rig;
    const { uid } = (await server.request('GET', `/api/v1/namespaces/${name}`)).body.metadata;
    const holder = { metadata: { name: 'holder', finalizers: ['example.org/hold'] } };
    await server.request('POST', `/api/v1/namespaces/${name}/configmaps`, holder);
    await server.request('DELETE', `/api/v1/namespaces/${name}`);
    return uid;
  }
  const release = (name: string) => {
    const type = { 'content-type': 'application/merge-patch+json' };
    return rig.server.request('PATCH', mapPath('holder', name), { metadata: { finalizers: null } }, type);
  };
  /** Values of our objects in a namespace that is not the one of that UID. */
  async function recreated(name: string, uid: string): Promise<string[]> {
    const { server } = rig;
    expect((await server.request('GET', `/api/v1/namespaces/${name}`)).body.metadata.uid).not.toBe(uid);
    const { body } = await server.request('GET', `/api/v1/namespaces/${name}/configmaps?labelSelector=brokkr.io/stack`);
    return (body.items as { data: { key: string } }[]).map(({ data }) => data.key);
  }

  it('T07 a newer version while it terminates: its objects retry, others are applied, all is there once it is gone', async () => {
    const { broker, server, namespace } = rig;
    await using agent = await rig.start();
    const doomed = `${namespace}-doomed`;
    const first = await broker.publish(yaml(members(doomed, 'a'), configMap('elsewhere'), namespaceOf(doomed)));
    agent.reconciler.offer(first);
    await broker.applied(first);
    const uid = await doom(doomed);
    await broker.until('retrying', () => retrying(first) === 5, 60_000);

    const text = yaml(members(doomed, 'b'), configMap('elsewhere', {}, 'b'), namespaceOf(doomed));
    const second = await broker.publish(text, { after: first });
    const mark = await server.auditMark();
    agent.reconciler.offer(second);
    const tried = () => broker.eventsOf(second).some(({ generation }) => generation === second.generation);
    await broker.until('tried', tried, 60_000);
    await broker.until('retrying again', () => retrying(first) === 5);
    expect((await server.request('GET', mapPath('elsewhere'))).body.data).toEqual({ key: 'b' });
    const refused = (await engineCalls(rig, mark)).filter(({ responseStatus }) => responseStatus?.code === 403);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.length).toBeLessThanOrEqual(10); // a dry-run and an apply each, and fewer once the first was told

    await release(doomed);
    await broker.until('applied', () => broker.statuses.get(first.stackId)?.appliedGeneration === second.generation, 60_000);
    expect(await recreated(doomed, uid)).toEqual(['b', 'b', 'b', 'b', 'b']);
  }, 180_000);

  it('T07 the waits between tries grow, and end when it is gone', async () => {
    const { broker, namespace } = rig;
    await using agent = await rig.start();
    const doomed = `${namespace}-lost`;
    const target = await broker.publish(yaml(members(doomed, 'a'), namespaceOf(doomed)));
    agent.reconciler.offer(target);
    await broker.applied(target);
    const uid = await doom(doomed);
    // After the third try the next one is due in 20 s.
    await broker.until('tried', () => broker.eventsOf(target).filter(({ success }) => !success).length === 3, 60_000);
    await release(doomed);
    await broker.until('corrected', () => broker.eventsOf(target).at(-1)?.success === true, 18_000);
    expect(await recreated(doomed, uid)).toEqual(['a', 'a', 'a', 'a', 'a']);
  }, 180_000);
});

describe('the preflight', () => {
  const invalid = (port: number) =>
    `apiVersion: v1\nkind: Service\nmetadata: {name: checked}\nspec: {clusterIP: None, selector: {a: b}, ports: [{port: ${port}}]}\n`;

  it.each([
    { preflight: Preflight.UPDATES, create: 'applied beside it', update: 'refused' },
    { preflight: Preflight.NONE, create: 'applied beside it', update: 'applied beside it' },
    { preflight: Preflight.ALL, create: 'refused', update: 'refused' },
  ])('of mode $preflight: a bad new object is $create, a bad update $update', async ({ preflight, create, update }) => {
    const { broker, server, namespace } = rig;
    await using agent = await rig.start();
    const options = { preflight };
    const outcome = async (text: string, beside: string, after?: Awaited<ReturnType<typeof broker.publish>>) => {
      const target = await broker.publish(yaml(text, configMap('beside-check', {}, beside)), {
        options,
        ...(after && { after }),
      });
      agent.reconciler.offer(target);
      const ended = () => broker.eventsOf(target).some(({ generation }) => generation === target.generation);
      await broker.until('tried', ended);
      const live = (await server.request('GET', mapPath('beside-check'))).body.data?.key;
      return { target, word: live === beside ? 'applied beside it' : 'refused' };
    };
    const created = await outcome(invalid(70_000), 'create');
    expect(created.word).toBe(create);
    const good = await outcome(invalid(80), 'good', created.target);
    expect(good.word).toBe('applied beside it');
    await broker.applied(good.target);
    const updated = await outcome(invalid(70_001), 'update', good.target);
    expect(updated.word).toBe(update);
    agent.reconciler.withdraw(broker.tombstone(updated.target));
    await broker.until('gone', () => broker.statuses.get(good.target.stackId)?.phase === Phase.PRUNED);
    expect(await statusOf(`/api/v1/namespaces/${namespace}/services/checked`)).toBe(404);
  });

  it('is skipped, with a note, where an admission webhook does not support dry-runs', async () => {
    const { broker, server, identity, namespace } = rig;
    const hooks = '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations';
    const hook = {
      metadata: { name: `side-effects-${namespace}` },
      webhooks: [
        {
          name: 'some.example.org',
          clientConfig: { url: 'https://127.0.0.1:1/' },
          sideEffects: 'Some',
          admissionReviewVersions: ['v1'],
        },
      ],
    };
    // No new webhook can be like that any more; those stored by older servers are, so the proxy answers as the server does for them.
    expect(await server.request('POST', hooks, hook)).toMatchObject({
      status: 422,
      body: { message: expect.stringContaining('sideEffects') },
    });
    const message = 'admission webhook "some.example.org" does not support dry run';
    const refusal = { kind: 'Status', apiVersion: 'v1', status: 'Failure', reason: 'BadRequest', code: 400, message };
    await using proxy = await startKubeProxy({
      target: server.url,
      ca: server.caData,
      onRequest: ({ path }) =>
        path.includes('dryRun=All') && path.includes('/hooked') ? { status: 400, body: refusal } : undefined,
    });
    await using agent = await broker.start({ url: proxy.url, token: identity.token }, { namespace });
    const first = await broker.publish(yaml(configMap('hooked'), configMap('unhooked')));
    agent.reconciler.offer(first);
    await broker.applied(first);
    const second = await broker.publish(yaml(configMap('hooked', {}, 'b'), configMap('unhooked', {}, 'b')), { after: first });
    agent.reconciler.offer(second);
    await broker.applied(second);
    expect(proxy.count('PATCH', 'dryRun=All')).toBe(2);
    expect(broker.eventsOf(second).at(-1)).toMatchObject({
      success: true,
      counts: { configured: 2 },
      objects: [
        {
          name: 'hooked',
          state: 'unchecked',
          reason: 'dry_run_unsupported',
          message: expect.stringContaining('some.example.org'),
        },
      ],
    });
  });
});
