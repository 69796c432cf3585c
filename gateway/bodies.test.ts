import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { constants, type ServerHttp2Stream } from 'node:http2';
import { join } from 'node:path';
import { connect as tlsConnect } from 'node:tls';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Authority } from '../test/certificate-authority.ts';
import {
  certifyLoopback,
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
/** Directory of a certificate for 127.0.0.1. */
let one: string;

beforeAll(async () => {
  ({ authority, ca, directory: one } = await certifyLoopback());
});

const curl = (port: number, path: string, ...options: string[]) => curlGateway(authority.certFile, port, path, ...options);
const dial = (port: number) => dialGateway(port, ca);

describe('a body on its way through a gateway', () => {
  it.each(['http1', 'http2'])(
    'breaks an answer off where the upstream does, so that nobody takes it for whole (%s)',
    async (protocol) => {
      await using upstream = await (protocol === 'http1'
        ? startHttp1Upstream((_, response) => response.write('part', () => response.destroy()))
        : startHttp2Upstream((stream) => {
            stream.respond();
            stream.write('part', () => stream.session?.destroy());
          }));
      const gateway = await startGateway([one], [upstream.url], { BROKKR__GATEWAY__UPSTREAM_PROTOCOL: protocol });
      const url = `https://127.0.0.1:${gateway.port}/`;
      for (const version of ['--http1.1', '--http2'])
        expect((await say('curl', ['-sS', '--cacert', authority.certFile, version, url])).code).not.toBe(0);
      const line = await gateway.line(({ msg }) => msg === 'request');
      expect(line).toMatchObject({ status: 200, bytes: 4, error: expect.any(String) });
    },
  );

  it('passes a large upload on whole, and an answer that comes before the upload has ended', async () => {
    const sizes: number[] = [];
    await using upstream = await startHttp2Upstream((stream, headers) => {
      if (headers[':path'] === '/early') {
        stream.respond({ ':status': 413 });
        stream.end('too much');
        stream.resume();
        return;
      }
      let size = 0;
      stream.on('data', (chunk: Buffer) => {
        size += chunk.length;
      });
      stream.on('end', () => {
        sizes.push(size);
        hello(stream);
      });
    });
    const gateway = await startGateway([one], [upstream.url]);
    const file = join(await temporaryDirectory(), 'upload');
    await writeFile(file, Buffer.alloc(30_000_000));
    for (const version of ['--http1.1', '--http2']) {
      expect(await curl(gateway.port, '/', version, '--data-binary', `@${file}`)).toMatch(/^hello 200/);
      expect(await curl(gateway.port, '/early', version, '--data-binary', `@${file}`)).toMatch(/too much 413/);
    }
    expect(sizes).toEqual([30_000_000, 30_000_000]);
  });

  it.each(['http1', 'http2'])(
    'breaks an upload off where the client does, so that the upstream does not take it for whole (%s)',
    async (version) => {
      const seen = Promise.withResolvers<ServerHttp2Stream>();
      const ends: (number | undefined)[] = [];
      await using upstream = await startHttp2Upstream((stream) => {
        stream.once('data', () => seen.resolve(stream));
        stream.once('end', () => ends.push(stream.rstCode));
      });
      const gateway = await startGateway([one], [upstream.url]);
      using session = dial(gateway.port);
      if (version === 'http2') {
        const stop = new AbortController();
        const upload = session.request({ ':path': '/', ':method': 'POST' }, { signal: stop.signal }).on('error', () => undefined);
        upload.write('part');
        await seen.promise;
        stop.abort(); // a reset; to close the stream would end the body first
      } else {
        const socket = tlsConnect({ port: gateway.port, host: '127.0.0.1', ca, ALPNProtocols: ['http/1.1'] });
        socket.write('POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n');
        await seen.promise;
        socket.destroy();
      }
      const stream = await seen.promise;
      if (!stream.closed) await once(stream, 'close');
      expect(ends).toEqual([constants.NGHTTP2_CANCEL]);
    },
  );

  // W-081
  it('carries more requests at once than one connection to the upstream takes, in the memory that the charts give', async () => {
    const held: ServerHttp2Stream[] = [];
    const sessions = new Set<unknown>();
    await using upstream = await startHttp2Upstream((stream) => {
      sessions.add(stream.session);
      if (held.push(stream) === 1200) for (const each of held) hello(each);
    });
    const gateway = await startGateway([one], [upstream.url]);
    using first = dial(gateway.port);
    using second = dial(gateway.port);
    const statuses = Array.from({ length: 1200 }, async (_, index) => {
      const stream = (index % 2 === 0 ? first : second).request({ ':path': '/' });
      const [headers] = await once(stream, 'response');
      stream.resume();
      return headers[':status'];
    });
    expect(new Set(await Promise.all(statuses))).toEqual(new Set([200]));
    const metrics = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
    const bytes = Number(/^process_resident_memory_bytes (\d+)$/m.exec(metrics)?.[1]);
    expect(bytes).toBeLessThan(512 * 1024 * 1024);
    expect(sessions.size).toBe(3);
  });
});
