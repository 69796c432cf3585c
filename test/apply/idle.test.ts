import { afterAll, beforeAll, expect, it } from 'vitest';
import { systemClock } from '../../lib/clock.ts';
import type { TestAgent, TestBroker } from '../agent-engine.ts';
import { openEngineRig } from '../engine-rig.ts';
import { type OwnKube, startOwnKube } from '../kube.ts';
import type { TestIdentity } from '../kube-identity.ts';

const OBJECTS = 5000;
/** Instead of 30 minutes: watches are renewed every 5 to 10, so that a loop or a timer that is not theirs shows in this time as well. */
const IDLE_MS = 60_000;

let server: OwnKube;
let identity: TestIdentity;
let broker: TestBroker;
let agent: TestAgent;

beforeAll(async () => {
  server = await startOwnKube(); // nobody else's objects are watched here
  const rig = await openEngineRig('t36', server);
  ({ identity, broker } = rig);
  agent = await rig.start();
});
afterAll(async () => {
  await agent?.stop();
  await broker?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

it('T36 idle with 5,000 objects (a minute of it): watch renewals and the verification trickle alone, less than 1 % CPU', {
  timeout: 400_000,
}, async () => {
  const documents = Array.from({ length: OBJECTS }, (_, index) => {
    const kind = index % 2 === 0 ? 'ConfigMap' : 'Secret';
    const data = index % 2 === 0 ? `{key: value-${index}}` : `{key: YQ==}`;
    return `apiVersion: v1\nkind: ${kind}\nmetadata: {name: idle-${index}}\ndata: ${data}\n`;
  });
  const target = await broker.publish(documents.join('---\n'));
  agent.reconciler.offer(target);
  await broker.until('applied', () => broker.statuses.get(target.stackId)?.appliedGeneration === 1n, 240_000);
  await broker.until('seen', () => broker.statuses.get(target.stackId)?.objectsReady === OBJECTS, 60_000);
  const { signal } = new AbortController();
  await systemClock.sleep(15_000, signal); // what follows a sync (late watch events, garbage) is not idleness

  const mark = await server.auditMark();
  const cpu = process.cpuUsage();
  await systemClock.sleep(IDLE_MS, signal);
  const { user, system } = process.cpuUsage(cpu);
  const calls = await server.auditEvents({ user: identity.user, since: mark });
  expect(
    calls.filter(({ verb }) => verb !== 'watch' && verb !== 'get').map(({ verb, requestURI }) => `${verb} ${requestURI}`),
  ).toEqual([]);
  expect(calls.filter(({ verb }) => verb === 'get').length).toBeLessThan(100); // one batch of the trickle, if its time came
  expect((user + system) / 1000 / IDLE_MS).toBeLessThan(0.01);
});
