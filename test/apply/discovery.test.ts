import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseStream } from '../../lib/yaml.ts';
import { Phase } from '../../proto/gen/brokkr/v1/content_pb.js';
import { type EngineRig, openEngineRig } from '../engine-rig.ts';
import { until } from '../kube-identity.ts';
import { configMap, custom, definition, told, yaml } from './graph-rig.ts';

let rig: EngineRig;
beforeAll(async () => {
  rig = await openEngineRig('discovery');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const MERGE = { 'content-type': 'application/merge-patch+json' };
const exists = async (name: string) =>
  (await rig.server.request('GET', `/api/v1/namespaces/${rig.namespace}/configmaps/${name}`)).status === 200;
const resource = (group: string, name: string) => `/apis/${group}/v1/namespaces/${rig.namespace}/widgets/${name}`;

/** The server itself looks at API services and their discovery again within a minute at most. */
const NOTICED_MS = 90_000;

/** Puts an API service whose Service does not exist in front of a group, as when an aggregated API server is gone. */
async function breakGroup(group: string): Promise<void> {
  const { server, namespace } = rig;
  const path = `/apis/apiregistration.k8s.io/v1/apiservices/v1.${group}`;
  const label = 'kube-aggregator.kubernetes.io/automanaged'; // or the server would put its own back
  const spec = { service: { name: 'nobody', namespace, port: 443 }, insecureSkipTLSVerify: true };
  const { status } = await server.request('PATCH', path, { metadata: { labels: { [label]: null } }, spec }, MERGE);
  expect(status).toBe(200);
  await until(async () => (await server.request('GET', resource(group, 'any'))).status === 503, AbortSignal.timeout(NOTICED_MS));
  await until(async () => (await freshness(group)) === 'Stale', AbortSignal.timeout(NOTICED_MS));
}

async function mendGroup(group: string): Promise<void> {
  const { server } = rig;
  await server.request('DELETE', `/apis/apiregistration.k8s.io/v1/apiservices/v1.${group}`);
  await until(async () => (await server.request('GET', resource(group, 'any'))).status === 404, AbortSignal.timeout(NOTICED_MS));
  await until(async () => (await freshness(group)) === 'Current', AbortSignal.timeout(NOTICED_MS));
}

/** What aggregated discovery says of the group's version. */
async function freshness(group: string): Promise<string | undefined> {
  const accept = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList';
  const { body } = await rig.server.request('GET', '/apis', undefined, { accept });
  const items = body.items as { metadata: { name: string }; versions: { freshness: string }[] }[];
  return items.find(({ metadata }) => metadata.name === group)?.versions[0]?.freshness;
}

describe('T45 an aggregated API that is down', () => {
  it('T45 holds up only the objects of its group, in its stack and in others, and nothing of it is pruned', async () => {
    const { broker, namespace } = rig;
    const group = `down.${namespace}.example.org`;
    const first = await broker.publish(
      yaml(definition(group, 'widgets', 'Widget'), custom(group, 'Widget', 'old'), configMap('old')),
    );
    {
      await using agent = await rig.start();
      agent.reconciler.offer(first);
      await broker.applied(first);
    }
    await breakGroup(group);
    await using agent = await rig.start();
    const beside = await broker.publish(configMap('of-another-stack'));
    agent.reconciler.offer(beside);
    await broker.applied(beside);

    // An object of the group that did not change is no obstacle; a new one is, and only itself.
    const changed = (more: string) =>
      broker.publish(
        yaml(definition(group, 'widgets', 'Widget'), custom(group, 'Widget', 'old'), configMap('old', {}, 'b'), more),
        { after: first },
      );
    const same = await changed(configMap('added'));
    agent.reconciler.offer(same);
    await broker.applied(same);
    expect(await exists('added')).toBe(true);
    const second = { ...(await changed(custom(group, 'Widget', 'new'))), generation: 3n };
    agent.reconciler.offer(second);
    const failed = () => broker.statuses.get(first.stackId)?.phase === Phase.FAILED;
    await broker.until('failed', failed);
    expect(told(rig, first).filter((line) => !line.startsWith('not_ready'))).toEqual(['blocked discovery Widget new']);
    expect(broker.statuses.get(first.stackId)?.objects[0]?.message).toContain(`discovery of ${group}/v1 is stale`);
    expect(broker.eventsOf(first).at(-1)).toMatchObject({ success: false, counts: { failed: 1 } });

    // Prune guard 9: what left the stack is kept, for nobody can tell whether it is there.
    const third = {
      ...(await broker.publish(yaml(configMap('old', {}, 'c')), { after: first, options: { approveDeletes: 10 } })),
      generation: 4n,
    };
    agent.reconciler.offer(third);
    const kept = () => told(rig, first).filter((line) => line.startsWith('kept '));
    await broker.until('kept', () => kept().length === 2);
    expect(kept().toSorted()).toEqual([`kept discovery CustomResourceDefinition widgets.${group}`, 'kept discovery Widget old']);
    expect(await exists('added')).toBe(false);
    await mendGroup(group);
    const { status, body } = await rig.server.request('GET', resource(group, 'old'));
    expect([status, body.metadata.deletionTimestamp]).toEqual([200, undefined]);
  }, 400_000);

  it('T45 goes on with those objects once the API is back, also those of an unparsed text', async () => {
    const { broker, namespace } = rig;
    const group = `back.${namespace}.example.org`;
    await using agent = await rig.start();
    const definitions = await broker.publish(definition(group, 'widgets', 'Widget'));
    agent.reconciler.offer(definitions);
    await broker.applied(definitions);
    await breakGroup(group);
    agent.kube.resources.invalidate();
    const target = await broker.publish(yaml(custom(group, 'Widget', 'awaited'), configMap('meanwhile')), { validation: 'none' });
    agent.reconciler.offer(target);
    await broker.until('failed', () => broker.statuses.get(target.stackId)?.phase === Phase.FAILED);
    expect(told(rig, target)).toEqual(['blocked discovery Widget awaited']);
    expect(await exists('meanwhile')).toBe(true);
    await mendGroup(group);
    await broker.until('applied', () => broker.statuses.get(target.stackId)?.phase === Phase.APPLIED, 60_000);
    expect((await rig.server.request('GET', resource(group, 'awaited'))).status).toBe(200);
  }, 400_000);
});

describe('a kind the server does not serve yet', () => {
  it('is noticed as soon as somebody defines it, and definitions are watched no longer than that', async () => {
    const { broker, server, identity, namespace } = rig;
    const endpoint = { url: server.url, caData: server.caData, token: identity.token };
    await using agent = await broker.start(endpoint, { namespace, kindRecheckMs: 3_600_000 });
    const group = `soon.${namespace}.example.org`;
    const target = await broker.publish(yaml(custom(group, 'Widget', 'early'), configMap('with-early')));
    const mark = await server.auditMark();
    agent.reconciler.offer(target);
    await broker.until('refused', () => broker.statuses.get(target.stackId)?.phase === Phase.REFUSED);
    expect(await exists('with-early')).toBe(false);
    const [document] = parseStream(definition(group, 'widgets', 'Widget')).documents;
    expect(
      (await server.request('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', document?.value)).status,
    ).toBe(201);
    await broker.applied(target);
    expect((await server.request('GET', resource(group, 'early'))).status).toBe(200);
    expect(broker.eventsOf(target).map(({ success }) => success)).toEqual([false, true]);
    const watches = { user: identity.user, resource: 'customresourcedefinitions', verbs: ['watch'], since: mark };
    const ended = async () => {
      const all = (await server.auditEvents(watches)).filter(({ requestURI }) => !requestURI.includes('labelSelector')); // those are for drift
      return all.length === 1 && all[0]?.stage === 'ResponseComplete';
    };
    await until(ended, AbortSignal.timeout(30_000));
  }, 120_000);
});
