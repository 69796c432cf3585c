import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createServer } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createMetrics } from '#lib/metrics.ts';
import { type Authority, createAuthority } from '../test/certificate-authority.ts';
import { FakeClock } from '../test/fake-clock.ts';
import { temporaryDirectory } from '../test/processes.ts';
import { createBrokerWatch } from './broker-watch.ts';
import { createAgentMetrics } from './metrics.ts';

const DAY_SECONDS = 86_400;
let authority: Authority;
let port: number;
/** Connections that were. */
let closed = 0;
const stop = new AbortController();

beforeAll(async () => {
  const home = await temporaryDirectory();
  authority = await createAuthority('broker authority');
  await authority.issue(home, { hosts: ['localhost'], fromDays: -1, toDays: 5 });
  const [cert, key] = await Promise.all(['tls.crt', 'tls.key'].map((file) => readFile(join(home, file))));
  const server = createServer({ cert, key }, (socket) => void socket.on('error', () => undefined).end());
  server.on('connection', (socket) => socket.once('close', () => closed++));
  server.on('tlsClientError', () => undefined);
  server.listen(0);
  await once(server, 'listening');
  port = (server.address() as AddressInfo).port;
  afterAll(() => void server.close());
});
afterAll(() => stop.abort(new Error('test over')));

/** Runs a watch of a broker; `ca` is what it trusts. */
function watch(url: string, lookup: () => Promise<unknown>, ca?: string) {
  const clock = new FakeClock(Date.now());
  const metrics = createMetrics({ processMetrics: false });
  const readEndpoint = async () => ({ url: new URL(url), pak: 'x', ca: ca === undefined ? undefined : [ca], proxy: undefined });
  void createBrokerWatch({ readEndpoint, lookup, clock, metrics: createAgentMetrics(metrics, clock, () => undefined) }).run(
    stop.signal,
  );
  const read = async (name: string) => {
    const line = (await metrics.text()).split('\n').find((each) => each.startsWith(`brokkr_agent_${name} `));
    return line === undefined ? undefined : Number(line.split(' ')[1]);
  };
  return { clock, read };
}

describe('the watch of a broker', () => {
  it('measures each minute how long its name takes to resolve, and each hour how long its certificate is valid', async () => {
    const ca = await readFile(authority.certFile, 'utf8');
    const { clock, read } = watch(`https://localhost:${port}`, () => Promise.resolve(), ca);
    const validSeconds = () => read('broker_certificate_expiry_seconds');
    await expect.poll(async () => ((await validSeconds()) ?? 0) / DAY_SECONDS).toBeCloseTo(5, 1);
    expect(await read('dns_lookup_duration_seconds_count')).toBe(1);
    await clock.advance(60_000);
    await expect.poll(() => read('dns_lookup_duration_seconds_count')).toBe(2);
    await clock.advance(58 * 60_000);
    await expect.poll(() => closed).toBe(1);
    await clock.advance(60_000);
    await expect.poll(() => closed).toBe(2);
    expect(((await validSeconds()) ?? 0) / DAY_SECONDS).toBeCloseTo(5 - 1 / 24, 1);
  });

  it('counts names that do not resolve', async () => {
    const missing = () => Promise.reject(Object.assign(new Error('getaddrinfo ENOTFOUND'), { code: 'ENOTFOUND' }));
    const { read } = watch('http://broker.invalid:3000', missing);
    await expect.poll(() => read('connection_failures_total{to="dns",kind="nxdomain"}')).toBe(1);
    expect(await read('broker_certificate_expiry_seconds')).toBeUndefined();
  });

  it('takes nothing from a certificate that is not trusted', async () => {
    const other = await readFile((await createAuthority('other authority')).certFile, 'utf8');
    const before = closed;
    const { read } = watch(`https://localhost:${port}`, () => Promise.resolve(), other);
    await expect.poll(() => closed).toBe(before + 1);
    expect(await read('broker_certificate_expiry_seconds')).toBeUndefined();
  });
});
