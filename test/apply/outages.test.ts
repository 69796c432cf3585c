import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StackTarget } from '../../agent/stack/target.ts';
import { type Clock, systemClock } from '../../lib/clock.ts';
import { Phase } from '../../proto/gen/brokkr/v1/content_pb.js';
import { openTestBroker, type TestAgent, type TestBroker } from '../agent-engine.ts';
import { startTcpProxy } from '../fault-proxy.ts';
import { startKubeProxy } from '../http-proxy.ts';
import { type OwnKube, startOwnKube } from '../kube.ts';
import type { TestIdentity } from '../kube-identity.ts';
import { configMap, yaml } from './object-rig.ts';

const { signal } = new AbortController();

/** The machine's clock, whose deadlines are ten times as short: a call is given 3 s, not 30. */
const hasty: Clock = { ...systemClock, deadline: (ms, stop) => systemClock.deadline(ms / 10, stop) };

let server: OwnKube;
let identity: TestIdentity;
let namespace: string;
let broker: TestBroker;

beforeAll(async () => {
  server = await startOwnKube();
  namespace = await server.namespace('outages');
  identity = await server.identity('outages', { clusterAdmin: true, namespace });
  broker = openTestBroker(namespace, hasty);
}, 240_000);
afterAll(async () => {
  await broker?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

const maps = (prefix: string, count: number, value: string) =>
  yaml(...Array.from({ length: count }, (_, index) => configMap(`${prefix}-${index}`, { key: value }, { labels: { prefix } })));

/** Values of the ConfigMaps of a test. */
async function values(prefix: string): Promise<string[]> {
  const { body } = await server.request('GET', `/api/v1/namespaces/${namespace}/configmaps?labelSelector=prefix=${prefix}`);
  return (body.items as { data: { key: string } }[]).map(({ data }) => data.key);
}

/** Lists of the objects of stacks, by kind, which is what a watch begins with. */
async function lists(since: number): Promise<Record<string, number>> {
  const events = await server.auditEvents({ user: identity.user, verbs: ['list'], since });
  const counts: Record<string, number> = {};
  for (const { objectRef } of events) counts[objectRef?.resource ?? ''] = (counts[objectRef?.resource ?? ''] ?? 0) + 1;
  return counts;
}

/** An edit by somebody else is corrected: the watch works. */
async function isWatched(prefix: string, agent: TestAgent, target: StackTarget): Promise<void> {
  const path = `/api/v1/namespaces/${namespace}/configmaps/${prefix}-0`;
  const corrections = () => broker.eventsOf(target).filter(({ eventType }) => eventType === 'DRIFT').length;
  const before = corrections();
  await server.request('PATCH', path, { data: { key: 'edited' } }, { 'content-type': 'application/merge-patch+json' });
  await broker.until('corrected', () => corrections() > before, 60_000);
  expect(agent.kube.transport.isDown).toBe(false);
}

describe('T31 an API server that is killed', () => {
  it('T31 in the middle of 300 applies and of its watches, and is back after 5 s: the sync completes, tries are bounded', {
    timeout: 240_000,
  }, async () => {
    const codes: string[] = [];
    const observe = { request: (verb: string, code: string) => void codes.push(`${verb} ${code}`) };
    const count = (...wanted: string[]) => codes.filter((code) => wanted.includes(code)).length;
    const start = { url: server.url, caData: server.caData, token: identity.token };
    await using agent = await broker.start(start, { namespace, observe });
    const watched = await broker.publish(maps('watched', 3, 'one'));
    agent.reconciler.offer(watched);
    await broker.applied(watched);
    await broker.until('watched', () => count('watch 200') > 0);
    const mark = await server.auditMark();
    const target = await broker.publish(maps('killed', 300, 'one'));
    agent.reconciler.offer(target);
    await broker.until('half-way', () => count('apply 201') >= 60);
    await server.controlPlane.killApiServer('SIGKILL');
    const sentBefore = codes.length;
    await systemClock.sleep(5000, signal);
    const sentMeanwhile = codes.length - sentBefore;
    await server.controlPlane.startApiServer(signal);
    await broker.until('applied', () => broker.statuses.get(target.stackId)?.phase === Phase.APPLIED, 120_000);
    expect(await values('killed')).toEqual(Array.from({ length: 300 }, () => 'one'));
    expect(sentMeanwhile).toBeLessThan(100); // what was in flight, 20 failures, and a probe a second of each who waits
    const applies = await server.auditEvents({ user: identity.user, verbs: ['patch'], resource: 'configmaps', since: mark });
    const tries = new Map<string, number>();
    for (const { objectRef } of applies) tries.set(objectRef?.name ?? '', (tries.get(objectRef?.name ?? '') ?? 0) + 1);
    const again = [...tries].filter(([name, number]) => name.startsWith('killed-') && number > 1);
    expect(again.length).toBeLessThanOrEqual(32); // only what was in flight was sent twice
    expect(Math.max(...again.map(([, number]) => number), 1)).toBeLessThanOrEqual(3);
    await isWatched('watched', agent, watched);
    for (const [resource, number] of Object.entries(await lists(mark))) {
      expect(number, `lists of ${resource}`).toBeLessThanOrEqual(1); // its versions from before are forgotten
    }
    const events = broker.eventsOf(target);
    expect(events.filter(({ success }) => success)).toHaveLength(1);
    expect(new Set(events.map(({ attemptId }) => attemptId)).size).toBe(events.length);
  });

  it('T31 whose connections alone are lost: the watches go on from their versions without a list', {
    timeout: 120_000,
  }, async () => {
    await using proxy = await startTcpProxy({ target: { host: '127.0.0.1', port: Number(new URL(server.url).port) } });
    const codes: string[] = [];
    const observe = { request: (verb: string, code: string) => void codes.push(`${verb} ${code}`) };
    const start = { url: `https://127.0.0.1:${proxy.port}`, caData: server.caData, token: identity.token };
    await using agent = await broker.start(start, { namespace, observe });
    const target = await broker.publish(maps('cut', 3, 'one'));
    agent.reconciler.offer(target);
    await broker.applied(target);
    await isWatched('cut', agent, target);
    const mark = await server.auditMark();
    const watches = codes.filter((code) => code === 'watch 200').length;
    proxy.cut();
    await systemClock.sleep(1000, signal);
    await proxy.heal();
    await broker.until('watched again', () => codes.filter((code) => code === 'watch 200').length > watches, 60_000);
    await isWatched('cut', agent, target);
    expect(await lists(mark)).toEqual({});
  });
});

describe('T32 etcd that is stopped', () => {
  it('T32 for 25 s, calls given 3 s instead of 30: deadlines end the calls, only probes are sent, nothing is told twice', {
    timeout: 240_000,
  }, async () => {
    await using proxy = await startKubeProxy({ target: server.url, ca: server.caData });
    const codes: string[] = [];
    let opened = 0;
    const observe = {
      request: (verb: string, code: string) => void codes.push(`${verb} ${code}`),
      down: () => {
        opened += 1;
      },
    };
    await using agent = await broker.start({ url: proxy.url, token: identity.token }, { namespace, observe });
    const first = await broker.publish(maps('stopped', 12, 'one'));
    agent.reconciler.offer(first);
    await broker.applied(first);
    const second = await broker.publish(maps('stopped', 12, 'two'), { after: first });
    await server.controlPlane.stopEtcd();
    const stoppedAt = systemClock.monotonic();
    agent.reconciler.offer(second);
    await broker.until('down', () => agent.kube.transport.isDown, 100_000);
    expect(codes).toContain('apply error'); // our deadline: the server itself would have answered after 25 s
    await broker.until('failed', () => broker.statuses.get(first.stackId)?.phase === Phase.FAILED, 60_000);
    const sent = proxy.count();
    while (systemClock.monotonic() - stoppedAt < 25_000) await systemClock.sleep(200, signal);
    const meanwhile = proxy.requests.slice(sent);
    expect(meanwhile.length).toBeGreaterThan(0);
    expect(new Set(meanwhile.map(({ path }) => path))).toEqual(new Set(['/readyz']));
    await server.controlPlane.startEtcd(signal);
    await broker.until('applied', () => broker.statuses.get(second.stackId)?.appliedGeneration === second.generation, 100_000);
    expect(await values('stopped')).toEqual(Array.from({ length: 12 }, () => 'two'));
    expect(agent.kube.transport.isDown).toBe(false);
    expect(opened).toBe(1);
    const events = broker.eventsOf(second).filter(({ generation }) => generation === second.generation);
    expect(events.filter(({ success }) => success)).toHaveLength(1);
    expect(events.filter(({ success }) => !success).length).toBeLessThanOrEqual(1);
  });
});
