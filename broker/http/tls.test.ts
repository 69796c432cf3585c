import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type ClientHttp2Session, connect as http2Connect } from 'node:http2';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as tlsConnect } from 'node:tls';
import { promisify } from 'node:util';
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLog } from '#lib/log.ts';
import { StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { STACK_ID, startTestServer, TEST_KEY } from '../../test/broker-http.ts';

const run = promisify(execFile);
let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'brokkr-tls-'));
  await Promise.all(['one', 'two'].map((name) => certificate(name)));
});
afterAll(() => rm(dir, { recursive: true }));

/** Makes `<name>.crt` and `<name>.key` in `dir`. */
async function certificate(name: string): Promise<void> {
  const request = [
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-days',
    '2',
    '-subj',
    `/CN=${name}`,
  ];
  await run('openssl', [
    ...request,
    '-addext',
    'subjectAltName=IP:127.0.0.1',
    '-keyout',
    join(dir, `${name}.key`),
    '-out',
    join(dir, `${name}.crt`),
  ]);
}

/** A server on a copy of the first certificate, and how to replace that copy. */
async function startTls(log = createLog('test', { level: 'fatal' })) {
  const files = {
    certFile: join(dir, `used-${crypto.randomUUID()}.crt`),
    keyFile: join(dir, `used-${crypto.randomUUID()}.key`),
    reloadMs: 50,
  };
  const use = async (name: string) => {
    await copyFile(join(dir, `${name}.key`), files.keyFile);
    await copyFile(join(dir, `${name}.crt`), files.certFile);
  };
  await use('one');
  return { port: await startTestServer({ log }, { tls: files }), files, use };
}

async function curl(address: string, path: string, ...options: string[]): Promise<string> {
  const { stdout } = await run('curl', [
    '-sSk',
    '-w',
    ' %{http_code} %{http_version}',
    '-H',
    `authorization: ${TEST_KEY}`,
    ...options,
    `${address}${path}`,
  ]);
  return stdout;
}

/** The name in the certificate that a new connection is shown. */
function shown(address: string): Promise<string> {
  const socket = tlsConnect({ host: '127.0.0.1', port: Number(address.split(':')[1]), rejectUnauthorized: false });
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('secureConnect', () => {
      resolve(String(socket.getPeerCertificate().subject.CN));
      socket.destroy();
    });
  });
}

function status(session: ClientHttp2Session): Promise<number | undefined> {
  const stream = session.request({ ':path': '/healthz' });
  stream.resume();
  return new Promise((resolve, reject) => {
    stream.once('error', reject);
    stream.once('response', (headers) => resolve(headers[':status']));
  });
}

describe('the port on TLS', () => {
  it('serves HTTP/2, HTTP/1.1 and clients without ALPN', async () => {
    const { port } = await startTls();
    const url = `https://${port.address}`;
    expect(await curl(url, '/healthz')).toBe('OK 200 2');
    expect(await curl(url, '/healthz', '--http1.1')).toBe('OK 200 1.1');
    expect(await curl(url, '/healthz', '--no-alpn')).toBe('OK 200 1.1');
    expect(await curl(url, '/api/v1/stacks', '--http1.1')).toMatch(/^\[.*\] 200 1.1$/);
    const json = ['-H', 'content-type: application/json', '-d', JSON.stringify({ id: STACK_ID })];
    expect(await curl(url, '/brokkr.v1.StackService/GetStack', ...json)).toMatch(/"name":"hello".* 200 2$/);
    await port.stop();
  });

  it('serves gRPC', async () => {
    const { port } = await startTls();
    const transport = createGrpcTransport({ baseUrl: `https://${port.address}`, nodeOptions: { rejectUnauthorized: false } });
    const answer = await createClient(StackService, transport).getStack(
      { id: STACK_ID },
      { headers: { authorization: TEST_KEY } },
    );
    expect(answer.stack?.generation).toBe(7n);
    await port.stop();
  });

  it('tells a plain client to use TLS', async () => {
    const { port } = await startTls();
    expect(await curl(`http://${port.address}`, '/healthz')).toBe('this port speaks TLS, use https://\n 400 1.1');
    await port.stop();
  });

  it('cuts off a client that does not shake hands', async () => {
    const { files } = await startTls();
    await using port = await startTestServer({}, { tls: files, limits: { headerTimeoutMs: 300 } });
    const socket = connect({ host: '127.0.0.1', port: Number(port.address.split(':')[1]) });
    await new Promise((resolve) => socket.once('close', resolve).on('error', () => undefined));
  });

  it('takes a new certificate into use without dropping connections', async () => {
    const { port, use } = await startTls();
    const old = http2Connect(`https://${port.address}`, { rejectUnauthorized: false });
    expect(await status(old)).toBe(200);
    expect(await shown(port.address)).toBe('one');
    await use('two');
    await expect.poll(() => shown(port.address)).toBe('two');
    expect(await status(old)).toBe(200);
    expect(await curl(`https://${port.address}`, '/healthz')).toBe('OK 200 2');
    old.close();
    await port.stop();
  });

  it('keeps the old certificate when the new one is not usable, and says so once', async () => {
    const lines: string[] = [];
    const log = createLog('test', { level: 'fatal' });
    log.error = ((fields: { error: string }) => void lines.push(fields.error)) as typeof log.error;
    const { port, files, use } = await startTls(log);
    await copyFile(join(dir, 'two.crt'), files.certFile); // and not its key
    await expect.poll(() => lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^the key in .* does not belong to the certificate in /);
    expect(await shown(port.address)).toBe('one');
    await writeFile(files.certFile, 'garbage');
    await expect.poll(() => lines.at(-1)).toMatch(/has no certificate in PEM/);
    await use('two');
    await expect.poll(() => shown(port.address)).toBe('two');
    expect(lines).toHaveLength(2);
    await port.stop();
  });

  it('does not start with files that make no pair', async () => {
    const files = { certFile: join(dir, 'one.crt'), keyFile: join(dir, 'two.key') };
    await expect(startTestServer({}, { tls: files })).rejects.toThrow(/does not belong to the certificate/);
    await expect(startTestServer({}, { tls: { ...files, certFile: join(dir, 'none') } })).rejects.toThrow(/none cannot be read/);
  });
});
