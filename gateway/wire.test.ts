import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Authority } from '../test/certificate-authority.ts';
import {
  certifyLoopback,
  curlGateway,
  dialGateway,
  startGateway,
  startHttp1Upstream,
  startHttp2Upstream,
} from '../test/gateway-rig.ts';

let authority: Authority;
let ca: string;
/** Directory of a certificate for 127.0.0.1. */
let one: string;

beforeAll(async () => {
  ({ authority, ca, directory: one } = await certifyLoopback());
});

/** An upstream that answers `ok` to whatever it gets, and what that was, connection by connection. */
async function startRecorder(): Promise<{ readonly url: string; readonly seen: () => string } & Disposable> {
  const sockets = new Set<Socket>();
  const seen: string[] = [];
  const server = createServer((socket) => {
    const index = seen.push('') - 1;
    sockets.add(socket.on('error', () => undefined));
    socket.on('data', (data) => {
      const text = String(data);
      if (text.startsWith('GET /readyz')) socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n');
      else seen[index] += text;
      if (seen[index]?.endsWith('\r\n\r\n')) socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen: () => seen.join(''),
    [Symbol.dispose]() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

const HTTP1 = { BROKKR__GATEWAY__UPSTREAM_PROTOCOL: 'http1' };

/** What comes back for these bytes, up to the end of a first answer or of the connection. */
async function send(port: number, bytes: string): Promise<string> {
  const socket = tlsConnect({ port, host: '127.0.0.1', ca, ALPNProtocols: ['http/1.1'] });
  socket.on('error', () => undefined);
  let text = '';
  socket.on('data', (data: Buffer) => {
    text += data;
  });
  socket.write(bytes);
  const whole = () => socket.destroyed || /\r\n\r\n.*(ok|\})$/s.test(text);
  await expect.poll(whole).toBe(true);
  socket.destroy();
  return text;
}

describe('a request that two servers could read in two ways', () => {
  it.each(['GET', 'DELETE', 'OPTIONS', 'POST'])('keeps the body of a %s in its frame', async (method) => {
    using upstream = await startRecorder();
    const gateway = await startGateway([one], [upstream.url], HTTP1);
    using session = dialGateway(gateway.port, ca);
    const stream = session.request({ ':method': method, ':path': '/' }, { endStream: false });
    stream.end('GET /other HTTP/1.1\r\nhost: x\r\n\r\n');
    await expect.poll(upstream.seen).toMatch(/\r\n0\r\n\r\n$/);
    expect(upstream.seen().toLowerCase()).toContain('\r\ntransfer-encoding: chunked\r\n');
    expect(upstream.seen()).toContain('\r\n\r\n20\r\nGET /other');
  });

  it('keeps a body in its frame when the client has its length dropped', async () => {
    using upstream = await startRecorder();
    const gateway = await startGateway([one], [upstream.url], HTTP1);
    const head = 'GET / HTTP/1.1\r\nhost: x\r\nconnection: content-length\r\ncontent-length: 3\r\n\r\n';
    expect(await send(gateway.port, `${head}abc`)).toMatch(/^HTTP\/1.1 200 /);
    expect(upstream.seen()).toMatch(/\r\n\r\n3\r\nabc\r\n0\r\n\r\n$/);
  });

  it.each([
    ['length and coding', 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked', 400, ''],
    ['two lengths', 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ncontent-length: 5', 400, ''],
    ['a folded header', 'GET / HTTP/1.1\r\nhost: x\r\nx-a: 1\r\n 2', 400, ''],
    ['a space before the colon', 'GET / HTTP/1.1\r\nhost: x\r\nx-a : 1', 400, ''],
    ['no carriage return', 'GET / HTTP/1.1\nhost: x', 400, ''],
    ['no host', 'GET / HTTP/1.1\r\nx-a: 1', 400, ''],
    ['two hosts', 'GET / HTTP/1.1\r\nhost: x\r\nhost: y', 400, 'there has to be one host'],
    ['no name as host', 'GET / HTTP/1.1\r\nhost: x"<', 400, 'there has to be one host'],
    ['another coding', 'POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked', 501, 'transfer coding'],
    ['no URL of ours', 'GET ftp://x/ HTTP/1.1\r\nhost: x', 400, 'does not begin with /'],
  ])('is refused and goes nowhere: %s', async (_, head, status, message) => {
    using upstream = await startRecorder();
    const gateway = await startGateway([one], [upstream.url], HTTP1);
    const answer = await send(gateway.port, `${head}\r\n\r\n`);
    expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(answer).toContain(message);
    expect(upstream.seen()).toBe('');
  });

  it('goes to the host of the URL, not to that of the header, when there is a URL', async () => {
    using upstream = await startRecorder();
    const gateway = await startGateway([one], [upstream.url], HTTP1);
    await send(gateway.port, 'GET http://other.test?x=1 HTTP/1.1\r\nhost: x\r\n\r\n');
    expect(upstream.seen()).toMatch(/^GET \/\?x=1 HTTP\/1.1\r\n(.*\r\n)*host: other.test\r\n/);
  });

  it('is no tunnel', async () => {
    using upstream = await startRecorder();
    const gateway = await startGateway([one], [upstream.url]);
    using session = dialGateway(gateway.port, ca);
    const stream = session.request({ ':method': 'CONNECT', ':authority': 'other.test:22' });
    const [headers] = await once(stream, 'response');
    expect(headers[':status']).toBe(501);
  });
});

/** The head of a request to become a WebSocket. */
const WEBSOCKET = 'host: x\r\nconnection: upgrade\r\nupgrade: websocket';

describe('a WebSocket', () => {
  it('is opened by a GET without a body and by nothing else', async () => {
    using upstream = await startRecorder();
    const gateway = await startGateway([one], [upstream.url], HTTP1);
    await send(gateway.port, `POST / HTTP/1.1\r\n${WEBSOCKET}\r\ncontent-length: 2\r\n\r\n\r\n`);
    expect(upstream.seen()).toMatch(/^POST .*\r\n\r\n\r\n$/s);
    expect(upstream.seen()).not.toContain('upgrade');
  });

  it('is refused with the reason when no upstream can be reached, or none answers in time', async () => {
    const silent = createServer((socket) => socket.on('error', () => undefined));
    silent.listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const silentUrl = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    for (const [url, status, message] of [
      ['http://127.0.0.1:9', 503, 'no upstream can be reached'],
      [silentUrl, 504, 'the upstream did not answer in time'],
    ] as const) {
      const gateway = await startGateway([one], [url], { BROKKR__GATEWAY__RESPONSE_TIMEOUT: '1s' });
      const answer = await send(gateway.port, `GET / HTTP/1.1\r\n${WEBSOCKET}\r\n\r\n`);
      expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
      expect(answer).toContain(message);
      const metrics = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
      expect(metrics).toContain('brokkr_gateway_requests_total{version="1.1",status="5xx"} 1');
      expect(metrics).toContain('brokkr_gateway_open_requests{version="1.1"} 0');
    }
    silent.close();
  });
});

describe('a gateway', () => {
  it('tells a client of HTTP/2 to go on that waits with its body', async () => {
    await using upstream = await startHttp2Upstream((stream) => stream.respond() ?? stream.pipe(stream));
    const gateway = await startGateway([one], [upstream.url]);
    using session = dialGateway(gateway.port, ca);
    const stream = session.request({ ':path': '/', ':method': 'POST', expect: '100-continue' });
    await once(stream, 'continue');
    stream.end('body');
    expect(String((await once(stream, 'data'))[0])).toBe('body');
  });

  it('ends with the last answer when it is told to stop, not with the patience of a client that stays', async () => {
    const asked = Promise.withResolvers<ServerResponse>();
    await using upstream = await startHttp1Upstream((_, response) => asked.resolve(response));
    const gateway = await startGateway([one], [upstream.url], HTTP1);
    const socket = tlsConnect({ port: gateway.port, host: '127.0.0.1', ca, ALPNProtocols: ['http/1.1'] });
    socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
    const response = await asked.promise;
    const stopped = gateway.stop();
    await expect.poll(() => curlGateway(authority.certFile, gateway.port, '/')).toContain('Failed to connect');
    const answeredAt = performance.now();
    response.end('ok');
    socket.resume();
    await Promise.all([stopped, once(socket, 'close')]);
    expect(performance.now() - answeredAt).toBeLessThan(10_000); // of the 20 s that requests may go on
  });
});
