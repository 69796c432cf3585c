import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { constants, createServer, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Authority } from '../test/certificate-authority.ts';
import {
  certifyLoopback,
  curlGateway,
  hello,
  startGateway,
  startHttp1Upstream,
  startHttp2Upstream,
} from '../test/gateway-rig.ts';

let authority: Authority;
/** Directory of a certificate for 127.0.0.1. */
let one: string;

beforeAll(async () => {
  ({ authority, directory: one } = await certifyLoopback());
});

const curl = (port: number, ...options: string[]) => curlGateway(authority.certFile, port, '/', ...options);
const HTTP1 = { BROKKR__GATEWAY__UPSTREAM_PROTOCOL: 'http1' };

/** Ways in which an upstream says that it has processed nothing. */
const REFUSALS: Readonly<Record<string, (stream: ServerHttp2Stream) => void>> = {
  'that the upstream refused': (stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM),
  'that came after the last one the upstream takes': (stream) =>
    stream.session?.goaway(constants.NGHTTP2_NO_ERROR, Number(stream.id) - 2),
};

describe('a request that nobody has processed', () => {
  it.each(Object.keys(REFUSALS))('is sent again when it has no body: one %s', async (what) => {
    let asked = 0;
    await using upstream = await startHttp2Upstream((stream) => (asked++ % 2 === 0 ? REFUSALS[what]?.(stream) : hello(stream)));
    const gateway = await startGateway([one], [upstream.url]);
    expect(await curl(gateway.port)).toBe('hello 200 2');
    expect(asked).toBe(2);
    // half of a body may have gone
    expect(await curl(gateway.port, '-d', 'body')).toMatch(/the upstream broke off"\} 502 2$/);
    expect(asked).toBe(3);
  });

  it('is not sent for ever', async () => {
    let asked = 0;
    await using upstream = await startHttp2Upstream((stream) => {
      asked++;
      stream.close(constants.NGHTTP2_REFUSED_STREAM);
    });
    const gateway = await startGateway([one], [upstream.url]);
    expect(await curl(gateway.port)).toMatch(/ 502 2$/);
    expect(asked).toBe(3);
  });

  it('is sent again when an idle connection closes under it, if that changes nothing', async () => {
    const used: number[] = [];
    const serve = ({ socket, method }: IncomingMessage, response: ServerResponse) => {
      // the second request of a connection meets its end
      if (used.includes(socket.remotePort ?? 0)) socket.destroy();
      else response.end(method);
      used.push(socket.remotePort ?? 0);
    };
    await using upstream = await startHttp1Upstream(serve);
    const gateway = await startGateway([one], [upstream.url], { ...HTTP1, BROKKR__GATEWAY__HEALTH_INTERVAL: '1h' });
    for (let count = 0; count < 4; count++) expect(await curl(gateway.port)).toBe('GET 200 2');
    expect(used.length).toBeGreaterThan(new Set(used).size);
    expect(await curl(gateway.port, '-X', 'DELETE')).toMatch(/ 502 2$/);
  });

  it('makes no connections without end to an upstream that takes no requests', async () => {
    let connections = 0;
    const server = createServer({ settings: { maxConcurrentStreams: 0 } }).on('session', () => connections++);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const gateway = await startGateway([one], [`http://127.0.0.1:${(server.address() as AddressInfo).port}`], {
      BROKKR__GATEWAY__HEALTH_INTERVAL: '1h',
    });
    expect(await curl(gateway.port)).toMatch(/"no upstream can be reached"\} 503 2$/);
    expect(connections).toBe(2);
    server.close();
  });
});
