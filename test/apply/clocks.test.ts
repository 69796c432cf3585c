import { appendFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Clock, systemClock } from '../../lib/clock.ts';
import { openTestBroker } from '../agent-engine.ts';
import { startKubeProxy } from '../http-proxy.ts';
import { openTestKube } from '../kube-client.ts';
import { temporaryDirectory } from '../processes.ts';
import { configMap, type ObjectRig, openObjectRig, yaml } from './object-rig.ts';

const { signal } = new AbortController();
const HOURS_MS = 3_600_000;
/** The `Date` of an answer has whole seconds. */
const GOOD_MS = 3000;

let rig: ObjectRig;
beforeAll(async () => {
  rig = await openObjectRig('clocks');
}, 240_000);
afterAll(() => rig?.broker[Symbol.asyncDispose]());

/** The machine's clock, as if somebody had set it wrong; time passes as it does. */
const setWrong = (offsetMs: number): Clock => ({ ...systemClock, now: () => systemClock.now() + offsetMs });

/** Applies, corrects and prunes with this clock, against this server; how far the agent thinks the clocks are apart. */
async function work(clock: Clock, url: string, caData: string | undefined, prefix: string): Promise<number | undefined> {
  const { identity, namespace, server } = rig;
  await using broker = openTestBroker(namespace, clock);
  await using agent = await broker.start({ url, token: identity.token, ...(caData && { caData }) }, { namespace });
  const first = await broker.publish(yaml(configMap(`${prefix}-a`), configMap(`${prefix}-b`)));
  agent.reconciler.offer(first);
  await broker.applied(first);
  const started = systemClock.monotonic();
  await rig.patchAs('editor', rig.path('configmaps', `${prefix}-a`), { data: { key: 'edited' } });
  await broker.until('corrected', () => broker.eventsOf(first).some(({ eventType }) => eventType === 'DRIFT'));
  expect((await rig.get(rig.path('configmaps', `${prefix}-a`))).data.key).toBe('a');
  const second = await broker.publish(configMap(`${prefix}-a`), { after: first });
  agent.reconciler.offer(second);
  await broker.applied(second);
  expect((await server.request('GET', rig.path('configmaps', `${prefix}-b`))).status).toBe(404);
  expect(systemClock.monotonic() - started).toBeLessThan(20_000); // waits of seconds, not of hours
  expect(broker.eventsOf(first).every(({ success }) => success)).toBe(true);
  return agent.kube.serverClock.offsetMs;
}

describe('T41 clocks that are wrong', () => {
  it.each([-2, 2])('T41 the agent is %i h off: no wait changes, and the offset is known', { timeout: 120_000 }, async (hours) => {
    const offset = await work(setWrong(hours * HOURS_MS), rig.server.url, rig.server.caData, `agent${hours + 2}`);
    expect(Math.abs((offset ?? Number.NaN) + hours * HOURS_MS)).toBeLessThan(GOOD_MS);
  });

  it('T41 the clock of the server jumps to and fro: no wait changes, and the offset follows', { timeout: 120_000 }, async () => {
    let answers = 0;
    const { server } = rig;
    await using proxy = await startKubeProxy({
      target: server.url,
      ca: server.caData,
      dateOffsetMs: () => (answers++ % 2 === 0 ? 2 : -2) * HOURS_MS,
    });
    const offset = await work(systemClock, proxy.url, undefined, 'server');
    expect(Math.abs(Math.abs(offset ?? Number.NaN) - 2 * HOURS_MS)).toBeLessThan(GOOD_MS);
  });

  it.each([-2, 2])(
    'T41 a token is renewed before it expires by the clock of the server, the agent being %i h off',
    async (hours) => {
      const { server } = rig;
      const directory = await temporaryDirectory();
      const runs = join(directory, 'runs');
      await appendFile(runs, '');
      const expiresInMs = 180_000;
      const script = `require('node:fs').appendFileSync(${JSON.stringify(runs)}, 'x');
      const expirationTimestamp = new Date(Date.now() + ${expiresInMs}).toISOString();
      console.log(JSON.stringify({ kind: 'ExecCredential', status: { token: ${JSON.stringify(server.identities.ops.token)}, expirationTimestamp } }));`;
      const exec = {
        apiVersion: 'client.authentication.k8s.io/v1',
        ...{ command: process.execPath, args: ['-e', script], env: {}, directory, provideClusterInfo: false },
      };
      let passedMs = 0;
      const clock = {
        ...setWrong(hours * HOURS_MS),
        now: () => systemClock.now() + hours * HOURS_MS + passedMs,
        monotonic: () => systemClock.monotonic() + passedMs,
      };
      await using proxy = await startKubeProxy({ target: server.url, ca: server.caData, dateOffsetMs: () => passedMs });
      await using kube = openTestKube({ url: proxy.url, rest: { auth: { kind: 'exec', plugin: exec } } }, {}, clock);
      const count = async () => (await readFile(runs, 'utf8')).length;
      await kube.version(signal);
      await kube.version(signal);
      expect(await count()).toBe(1);
      passedMs = 100_000; // 80 s are left, a minute of which is the margin
      await kube.version(signal);
      expect(await count()).toBe(1);
      passedMs = 130_000;
      await kube.version(signal);
      expect(await count()).toBe(2);
    },
  );
});
