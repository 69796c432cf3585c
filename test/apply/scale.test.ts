import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../lib/clock.ts';
import { Phase } from '../../proto/gen/brokkr/v1/content_pb.js';
import { type EngineRig, openEngineRig } from '../engine-rig.ts';
import { startKubeProxy } from '../http-proxy.ts';
import { type OwnKube, startOwnKube } from '../kube.ts';
import { configMap, isInventory, yaml } from './graph-rig.ts';

let own: OwnKube;
let rig: EngineRig;
beforeAll(async () => {
  own = await startOwnKube();
  rig = await openEngineRig('scale', own);
});
afterAll(async () => {
  await rig?.broker[Symbol.asyncDispose]();
  await own?.[Symbol.asyncDispose]();
});

const maps = (prefix: string, count: number) =>
  yaml(...Array.from({ length: count }, (_, index) => configMap(`${prefix}-${index}`)));

/** The lowest limit of calls in flight that is seen until `done`. */
async function lowestLimit(limiter: { readonly limit: number }, done: () => boolean): Promise<number> {
  const { signal } = new AbortController();
  let lowest = limiter.limit;
  while (!done()) {
    lowest = Math.min(lowest, limiter.limit);
    await systemClock.sleep(5, signal);
  }
  return lowest;
}

describe('T33 a server that asks to slow down', () => {
  it('T33 429 with Retry-After: half as many calls, none before its time, finished without an error event', async () => {
    const { broker, server, identity, namespace } = rig;
    let refusing = 4;
    const refusedAt: number[] = [];
    const sentAt: number[] = [];
    await using proxy = await startKubeProxy({
      target: server.url,
      ca: server.caData,
      onRequest({ method, path }) {
        if (method !== 'PATCH' || !path.includes('/throttled-')) return undefined;
        sentAt.push(systemClock.monotonic());
        if (sentAt.length <= 20 || refusing === 0) return undefined;
        refusing -= 1;
        refusedAt.push(systemClock.monotonic());
        return { status: 429, headers: { 'retry-after': '1' }, body: 'too many requests' };
      },
    });
    await using agent = await broker.start({ url: proxy.url, token: identity.token }, { namespace });
    const target = await broker.publish(maps('throttled', 120));
    const { limiter } = agent.kube;
    const before = limiter.limit;
    agent.reconciler.offer(target);
    const lowest = await lowestLimit(limiter, () => broker.eventsOf(target).length > 0);
    expect(broker.eventsOf(target)).toMatchObject([{ success: true, counts: { created: 120 } }]);
    expect(lowest).toBe(before / 2);
    expect(refusedAt).toHaveLength(4);
    // In the second after the last refusal, nothing but what had been on its way reached the server; it takes hundreds otherwise.
    const last = refusedAt.at(-1) ?? 0;
    expect(sentAt.filter((at) => at > last && at < last + 950).length).toBeLessThan(before);
    expect(sentAt.filter((at) => at >= last + 950).length).toBeGreaterThan(before);
  }, 60_000);

  it('T33 priority and fairness gives the agent a small share: it finishes without an error event', async () => {
    const { broker, server, identity, namespace } = rig;
    const api = '/apis/flowcontrol.apiserver.k8s.io/v1';
    const name = `low-${namespace}`;
    const limited = {
      nominalConcurrencyShares: 1,
      lendablePercent: 0,
      borrowingLimitPercent: 0,
      limitResponse: { type: 'Reject' },
    };
    const level = { metadata: { name }, spec: { type: 'Limited', limited } };
    const schema = {
      metadata: { name },
      spec: {
        priorityLevelConfiguration: { name },
        matchingPrecedence: 2,
        distinguisherMethod: { type: 'ByUser' },
        rules: [
          {
            subjects: [
              { kind: 'ServiceAccount', serviceAccount: { name: identity.subject.name, namespace: identity.subject.namespace } },
            ],
            resourceRules: [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'], namespaces: ['*'], clusterScope: true }],
          },
        ],
      },
    };
    expect((await server.request('POST', `${api}/prioritylevelconfigurations`, level)).status).toBe(201);
    expect((await server.request('POST', `${api}/flowschemas`, schema)).status).toBe(201);
    try {
      await using agent = await rig.start();
      const target = await broker.publish(maps('low-share', 300));
      const mark = await server.auditMark();
      const before = agent.kube.limiter.limit;
      agent.reconciler.offer(target);
      const lowest = await lowestLimit(agent.kube.limiter, () => broker.eventsOf(target).length > 0);
      expect(broker.eventsOf(target)).toMatchObject([{ success: true, counts: { created: 300 } }]);
      const refused = (await server.auditEvents({ user: identity.user, since: mark })).filter(
        ({ responseStatus }) => responseStatus?.code === 429,
      );
      expect(refused.length).toBeGreaterThan(0);
      expect(lowest).toBeLessThanOrEqual(before / 2);
    } finally {
      await server.request('DELETE', `${api}/flowschemas/${name}`);
      await server.request('DELETE', `${api}/prioritylevelconfigurations/${name}`);
    }
  }, 120_000);
});

it('T35 5,000 objects, then a restart: inventories and metadata lists only, nothing is applied', async () => {
  const { broker, server, identity, namespace } = rig;
  const target = await broker.publish(maps('many', 5000));
  {
    await using agent = await rig.start();
    agent.reconciler.offer(target);
    await broker.until('applied', () => broker.statuses.get(target.stackId)?.phase === Phase.APPLIED, 240_000);
    expect(broker.eventsOf(target)).toMatchObject([{ success: true, counts: { created: 5000, failed: 0 } }]);
  }
  const mark = await server.auditMark();
  broker.statuses.delete(target.stackId);
  await using agent = await rig.start();
  agent.reconciler.offer(target);
  await broker.applied(target);
  await broker.until('seen', () => broker.statuses.get(target.stackId)?.objectsReady === 5000, 60_000);
  // The watch begins where the list ended, so all was seen and judged by then.
  const calls = () => server.auditEvents({ user: identity.user, since: mark });
  await broker.until('watching', () => agent.held.length > 0);
  let events = await calls();
  while (!events.some(({ verb, objectRef }) => verb === 'watch' && objectRef?.resource === 'configmaps')) events = await calls();
  expect(new Set(events.map(({ verb }) => verb))).toEqual(new Set(['list', 'watch']));
  const lists = events.filter(({ verb }) => verb === 'list').map(({ requestURI }) => decodeURIComponent(requestURI));
  const inventories = lists.filter((uri) => uri.startsWith(`/api/v1/namespaces/${namespace}/configmaps?`));
  expect(inventories).toHaveLength(1);
  expect(
    lists
      .filter((uri) => !inventories.includes(uri))
      .every((uri) => uri.startsWith('/api/v1/configmaps?') && uri.includes('labelSelector=brokkr.io/stack')),
  ).toBe(true);
  expect(events.some((event) => event.verb === 'patch' && !isInventory(event))).toBe(false);
  expect(broker.eventsOf(target)).toHaveLength(1);
}, 400_000);
