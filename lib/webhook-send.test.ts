import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openBlackhole } from '../test/blackhole.ts';
import { startWebhookSink } from '../test/webhook-sink.ts';
import { createAddressRule } from './address-rule.ts';
import { systemClock } from './clock.ts';
import { createSend, FAILURE_KINDS, type Outcome, type ResolvedAddress, resolveHost, retryAfterMs } from './webhook-send.ts';

const dir = mkdtempSync(join(tmpdir(), 'brokkr-webhook-'));
afterAll(() => rmSync(dir, { recursive: true }));

const LOOPBACK = ['127.0.0.0/8'];
const REQUEST = { headers: { 'content-length': '2' }, body: '{}', timeoutMs: 1000 };
const allowedBy = 'some.setting';

async function send(
  url: string,
  {
    allowed = LOOPBACK,
    resolve = resolveHost,
  }: { allowed?: string[]; resolve?: (host: string) => Promise<readonly ResolvedAddress[]> } = {},
): Promise<Outcome> {
  const sender = createSend({ clock: systemClock, mayReach: createAddressRule(allowed), allowedBy, resolve });
  return await sender({ url, ...REQUEST }, new AbortController().signal);
}

/** A port that nobody listens on. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

describe('sending', () => {
  it.each([...FAILURE_KINDS].filter((kind) => kind !== 'key'))('names %s as the reason', async (kind) => {
    await using firewalled = await openBlackhole();
    const silent = await startWebhookSink(() => undefined);
    const broken = await startWebhookSink((response) => void response.destroy());
    const moved = await startWebhookSink((response) => void response.writeHead(302, { location: '/' }).end());
    const missing = await startWebhookSink((response) => void response.writeHead(404).end());
    const ill = await startWebhookSink((response) => void response.writeHead(500).end());
    const urls: Readonly<Record<string, string>> = {
      dns: 'http://nowhere.invalid/',
      refused: `http://127.0.0.1:${await freePort()}/`,
      unreachable: `http://127.0.0.1:${firewalled.port}/`,
      timeout: silent.url,
      tls: silent.url.replace('http:', 'https:'),
      blocked: 'http://169.254.169.254/latest/meta-data',
      connection: broken.url,
      redirect: moved.url,
      '4xx': missing.url,
      '5xx': ill.url,
    };
    expect(await send(urls[kind] ?? '')).toMatchObject({ kind: 'failed', failure: kind, message: expect.stringMatching(/\w/) });
  });

  it('tells an endpoint that is slow over TLS from one that cannot be reached, and a resolver that is slow', async () => {
    await using firewalled = await openBlackhole();
    const stalled = createServer().listen(0, '127.0.0.1'); // takes connections and never shakes hands
    await once(stalled, 'listening');
    const { port } = stalled.address() as { port: number };
    const texts = [];
    for (const at of [port, firewalled.port]) texts.push(await send(`https://127.0.0.1:${at}/`));
    texts.push(await send('https://slow.example/', { resolve: () => new Promise(() => undefined) }));
    stalled.close();
    expect(texts).toEqual([
      { kind: 'failed', failure: 'timeout', message: 'no answer of the endpoint within 1000 ms' },
      { kind: 'failed', failure: 'unreachable', message: 'no connection to the endpoint within 1000 ms' },
      { kind: 'failed', failure: 'dns', message: 'no address of the host within 1000 ms' },
    ]);
  });

  it('refuses a name that resolves to loopback, and literal addresses however they are spelled', async () => {
    const sink = await startWebhookSink();
    for (const host of ['localhost', '127.0.0.1', '2130706433', '0x7f.1', '[::1]', '[::ffff:127.0.0.1]', '0']) {
      expect(await send(`http://${host}:${sink.port}/`, { allowed: [] }), host).toMatchObject({ failure: 'blocked' });
    }
    expect(sink.received).toEqual([]);
  });

  it('refuses a name of which one address is private', async () => {
    const sink = await startWebhookSink();
    const resolve = () =>
      Promise.resolve([
        { address: '203.0.113.7', family: 4 },
        { address: '127.0.0.1', family: 4 },
      ]);
    expect(await send(`http://mixed.example:${sink.port}/`, { allowed: [], resolve })).toMatchObject({ failure: 'blocked' });
    expect(sink.received).toEqual([]);
  });

  it('connects to the address that was checked: a name that changes meanwhile gains nothing', async () => {
    const allowedSink = await startWebhookSink();
    const answers = ['127.0.0.1', '169.254.169.254'];
    let asked = 0;
    const resolve = () => Promise.resolve([{ address: answers[asked++] ?? '', family: 4 }]);
    const url = `http://rebound.example:${allowedSink.port}/`;
    expect(await send(url, { resolve })).toMatchObject({ kind: 'delivered' });
    expect(asked).toBe(1); // a second question would have been answered with the metadata address
    expect(allowedSink.received[0]?.headers.host).toBe(`rebound.example:${allowedSink.port}`);
    expect(await send(url, { resolve })).toMatchObject({
      failure: 'blocked',
      message: expect.stringMatching(/169\.254\.169\.254.*some\.setting/),
    });
    expect(allowedSink.received).toHaveLength(1);
  });

  it('looks a name up once for attempts that need it at the same time, and anew for the next one', async () => {
    const sink = await startWebhookSink();
    const lookups: PromiseWithResolvers<readonly ResolvedAddress[]>[] = [];
    const resolve = (host: string) => {
      if (host !== 'slow.example') return resolveHost(host);
      const lookup = Promise.withResolvers<readonly ResolvedAddress[]>();
      lookups.push(lookup);
      return lookup.promise;
    };
    const sender = createSend({ clock: systemClock, mayReach: createAddressRule(LOOPBACK), allowedBy, resolve });
    const attempt = () =>
      sender({ url: `http://slow.example:${sink.port}/`, ...REQUEST, timeoutMs: 10_000 }, new AbortController().signal);
    for (let round = 1; round <= 2; round++) {
      const attempts = [attempt(), attempt(), attempt(), attempt()];
      expect(lookups).toHaveLength(round);
      lookups.at(-1)?.resolve([{ address: '127.0.0.1', family: 4 }]);
      for (const outcome of await Promise.all(attempts)) expect(outcome).toMatchObject({ kind: 'delivered' });
    }
  });

  it('follows no redirect, to the metadata service or elsewhere', async () => {
    const other = await startWebhookSink();
    for (const location of ['http://169.254.169.254/latest/meta-data', other.url]) {
      const sink = await startWebhookSink((response) => void response.writeHead(307, { location }).end());
      expect(await send(sink.url)).toMatchObject({ failure: 'redirect', statusCode: 307 });
    }
    expect(other.received).toEqual([]);
  });

  it('checks the certificate of an HTTPS endpoint', async () => {
    const [cert, key] = [join(dir, 'crt'), join(dir, 'key')];
    const subject = ['-subj', '/CN=sink', '-addext', 'subjectAltName=IP:127.0.0.1'];
    const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
    execFileSync('openssl', [...request, ...subject, '-keyout', key, '-out', cert], { stdio: 'ignore' });
    const sink = await startWebhookSink(undefined, { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') });
    expect(await send(sink.url)).toMatchObject({ failure: 'tls', message: expect.stringContaining('self-signed') });
    expect(sink.received).toEqual([]);
  });

  it('reads only the beginning of an answer, and waits for its end no longer than for anything else', async () => {
    const long = await startWebhookSink((response) => void response.writeHead(500).end('x'.repeat(1_000_000)));
    const outcome = await send(long.url);
    expect(outcome.kind === 'failed' && outcome.message.length).toBeLessThan(600);
    const endless = await startWebhookSink((response) => void response.writeHead(200).write('never ends'));
    expect(await send(endless.url)).toEqual({ kind: 'delivered', statusCode: 200 });
    await expect.poll(() => endless.open()).toBe(0);
  });

  it('rejects when it is told to stop', async () => {
    const silent = await startWebhookSink(() => undefined);
    const stop = new AbortController();
    const sender = createSend({ clock: systemClock, mayReach: createAddressRule(LOOPBACK), allowedBy, resolve: resolveHost });
    const sending = sender({ url: silent.url, ...REQUEST }, stop.signal);
    await expect.poll(() => silent.open()).toBe(1);
    stop.abort(new Error('stopping'));
    await expect(sending).rejects.toThrow('stopping');
  });

  it('reads Retry-After as seconds or as a date', () => {
    expect(retryAfterMs(undefined, 0)).toBeUndefined();
    expect(retryAfterMs(' 7 ', 0)).toBe(7000);
    expect(retryAfterMs('Thu, 01 Jan 1970 00:01:00 GMT', 10_000)).toBe(50_000);
    expect(retryAfterMs('Thu, 01 Jan 1970 00:00:05 GMT', 10_000)).toBe(0);
    expect(retryAfterMs('soon', 0)).toBeUndefined();
  });
});
