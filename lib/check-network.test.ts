import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, createServer as createTcpServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../hack/kube/ports.ts';
import { openBlackhole } from '../test/blackhole.ts';
import { makeCertificate } from '../test/certificates.ts';
import { checkHttp, checkTcp } from './check-network.ts';
import { systemClock } from './clock.ts';

const { signal } = new AbortController();
const deps = { clock: systemClock, timeoutMs: 5_000 };
const closing: (() => unknown)[] = [];
let dir = '';

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'brokkr-check-'));
  await makeCertificate(dir, 'ca', 'ca.test');
  await makeCertificate(dir, 'good', '127.0.0.1', { ca: 'ca' });
  await makeCertificate(dir, 'elsewhere', 'broker.example.com', { ca: 'ca' });
  await makeCertificate(dir, 'expired', '127.0.0.1', { ca: 'ca', valid: ['20200101000000Z', '20200201000000Z'] });
  await makeCertificate(dir, 'early', '127.0.0.1', { ca: 'ca', valid: ['20700101000000Z', '20700201000000Z'] });
});
afterAll(async () => {
  for (const close of closing) await close();
  await rm(dir, { recursive: true });
});

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closing.push(() => server.close());
  return (server.address() as AddressInfo).port;
}
const serve = async (answer: RequestListener) => `http://127.0.0.1:${await listen(createServer(answer))}/`;
async function serveTls(name: string): Promise<string> {
  const [key, cert] = [await readFile(join(dir, `${name}.key`)), await readFile(join(dir, `${name}.crt`))];
  return `https://127.0.0.1:${await listen(createTlsServer({ key, cert }, (_, response) => response.end('hello')))}/`;
}
const http = (url: string, caFile?: string) => checkHttp(new URL(url), { caFile: caFile && join(dir, caFile) }, deps, signal);

describe('a check of a TCP port', () => {
  it('is ok when somebody listens', async () => {
    const port = await listen(createTcpServer((socket) => socket.destroy()));
    expect(await checkTcp({ host: '127.0.0.1', port }, deps, signal)).toMatchObject({ result: 'ok', steps: [{ ok: true }] });
  });

  it('tells a closed port', async () => {
    const report = await checkTcp({ host: '127.0.0.1', port: await freePort() }, deps, signal);
    expect(report).toMatchObject({ result: 'refused', next: expect.stringContaining('compare the port') });
  });

  it('tells a port that drops what comes, after the time it has', async () => {
    await using hole = await openBlackhole();
    const report = await checkTcp({ host: '127.0.0.1', port: hole.port }, { ...deps, timeoutMs: 300 }, signal);
    expect(report).toMatchObject({ result: 'timeout', reason: 'no answer within 300 ms' });
    expect(report.next).toContain('NetworkPolicy');
  });

  it('tells a name that does not exist', async () => {
    const report = await checkTcp({ host: 'no-such-host.invalid', port: 80 }, deps, signal);
    expect(report.result).toMatch(/^(nxdomain|dns)$/); // what it is depends on the machine having a DNS server
    expect(report.steps).toMatchObject([{ tried: 'resolve no-such-host.invalid', ok: false }]);
  });

  it('tries every address of a name', async () => {
    const port = await listen(createTcpServer((socket) => socket.destroy())); // not on ::1
    expect(await checkTcp({ host: 'localhost', port }, deps, signal)).toMatchObject({ result: 'ok' });
  });
});

describe('a check of a URL', () => {
  it('shows status and text of the answer', async () => {
    const report = await http(await serve((_, response) => response.end('ok\n')));
    expect(report).toMatchObject({
      result: 'ok',
      steps: [{ tried: expect.stringMatching(/^connect/) }, { said: 'HTTP 200: ok' }],
    });
  });

  it.each([
    [401, 'authentication'],
    [403, 'forbidden'],
    [503, 'status'],
  ])('takes HTTP %i as %s', async (status, result) => {
    const report = await http(await serve((_, response) => response.writeHead(status).end('not\nnow')));
    expect(report).toMatchObject({ result, reason: `HTTP ${status}: not now` });
  });

  it('tells a connection that is cut', async () => {
    const port = await listen(createTcpServer((socket) => socket.once('data', () => socket.resetAndDestroy())));
    expect(await http(`http://127.0.0.1:${port}/`)).toMatchObject({ result: 'reset' });
  });

  it('tells something that speaks another protocol', async () => {
    const port = await listen(createTcpServer((socket) => socket.end('SSH-2.0-x\r\n')));
    expect(await http(`http://127.0.0.1:${port}/`)).toMatchObject({ result: 'protocol' });
  });

  it('tells a server that never answers', async () => {
    const port = await listen(createTcpServer((socket) => void closing.unshift(() => socket.destroy())));
    const report = await checkHttp(
      new URL(`http://127.0.0.1:${port}/`),
      { caFile: undefined },
      { ...deps, timeoutMs: 200 },
      signal,
    );
    expect(report).toMatchObject({ result: 'timeout', steps: [{ ok: true }, { ok: false, tried: 'GET /' }] });
  });
});

describe('a check of a URL with TLS', () => {
  it('shows whose certificate it is, and until when', async () => {
    const { result, steps } = await http(await serveTls('good'), 'ca.crt');
    expect(result).toBe('ok');
    expect(steps[1]?.said).toMatch(/^TLSv1\.3, for IP Address:127\.0\.0\.1, signed by ca, valid from .* to /);
  });

  it.each([
    ['good', undefined, /authority that is not trusted here/, /set ca_file/],
    ['elsewhere', 'ca.crt', /for another host .*broker\.example\.com/, /use a name that is in the certificate/],
    ['expired', 'ca.crt', /has expired .*2020/, /renew the certificate/],
    ['early', 'ca.crt', /is not valid yet .*2070/, /clocks/],
  ])('refuses %s with trust in %s and says why', async (name, caFile, reason, next) => {
    expect(await http(await serveTls(name), caFile)).toMatchObject({
      ...{ result: 'certificate', reason: expect.stringMatching(reason), next: expect.stringMatching(next) },
    });
  });

  it('tells a file of authorities that is not there', async () => {
    const report = await http(await serveTls('good'), 'absent.crt');
    expect(report).toMatchObject({ result: 'configuration', reason: expect.stringContaining('absent.crt') });
  });

  it('tells a port without TLS', async () => {
    const url = await serve((_, response) => response.end());
    expect(await http(url.replace('http:', 'https:'))).toMatchObject({ result: 'tls', next: expect.stringContaining('https') });
  });

  it('tells a port with TLS that is asked without', async () => {
    const url = await serveTls('good');
    expect((await http(url.replace('https:', 'http:'))).result).toMatch(/^(reset|protocol)$/);
  });
});
