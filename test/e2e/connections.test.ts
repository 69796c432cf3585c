import { once } from 'node:events';
import { createServer, connect as h2Connect, type IncomingHttpHeaders } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { pakOf } from '../../lib/pak.ts';
import { startHttp1Proxy } from '../http-proxy.ts';
import { useKube } from '../kube.ts';
import { startOtlpReceiver } from '../otlp/receiver.ts';
import { testDatabase } from '../postgres.ts';
import { type PostgresWire, recordPostgres } from '../postgres-wire.ts';
import { startBroker } from '../processes.ts';
import { socketsDuring, socketsOf } from '../sockets.ts';
import { startWebhookSink } from '../webhook-sink.ts';
import { configMap, healthyAt, type Rig, rigOn } from './rig.ts';

let rig: Rig;
let wire: PostgresWire;
beforeAll(async () => {
  wire = await recordPostgres((await testDatabase()).url);
  rig = rigOn(await useKube(), await startBroker({ databaseUrl: wire.url }), wire.url);
});
afterAll(() => wire[Symbol.asyncDispose]());

const portOf = (url: string) => Number(new URL(url).port);

/** Publish, change, delete; seen from the first dial of the agent to the last object gone. */
async function story(name: string, label: string, on = rig): Promise<void> {
  const namespace = await on.kube.namespace('story');
  const stack = await on.publish(name, configMap(namespace, 'a'), label);
  await on.status(stack.id, healthyAt(1));
  const { generation } = await on.publish(name, `${configMap(namespace, 'a', '2')}---\n${configMap(namespace, 'b')}`, label);
  await on.status(stack.id, healthyAt(generation));
  await on.broker.api('DELETE', `/api/v1/stacks/${stack.id}`);
  await expect
    .poll(async () => (await on.broker.api('GET', `/api/v1/stacks/${stack.id}/status`)).status, { timeout: 20_000 })
    .toBe(404);
}

describe('the broker', () => {
  // N-003, N-040, N-050, N-060, C-004
  it('listens on one port and dials PostgreSQL only, from the first agent to the last object', async () => {
    const agent = await rig.register();
    const seen = await socketsDuring(
      rig.broker.pid,
      (async () => {
        await rig.start(agent);
        await story('broker-sockets', agent.label);
      })(),
    );
    const own = portOf(rig.broker.url);
    expect(new Set(seen.filter(({ listens }) => listens).map(({ localPort }) => localPort))).toEqual(new Set([own]));
    const dialled = seen.filter(({ listens, localPort }) => !listens && localPort !== own);
    expect(new Set(dialled.map(({ protocol, remotePort }) => `${protocol} ${remotePort}`))).toEqual(
      new Set([`tcp ${wire.port}`]),
    );
  });
});

describe('the broker with webhooks and traces', () => {
  // N-060
  it('dials PostgreSQL, the endpoints of webhooks and the collector, and nothing else', async () => {
    const seenAll = Promise.withResolvers<void>();
    const receiver = await startOtlpReceiver();
    const sink = await startWebhookSink(async (response) => {
      await seenAll.promise; // a connection that is over at once could be missed
      response.writeHead(204).end();
    });
    await using database = await recordPostgres((await testDatabase()).url);
    const env = {
      BROKKR__BROKER__WEBHOOK_ALLOWED_NETWORKS: '127.0.0.0/8',
      ...receiver.settings('1'),
    };
    const own = rigOn(rig.kube, await startBroker({ databaseUrl: database.url, env }), database.url);
    await own.broker.api('POST', '/api/v1/webhooks', { name: 'all', url: sink.url, event_types: ['*'] });
    const agent = await own.register();
    const work = async () => {
      await own.start(agent);
      await story('all-connections', agent.label, own);
      await expect.poll(() => Math.min(receiver.spans.length, sink.received.length), { timeout: 20_000 }).toBeGreaterThan(0);
      seenAll.resolve();
    };
    const seen = await socketsDuring(own.broker.pid, work());
    const dialled = seen.filter(({ listens, localPort }) => !listens && localPort !== portOf(own.broker.url));
    expect(new Set(dialled.map(({ protocol, remotePort }) => `${protocol} ${remotePort}`))).toEqual(
      new Set([database.port, receiver.port, sink.port].map((port) => `tcp ${port}`)),
    );
    await own.broker.stop();
  });
});

describe('the agent', () => {
  // N-002, N-080, N-082, N-083
  it('dials the broker and its API server only, and nobody dials it', async () => {
    const agent = await rig.register();
    const started = await rig.start(agent);
    const health = Number(
      String((await started.line(({ msg }) => msg === 'health port is open')).address)
        .split(':')
        .at(-1),
    );
    const seen = await socketsDuring(started.pid, story('agent-sockets', agent.label));
    expect(seen.filter(({ listens }) => listens).map(({ localPort }) => localPort)).toEqual([health]);
    const others = seen.filter(({ listens }) => !listens);
    expect(others.filter(({ localPort }) => localPort === health)).toEqual([]);
    expect(new Set(others.map(({ protocol, remotePort }) => `${protocol} ${remotePort}`))).toEqual(
      new Set([`tcp ${portOf(rig.broker.url)}`, `tcp ${portOf(rig.kube.url)}`]),
    );
  });

  // N-042
  it('answers four paths on its health port and nothing else', async () => {
    const started = await rig.start(await rig.register());
    const port = String((await started.line(({ msg }) => msg === 'health port is open')).address)
      .split(':')
      .at(-1);
    const get = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`)).status;
    await expect.poll(() => get('/readyz'), { timeout: 20_000 }).toBe(200);
    for (const path of ['/healthz', '/health', '/metrics']) expect(await get(path), path).toBe(200);
    expect(await get('/api/v1/stacks')).toBe(404);
    expect((await socketsOf(started.pid)).filter(({ listens }) => listens)).toHaveLength(1);
  });

  // N-093
  it('sends its key with every request, over the stream', async () => {
    const recorder = await recordHttp2(rig.broker.url);
    const agent = await rig.register();
    await rig.start(agent, { brokerUrl: recorder.url, env: { BROKKR__AGENT__TRANSPORT: 'stream' } });
    await story('key-stream', agent.label);
    expect(recorder.seen.map((headers) => String(headers[':path']))).toContain('/brokkr.v1.AgentSync/Session');
    for (const headers of recorder.seen) expect(pakOf(headers.authorization), String(headers[':path'])).toBe(agent.pak);
  });

  // N-093, N-088
  it('sends its key with every request, by polling, and goes round: fetch, apply, report', async () => {
    await using way = await startHttp1Proxy({ target: rig.broker.url });
    const agent = await rig.register();
    await rig.start(agent, {
      brokerUrl: way.url,
      env: { BROKKR__AGENT__TRANSPORT: 'poll', BROKKR__AGENT__POLLING_INTERVAL: '1s' },
    });
    await story('key-poll', agent.label);
    for (const { path, headers } of way.requests) expect(pakOf(headers.authorization), path).toBe(agent.pak);
    const methods = way.requests.map(({ path }) => path.split('/').at(-1));
    const fetched = methods.indexOf('Poll');
    expect(fetched).toBeGreaterThanOrEqual(0);
    expect(methods.indexOf('Report', fetched)).toBeGreaterThan(fetched);
    expect((await rig.events(agent.id)).map(({ event_type: type, status }) => `${type} ${status}`)).toContain('APPLY SUCCESS');
  });
});

/** Passes HTTP/2 without TLS on to `target`, streams and trailers included, and keeps the headers of every request. */
async function recordHttp2(target: string): Promise<{ readonly url: string; readonly seen: readonly IncomingHttpHeaders[] }> {
  const seen: IncomingHttpHeaders[] = [];
  const upstream = h2Connect(target);
  const server = createServer();
  server.on('stream', (stream, headers) => {
    seen.push(headers);
    const forwarded = upstream.request(headers);
    let trailers: IncomingHttpHeaders = {};
    forwarded.on('response', (answer) => stream.respond(answer, { waitForTrailers: true }));
    forwarded.on('trailers', (last) => {
      trailers = last;
    });
    stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    for (const end of [stream, forwarded]) {
      end.on('error', () => undefined);
      end.on('close', () => (end === stream ? forwarded : stream).close());
    }
    stream.pipe(forwarded);
    forwarded.pipe(stream);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    upstream.destroy();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
}
