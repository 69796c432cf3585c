import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer as createHttp1, Agent as HttpAgent, get as httpGet } from 'node:http';
import { type ClientHttp2Session, connect, createServer as createHttp2 } from 'node:http2';
import { Agent as HttpsAgent, get as httpsGet } from 'node:https';
import type { AddressInfo, Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeCertificate } from '../certificates.ts';
import { type Bench, percentile, type Result } from './bench.ts';
import { measure, residentBytes } from './environment.ts';

const REQUESTS = 10_000;
const AT_ONCE = 32;
const WARM_UP = 1000;
const STREAMS = 1000;
/** As long as many answers of the API. */
const ANSWER = Buffer.alloc(1024, 'x');
/** What the charts let a process of ours have (W-081). */
const LIMIT_MIB = 512;

/** Sends one request and resolves when the answer is complete. */
type Send = () => Promise<void>;

/** What a gateway costs: time a request, and memory, against the same requests sent to the upstream itself without TLS. */
export const bench: Bench = {
  name: 'gateway',
  about: `${REQUESTS} requests, ${AT_ONCE} at a time, and ${STREAMS} open streams through the gateway; baseline: the upstream itself`,
  async run(note, signal) {
    const dir = await mkdtemp(join(tmpdir(), 'brokkr-bench-gateway-'));
    const [http1, http2] = await Promise.all([startHttp1(), startHttp2()]);
    try {
      await makeCertificate(dir, 'tls', '127.0.0.1');
      const ca = await readFile(join(dir, 'tls.crt'), 'utf8');
      await using gateway = measure('gateway/main.ts', ['serve'], {
        BROKKR__GATEWAY__LISTEN: '127.0.0.1:0',
        BROKKR__GATEWAY__CERTIFICATES: dir,
        BROKKR__GATEWAY__UPSTREAMS: urlOf(http2),
        BROKKR__GATEWAY__ADMIN_HOST: '127.0.0.1',
        BROKKR__GATEWAY__ADMIN_PORT: '0',
      });
      const { address } = await gateway.line(({ msg }) => msg === 'gateway serves');
      const url = `https://${address}`;
      const results: Result[] = [];
      for (const [version, direct, through] of [
        ['http/2', overHttp2(urlOf(http2)), overHttp2(url, ca)],
        ['http/1.1', overHttp1(urlOf(http1)), overHttp1(url, ca)],
      ] as const) {
        results.push(...compared(version, await times(through.send, signal), await times(direct.send, signal)));
        direct.close();
        through.close();
        note(`${version}: ${(await mebibytes(gateway.pid)).toFixed(0)} MiB`);
      }
      results.push(...(await memory(url, ca, gateway.pid)));
      return results;
    } finally {
      http1.close();
      http2.close();
      await rm(dir, { recursive: true, force: true });
    }
  },
};

async function startHttp1(): Promise<Server> {
  const server = createHttp1((_, response) => response.end(ANSWER)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

/** `/open` is answered and never ends. */
async function startHttp2(): Promise<Server> {
  const server = createHttp2().listen(0, '127.0.0.1');
  server.on('stream', (stream, headers) => {
    stream.on('error', () => undefined);
    stream.respond({ ':status': 200 });
    if (headers[':path'] === '/open') stream.write('open');
    else stream.end(ANSWER);
  });
  await once(server, 'listening');
  return server;
}

function urlOf(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function overHttp2(url: string, ca?: string): { readonly send: Send; readonly close: () => void } {
  const session = connect(url, ca === undefined ? {} : { ca });
  return {
    async send() {
      const stream = session.request({ ':path': '/' });
      stream.resume();
      await once(stream, 'end');
    },
    close: () => session.destroy(),
  };
}

function overHttp1(url: string, ca?: string): { readonly send: Send; readonly close: () => void } {
  const agent = ca === undefined ? new HttpAgent({ keepAlive: true }) : new HttpsAgent({ keepAlive: true, ca });
  const get = ca === undefined ? httpGet : httpsGet;
  return {
    async send() {
      const [response] = await once(get(url, { agent }), 'response');
      response.resume();
      await once(response, 'end');
    },
    close: () => agent.destroy(),
  };
}

/** Milliseconds of each request, with `AT_ONCE` under way. */
async function times(send: Send, signal: AbortSignal): Promise<readonly number[]> {
  const taken: number[] = [];
  let left = REQUESTS + WARM_UP;
  const worker = async () => {
    while (left-- > 0) {
      signal.throwIfAborted();
      const start = performance.now();
      await send();
      taken.push(performance.now() - start);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return taken.slice(WARM_UP);
}

function compared(version: string, through: readonly number[], direct: readonly number[]): Result[] {
  return [0.5, 0.99].map((fraction) => {
    const [value, baseline] = [percentile(through, fraction), percentile(direct, fraction)];
    const metric = `${version}, p${fraction * 100} of a request`;
    return { metric, value, unit: 'ms', baseline, ratio: value / baseline, budget: 'none: with TLS and a second hop' };
  });
}

/** What the streams of one client cost, and what the gateway has in all after the load. */
async function memory(url: string, ca: string, pid: number): Promise<Result[]> {
  const before = await mebibytes(pid);
  const session: ClientHttp2Session = connect(url, { ca });
  await Promise.all(
    Array.from({ length: STREAMS }, async () => {
      const stream = session.request({ ':path': '/open' }).on('error', () => undefined);
      await once(stream, 'data');
    }),
  );
  const after = await mebibytes(pid);
  session.destroy();
  const budget = `≤ ${LIMIT_MIB} MiB`;
  return [
    { metric: `memory of ${STREAMS} open streams`, value: after - before, unit: 'MiB', budget: 'none' },
    { metric: 'memory with them, after the load', value: after, unit: 'MiB', budget, met: after <= LIMIT_MIB },
  ];
}

async function mebibytes(pid: number): Promise<number> {
  return (await residentBytes(pid)) / 2 ** 20;
}
