import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { mintKey } from '../../lib/pak.ts';
import { openBlackhole } from '../blackhole.ts';
import { createAuthority } from '../certificate-authority.ts';
import { beginTrace } from '../otlp/caller.ts';
import { type OtlpReceiver, startOtlpReceiver } from '../otlp/receiver.ts';
import { type TestDatabase, testDatabase } from '../postgres.ts';
import { startBroker, type TestBroker, temporaryDirectory } from '../processes.ts';

// Issue 6, traces of the broker's own requests: real processes, a real OTLP receiver.

let database: TestDatabase;
const adminKey = mintKey(); // one for all processes on the database
let receiver: OtlpReceiver;
beforeAll(async () => {
  database = await testDatabase();
  receiver = await startOtlpReceiver();
});

function startTraced(env: Readonly<Record<string, string>> = {}): Promise<TestBroker> {
  return startBroker({
    databaseUrl: database.url,
    adminKey,
    env: { ...receiver.settings('0'), ...env },
  });
}

describe('traces of requests', () => {
  // N-028, N-046
  it('arrive at the collector, named for the request, as children of the caller', async () => {
    const broker = await startTraced(receiver.settings('0', 'broker-of-the-test'));
    const { traceId, spanId, headers } = beginTrace();
    await broker.api('GET', '/api/v1/stacks/00000000-0000-4000-8000-000000000000', undefined, headers);
    await broker.api('POST', '/brokkr.v1.StackService/ListStacks', {}, headers);
    await broker.api('GET', '/api/v1/nothing-here', undefined, headers);
    const spans = await receiver.trace(traceId, ({ length }) => length === 3);
    const common = { service: 'broker-of-the-test', kind: 'SERVER', parentSpanId: spanId, error: undefined };
    expect(spans).toMatchObject([
      {
        ...common,
        name: 'GET /api/v1/stacks/{id}',
        attributes: {
          'http.request.method': 'GET',
          'http.route': '/api/v1/stacks/{id}',
          'http.response.status_code': 404,
          'rpc.service': 'brokkr.v1.StackService',
          'rpc.method': 'GetStack',
          'error.type': 'stack_not_found',
        },
      },
      { ...common, name: 'brokkr.v1.StackService/ListStacks', attributes: { 'http.response.status_code': 200 } },
      { ...common, name: 'GET', attributes: { 'http.response.status_code': 404 } },
    ]);
    await broker.stop();
  });

  it('name themselves in log lines', async () => {
    const broker = await startTraced({ BROKKR__LOG__LEVEL: 'debug' });
    const { traceId, headers } = beginTrace();
    const unsampled = beginTrace({ sampled: false });
    await database.open().then(async (db) => {
      await db.query('alter table generator rename to elsewhere');
      await broker.api('GET', '/api/v1/generators', undefined, headers);
      await broker.api('GET', '/api/v1/generators', undefined, unsampled.headers);
      await db.query('alter table elsewhere rename to generator');
    });
    const failed = () => broker.log.filter(({ msg }) => msg === 'request failed');
    await expect.poll(() => failed().length).toBe(2);
    const [span] = await receiver.trace(traceId, ({ length }) => length === 1);
    expect(span?.error).toBe('status 500');
    expect(failed()[0]).toMatchObject({ trace_id: traceId, span_id: span?.spanId });
    expect(failed()[1]).not.toHaveProperty('trace_id');
    await broker.stop();
  });

  // N-069
  it.each([
    { rate: '0', requests: 400, least: 0, most: 0 },
    { rate: '1', requests: 400, least: 400, most: 400 },
    { rate: '0.1', requests: 2000, least: 133, most: 267 }, // five standard deviations around 200: once in a million runs outside
  ])(
    'are sampled at the rate $rate',
    async ({ rate, requests, least, most }) => {
      const broker = await startTraced(receiver.settings(rate, `rate-${rate}`));
      const one = async () => expect((await broker.api('GET', '/api/v1/generators')).status).toBe(200);
      for (let round = 0; round < requests / 20; round++) await Promise.all(Array.from({ length: 20 }, one));
      expect(await broker.stop()).toBe(0); // what waited was sent
      const spans = receiver.spans.filter(({ service }) => service === `rate-${rate}`);
      expect(spans.length).toBeGreaterThanOrEqual(least);
      expect(spans.length).toBeLessThanOrEqual(most);
      expect(spans.every(({ parentSpanId }) => parentSpanId === '')).toBe(true);
    },
    60_000,
  );

  it('follow the decision of the caller, whatever the rate', async () => {
    const broker = await startTraced(receiver.settings('1'));
    const [kept, refused] = [beginTrace(), beginTrace({ sampled: false })];
    await broker.api('GET', '/api/v1/generators', undefined, refused.headers);
    await broker.api('GET', '/api/v1/generators', undefined, kept.headers);
    await broker.stop();
    const arrived = new Set(receiver.spans.map(({ traceId }) => traceId));
    expect([arrived.has(kept.traceId), arrived.has(refused.traceId)]).toEqual([true, false]);
  });

  it('arrive over TLS', async () => {
    const authority = await createAuthority('collector');
    const dir = await temporaryDirectory();
    await authority.issue(dir, { hosts: ['127.0.0.1'] });
    const read = (name: string) => readFileSync(join(dir, name));
    const secure = await startOtlpReceiver({ cert: read('tls.crt'), key: read('tls.key') });
    const broker = await startTraced({ ...secure.settings('0'), NODE_EXTRA_CA_CERTS: authority.certFile });
    const { traceId, headers } = beginTrace();
    await broker.api('GET', '/api/v1/generators', undefined, headers);
    await secure.trace(traceId, ({ length }) => length === 1);
    await broker.stop();
  });
});

describe('a collector that is away', () => {
  it('costs requests nothing: spans are lost, counted and named in one line', async () => {
    const broker = await startTraced({
      BROKKR__TELEMETRY__OTLP_ENDPOINT: 'http://127.0.0.1:1',
      BROKKR__TELEMETRY__SAMPLING_RATE: '1',
    });
    for (let round = 0; round < 3; round++) {
      expect((await broker.api('GET', '/api/v1/generators')).status).toBe(200);
      const lost = async () => Number(/trace_spans_total\{result="failed"\} (\d+)/.exec(await metrics(broker))?.[1]);
      await expect.poll(lost, { timeout: 20_000 }).toBe(round + 1);
    }
    expect(broker.log.filter(({ msg }) => msg === 'spans lost')).toMatchObject([
      { level: 'warn', spans: 1, reason: expect.stringContaining('ECONNREFUSED') },
    ]);
    expect(await broker.stop()).toBe(0);
  });

  it('holds up neither requests nor the stop when it does not answer', async () => {
    await using hole = await openBlackhole();
    const broker = await startTraced({
      BROKKR__TELEMETRY__OTLP_ENDPOINT: `http://127.0.0.1:${hole.port}`,
      BROKKR__TELEMETRY__SAMPLING_RATE: '1',
    });
    for (let count = 0; count < 20; count++) expect((await broker.api('GET', '/api/v1/generators')).status).toBe(200);
    const before = performance.now();
    expect(await broker.stop()).toBe(0);
    expect(performance.now() - before).toBeLessThan(10_000); // 2 s for what waits, 5 s for the last request under way
  }, 30_000);
});

async function metrics({ url }: TestBroker): Promise<string> {
  return await (await fetch(`${url}/metrics`)).text();
}
