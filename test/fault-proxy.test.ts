import { once } from 'node:events';
import { createServer as createHttpServer, request as httpRequest } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { type AddressInfo, connect, createServer } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTcpProxy } from './fault-proxy.ts';
import { startHttp1Proxy, startKubeProxy } from './http-proxy.ts';
import { type OwnKube, startOwnKube } from './kube.ts';

/** A TCP server that sends back what it gets. */
async function startEcho() {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    target: { host: '127.0.0.1', port: (server.address() as AddressInfo).port },
    [Symbol.asyncDispose]: async () => void server.close(),
  };
}

/** An HTTP server: `/` answers with the headers it saw, `/stream` sends `one`, and `two` once `/go` was asked. */
async function startOrigin() {
  const go = Promise.withResolvers<void>();
  const server = createHttpServer((request, response) => {
    if (request.url === '/go') go.resolve();
    if (request.url !== '/stream') {
      response.end(JSON.stringify({ headers: request.headers }));
      return;
    }
    response.write('one');
    void go.promise.then(() => response.end('two'));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
    },
  };
}

async function failureOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (reason: Error & { cause?: { code?: string } }) => reason,
  );
  return error?.cause?.code ?? String(error);
}

describe('TCP proxy', () => {
  it('passes bytes both ways and counts them', async () => {
    await using echo = await startEcho();
    await using proxy = await startTcpProxy(echo);
    const socket = connect(proxy.port, proxy.host);
    socket.end('hello');
    expect(await text(socket)).toBe('hello');
    expect(proxy.counts()).toMatchObject({ accepted: 1, bytesUp: 5, bytesDown: 5 });
  });

  it('resets and refuses while it is cut, on the same port as before once healed', async () => {
    await using echo = await startEcho();
    await using proxy = await startTcpProxy(echo);
    const before = connect(proxy.port, proxy.host);
    before.write('x');
    await once(before, 'data');
    proxy.cut();
    expect(await once(before, 'error')).toMatchObject([{ code: 'ECONNRESET' }]);
    expect(await once(connect(proxy.port, proxy.host), 'error')).toMatchObject([{ code: 'ECONNREFUSED' }]);
    await proxy.heal();
    const after = connect(proxy.port, proxy.host);
    after.end('again');
    expect(await text(after)).toBe('again');
  });

  it('holds back everything while it is stalled, and sends it once healed', async () => {
    await using echo = await startEcho();
    await using proxy = await startTcpProxy(echo);
    const old = connect(proxy.port, proxy.host);
    old.write('x');
    await once(old, 'data');
    proxy.stall();
    const fresh = connect(proxy.port, proxy.host);
    await once(fresh, 'connect');
    old.end('late');
    fresh.end('new');
    expect(proxy.counts().bytesUp).toBe(1);
    await proxy.heal();
    expect(await Promise.all([text(old), text(fresh)])).toEqual(['late', 'new']);
  });
});

describe('HTTP/1.1 proxy', () => {
  it('passes requests but neither Upgrade nor TE', async () => {
    await using origin = await startOrigin();
    await using proxy = await startHttp1Proxy({ target: origin.url });
    const headers = {
      connection: 'Upgrade, HTTP2-Settings',
      upgrade: 'h2c',
      'http2-settings': 'AAMAAABk',
      te: 'trailers',
      'x-mine': '1',
    };
    const request = httpRequest(proxy.url, { headers });
    request.end();
    const [response] = await once(request, 'response');
    const seen = JSON.parse(await text(response)).headers;
    expect(seen).toMatchObject({ 'x-mine': '1' });
    expect(Object.keys(seen)).not.toEqual(expect.arrayContaining(['upgrade']));
    expect(seen.te).toBeUndefined();
  });

  it('does not speak HTTP/2', async () => {
    await using origin = await startOrigin();
    await using proxy = await startHttp1Proxy({ target: origin.url });
    const session = connectHttp2(proxy.url);
    session.on('error', () => undefined);
    const stream = session.request({ ':path': '/' });
    await expect(once(stream, 'response')).rejects.toThrow();
    session.destroy();
  });

  it('passes a stream on as it comes', async () => {
    await using origin = await startOrigin();
    await using proxy = await startHttp1Proxy({ target: origin.url });
    const response = await fetch(`${proxy.url}/stream`);
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    expect((await reader.read()).value).toBe('one');
    await fetch(`${proxy.url}/go`);
    expect((await reader.read()).value).toBe('two');
  });

  it('with buffer holds a stream back until its end', async () => {
    await using origin = await startOrigin();
    await using proxy = await startHttp1Proxy({ target: origin.url, buffer: true });
    let arrived = false;
    const response = fetch(`${proxy.url}/stream`).finally(() => {
      arrived = true;
    });
    await fetch(proxy.url); // a whole round trip later there is still nothing
    expect(arrived).toBe(false);
    await fetch(`${proxy.url}/go`);
    expect(await (await response).text()).toBe('onetwo');
  });
});

describe('proxy in front of the API server', () => {
  let kube: OwnKube;
  beforeAll(async () => {
    kube = await startOwnKube({ audit: 'off' }); // in a hook: the first run of a machine builds it
  });
  afterAll(async () => kube?.[Symbol.asyncDispose]());

  it('counts, fails chosen requests and kills after a number of them', async () => {
    const faults: Record<string, 'reset' | 'lose-response' | { status: number; body: object; headers: Record<string, string> }> =
      {
        throttled: { status: 429, body: { kind: 'Status' }, headers: { 'retry-after': '1' } },
        torn: 'reset',
        lost: 'lose-response',
      };
    const onRequest = ({ path }: { readonly path: string }) => faults[path.split('/').at(-1) ?? ''];
    await using proxy = await startKubeProxy({ target: kube.url, ca: kube.caData, onRequest });
    const { token } = kube.identities.admin;
    const namespace = (name: string, method = 'PUT') =>
      fetch(`${proxy.url}/api/v1/namespaces/${name}`, {
        method,
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', accept: 'application/json' },
        ...(method === 'GET' ? {} : { body: JSON.stringify({ metadata: { name, labels: { touched: 'yes' } } }) }),
      });
    expect((await namespace('default', 'GET')).status).toBe(200);
    const throttled = await namespace('throttled');
    expect([throttled.status, throttled.headers.get('retry-after')]).toEqual([429, '1']);
    expect(await failureOf(namespace('torn'))).toMatch(/ECONNRESET|UND_ERR_SOCKET/);
    await kube.request('POST', '/api/v1/namespaces', { metadata: { name: 'lost' } });
    expect(await failureOf(namespace('lost'))).toMatch(/ECONNRESET|UND_ERR_SOCKET/);
    expect((await kube.request('GET', '/api/v1/namespaces/lost')).body.metadata.labels.touched).toBe('yes');

    expect(proxy.count('GET')).toBe(1);
    expect(proxy.count(undefined, '/namespaces/torn')).toBe(1);
    const killed = proxy.killAfter(2, ({ method }) => method === 'GET');
    for (const _ of [1, 2]) expect((await namespace('default', 'GET')).status).toBe(200);
    await killed;
    expect(await failureOf(namespace('default', 'GET'))).toMatch(/ECONNRESET|UND_ERR_SOCKET/);
    proxy.heal();
    expect((await namespace('default', 'GET')).status).toBe(200);
  });
});
