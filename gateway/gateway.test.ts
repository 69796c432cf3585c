import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import { join } from 'node:path';
import { connect as tlsConnect } from 'node:tls';
import { Client, credentials, type StatusObject } from '@grpc/grpc-js';
import { beforeAll, describe, expect, it } from 'vitest';
import { type Authority, createAuthority } from '../test/certificate-authority.ts';
import {
  curlGateway,
  dialGateway,
  hello,
  say,
  startGateway,
  startHttp1Upstream,
  startHttp2Upstream,
} from '../test/gateway-rig.ts';
import { temporaryDirectory } from '../test/processes.ts';

let authority: Authority;
let ca: string;
/** Directory of a certificate for 127.0.0.1 and one.test, and of one for two.test. */
let one: string;
let two: string;

beforeAll(async () => {
  authority = await createAuthority('gateway authority');
  ca = await readFile(authority.certFile, 'utf8');
  const dir = await temporaryDirectory();
  one = join(dir, 'one');
  two = join(dir, 'two');
  await Promise.all([authority.issue(one, { hosts: ['127.0.0.1', 'one.test'] }), authority.issue(two, { hosts: ['two.test'] })]);
});

const curl = (port: number, path: string, ...options: string[]) => curlGateway(authority.certFile, port, path, ...options);
const dial = (port: number) => dialGateway(port, ca);

describe('a gateway', () => {
  // N-007, N-103
  it('shows the certificate of the name that is asked for, and agrees on HTTP/2 or HTTP/1.1', async () => {
    await using upstream = await startHttp2Upstream(hello);
    const gateway = await startGateway([one, two], [upstream.url]);
    expect(await curl(gateway.port, '/')).toBe('hello 200 2');
    expect(await curl(gateway.port, '/', '--http1.1')).toBe('hello 200 1.1');
    const named = ['--connect-to', `two.test:443:127.0.0.1:${gateway.port}`, '-sS', '--cacert', authority.certFile];
    expect((await say('curl', [...named, 'https://two.test/'])).text).toBe('hello');
    const shown = async (...options: string[]) =>
      (await say('openssl', ['s_client', '-connect', `127.0.0.1:${gateway.port}`, '-alpn', 'h2,http/1.1', ...options])).text;
    const openssl = await shown('-servername', 'two.test', '-CAfile', authority.certFile, '-verify_hostname', 'two.test');
    expect(openssl).toContain('ALPN protocol: h2');
    expect(openssl).toContain('Verify return code: 0 (ok)');
  });

  // N-007, N-101
  it('tells the upstream who asked and how, and lets no client say that for somebody else', async () => {
    const seen: IncomingHttpHeaders[] = [];
    await using upstream = await startHttp2Upstream((stream, headers) => {
      seen.push(headers);
      hello(stream);
    });
    const gateway = await startGateway([one], [upstream.url]);
    const lies = [
      'x-forwarded-for: 10.0.0.1',
      'forwarded: for=10.0.0.1',
      'x-forwarded-proto: http',
      'te: trailers',
      'x-own: kept',
    ];
    for (const version of ['--http1.1', '--http2'])
      await curl(
        gateway.port,
        '/a?b=c',
        version,
        ...lies.flatMap((line) => ['-H', line]),
        '-H',
        'connection: x-once',
        '-H',
        'x-once: 1',
      );
    expect(seen).toHaveLength(2);
    for (const headers of seen) {
      expect(headers).toMatchObject({
        ':path': '/a?b=c',
        ':authority': `127.0.0.1:${gateway.port}`,
        'x-forwarded-for': '127.0.0.1',
        'x-forwarded-host': `127.0.0.1:${gateway.port}`,
        'x-forwarded-proto': 'https',
        'x-own': 'kept',
      });
      expect(headers.forwarded).toBeUndefined();
    }
    expect(seen[0]?.['x-once']).toBeUndefined();
    const line = await gateway.line(({ msg }) => msg === 'request');
    expect(line).toMatchObject({ client: '127.0.0.1', method: 'GET', path: '/a', version: '1.1', status: 200, bytes: 5 });
  });

  it('passes gRPC streams on both ways, with the status at their end, and a refusal that has nothing else', async () => {
    await using upstream = await startHttp2Upstream((stream, headers) => {
      if (headers[':path'] === '/refused') {
        stream.respond(
          { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '7', 'grpc-message': 'no' },
          { endStream: true },
        );
        return;
      }
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '9', 'grpc-message': 'over', 'x-last': 'word' }));
      stream.on('data', (chunk: Buffer) => (headers[':path'] === '/early' ? stream.end(chunk) : stream.write(chunk)));
      stream.on('end', () => stream.end());
    });
    const gateway = await startGateway([one], [upstream.url]);
    const client = new Client(`127.0.0.1:${gateway.port}`, credentials.createSsl(Buffer.from(ca)));
    const call = (path: string) =>
      client.makeBidiStreamRequest<Buffer, Buffer>(
        path,
        (own) => own,
        (own) => own,
      );
    for (const path of ['/echo', '/early']) {
      const stream = call(path);
      stream.on('error', () => undefined);
      const ended = new Promise<StatusObject>((resolve) => stream.once('status', resolve));
      stream.write(Buffer.from('ping'));
      expect((await once(stream, 'data'))[0].toString()).toBe('ping');
      if (path === '/echo') stream.end();
      const status = await ended;
      expect(status).toMatchObject({ code: 9, details: 'over' });
      expect(status.metadata.get('x-last')).toEqual(['word']);
    }
    const refused = call('/refused').on('error', () => undefined);
    refused.resume();
    const status = await new Promise<StatusObject>((resolve) => refused.once('status', resolve));
    expect(status).toMatchObject({ code: 7, details: 'no' });
    client.close();
  });

  it.each(['http1', 'http2'])('sends what it gets at once, and takes no more than the client does (%s)', async (protocol) => {
    let written = 0;
    const chunk = Buffer.alloc(65_536);
    const flood = (sink: NodeJS.WritableStream) => {
      const more = () => {
        while (sink.writable) {
          written += chunk.length;
          if (!sink.write(chunk)) break;
        }
      };
      sink.on('drain', more);
      more();
    };
    await using upstream = await (protocol === 'http1'
      ? startHttp1Upstream(({ url }, response) => {
          response.write('first');
          if (url === '/flood') flood(response);
        })
      : startHttp2Upstream((stream, headers) => {
          stream.respond();
          stream.write('first');
          if (headers[':path'] === '/flood') flood(stream);
        }));
    const gateway = await startGateway([one], [upstream.url], { BROKKR__GATEWAY__UPSTREAM_PROTOCOL: protocol });
    using session = dial(gateway.port);
    const events = session.request({ ':path': '/events' });
    expect(String((await once(events, 'data'))[0])).toBe('first');
    const slow = session.request({ ':path': '/flood' });
    await once(slow, 'response'); // and nothing of the body is read
    let before = -1;
    const stands = () => {
      const same = before === written;
      before = written;
      return same;
    };
    await expect.poll(stands, { interval: 300 }).toBe(true);
    expect(written).toBeLessThan(32 * 1024 * 1024);
    events.close(constants.NGHTTP2_CANCEL);
    slow.close(constants.NGHTTP2_CANCEL);
    const open = async () =>
      /^brokkr_gateway_open_requests\{version="2"\} (\d+)$/m.exec(await (await fetch(`${gateway.adminUrl}/metrics`)).text())?.[1];
    await expect.poll(open).toBe('0');
  });

  it('passes WebSockets on, and the answer of an upstream that wants none', async () => {
    await using upstream = await startHttp1Upstream(
      (_, response) => response.writeHead(426, { 'content-type': 'text/plain' }).end('no websocket here'),
      (server) =>
        server.on('upgrade', ({ headers }, socket) => {
          socket.write(
            `HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-from: ${headers['x-forwarded-for']}\r\n\r\n`,
          );
          socket.pipe(socket);
        }),
    );
    const gateway = await startGateway([one], [upstream.url], { BROKKR__GATEWAY__UPSTREAM_PROTOCOL: 'http1' });
    const socket = tlsConnect({ port: gateway.port, host: '127.0.0.1', ca, ALPNProtocols: ['http/1.1'] });
    let text = '';
    socket.on('data', (data: Buffer) => {
      text += data;
    });
    socket.write('GET /ws HTTP/1.1\r\nhost: one.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nearly');
    await expect.poll(() => text).toMatch(/^HTTP\/1.1 101 .*x-from: 127.0.0.1\r\n\r\nearly$/s);
    socket.write(' and late');
    await expect.poll(() => text).toMatch(/early and late$/);
    socket.destroy();
    expect(await curl(gateway.port, '/', '--http1.1')).toBe('no websocket here 426 1.1');
  });

  it('uses the upstreams that can be reached, and says when none can', async () => {
    const upstream = await startHttp2Upstream(hello);
    const gateway = await startGateway([one], ['http://127.0.0.1:9', upstream.url]);
    for (let count = 0; count < 5; count++) expect(await curl(gateway.port, '/')).toBe('hello 200 2');
    const ready = async () => (await fetch(`${gateway.adminUrl}/readyz`)).status;
    await expect.poll(ready).toBe(200);
    const lost = await gateway.line(({ msg }) => msg === 'upstream is not healthy');
    expect(lost).toMatchObject({ endpoint: '127.0.0.1:9', error: expect.stringContaining('(refused): compare the port') });
    await upstream[Symbol.asyncDispose]();
    await expect.poll(ready).toBe(503);
    expect(await curl(gateway.port, '/')).toMatch(/"no upstream can be reached"\} 503 2$/);
  });

  it('gives up on an answer that does not begin in time', async () => {
    await using upstream = await startHttp2Upstream(() => undefined);
    const gateway = await startGateway([one], [upstream.url], { BROKKR__GATEWAY__RESPONSE_TIMEOUT: '1s' });
    expect(await curl(gateway.port, '/')).toMatch(/"the upstream did not answer in time"\} 504 2$/);
  });

  it('lets a request end when it is told to stop, and takes no other', async () => {
    const asked = Promise.withResolvers<ServerHttp2Stream>();
    await using upstream = await startHttp2Upstream((stream) => asked.resolve(stream));
    const gateway = await startGateway([one], [upstream.url]);
    const answer = curl(gateway.port, '/');
    const stream = await asked.promise;
    const stopped = gateway.stop();
    await expect.poll(() => curl(gateway.port, '/')).toContain('Failed to connect');
    hello(stream);
    expect(await answer).toBe('hello 200 2');
    expect(await stopped).toBe(0);
  });

  it('refuses settings without certificate or upstream before anything opens', async () => {
    await expect(startGateway([], ['http://127.0.0.1:1/path'])).rejects.toThrow(
      /CERTIFICATES is missing.*"http:\/\/127.0.0.1:1\/path" is not of the form/s,
    );
  });
});
