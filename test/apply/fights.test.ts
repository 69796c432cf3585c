import { afterAll, beforeAll, expect, it } from 'vitest';
import { systemClock } from '../../lib/clock.ts';
import type { TestAgent, TestBroker } from '../agent-engine.ts';
import { openEngineRig } from '../engine-rig.ts';
import type { Kube as TestKube } from '../kube.ts';
import type { TestIdentity } from '../kube-identity.ts';

let server: TestKube;
let identity: TestIdentity;
let namespace: string;
let broker: TestBroker;
let agent: TestAgent;

beforeAll(async () => {
  const rig = await openEngineRig('t20');
  ({ server, identity, namespace, broker } = rig);
  agent = await rig.start();
});
afterAll(async () => {
  await agent?.stop();
  await broker?.[Symbol.asyncDispose]();
});

it('T20 an operator fights us on one field: three corrections, then backoff, one event and the status name it, and the CPU rests', {
  timeout: 150_000,
}, async () => {
  const text = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: contested}\ndata: {key: ours, other: ours}\n`;
  const target = await broker.publish(text);
  agent.reconciler.offer(target);
  await broker.applied(target);
  await broker.until('seen', () => broker.transitions.some(({ stackId }) => stackId === target.stackId));
  const path = `/api/v1/namespaces/${namespace}/configmaps/contested`;
  const mark = await server.auditMark();

  const stop = new AbortController();
  let edits = 0;
  const operator = (async () => {
    const headers = { 'content-type': 'application/merge-patch+json' };
    while (!stop.signal.aborted) {
      await server.request('PATCH', `${path}?fieldManager=operator`, { data: { key: `theirs-${edits++ % 2}` } }, headers);
      await systemClock.sleep(100, stop.signal).catch(() => undefined);
    }
  })();
  try {
    const drifts = () => broker.eventsOf(target).filter(({ eventType }) => eventType === 'DRIFT');
    const fights = () => drifts().filter(({ success }) => !success);
    await broker.until('told of the fight', () => fights().length === 1);
    const foughtAt = performance.now();
    const said = { name: 'contested', state: 'drifted', reason: 'fight', managers: ['operator'], path: '.data.key' };
    expect(fights()).toMatchObject([{ counts: { drifted: 1 }, objects: [said] }]);
    expect(drifts().filter(({ success }) => success)).toHaveLength(3);
    const shown = () => broker.statuses.get(target.stackId)?.objects.filter(({ state }) => state === 'drifted');
    expect(shown()).toMatchObject([
      { ...said, message: expect.stringMatching(/operator .*\.data\.key.* next correction waits (29|30) s/) },
    ]);

    const cpu = process.cpuUsage();
    const before = edits;
    await systemClock.sleep(20_000, stop.signal); // the fight goes on: nothing happens that could be awaited
    const used = process.cpuUsage(cpu);
    expect(edits - before).toBeGreaterThan(50);
    expect((used.user + used.system) / 20_000_000).toBeLessThan(0.1); // the operator of this test included
    const calls = async () =>
      (await server.auditEvents({ user: identity.user, since: mark, verbs: ['patch'] })).filter(
        ({ objectRef }) => objectRef?.name === 'contested',
      );
    const during = (await calls()).length;

    await broker.until('the next correction', () => drifts().filter(({ success }) => success).length === 4, 30_000);
    expect(performance.now() - foughtAt).toBeGreaterThan(27_000);
    expect((await calls()).length).toBeGreaterThan(during);
    await broker.until('held back longer', () => /waits (59|60) s/.test(shown()?.[0]?.message ?? ''));
    expect(fights()).toHaveLength(1);
    expect((await server.request('GET', path)).body.data.other).toBe('ours');
  } finally {
    stop.abort();
    await operator;
  }
});
