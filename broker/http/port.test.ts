import { execFile } from 'node:child_process';
import { connect as http2Connect } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { STACK_ID, startTestServer, TEST_KEY } from '../../test/broker-http.ts';

const run = promisify(execFile);

/** Body and status of a request made by curl. */
async function curl(
  address: string,
  path: string,
  ...options: string[]
): Promise<{ status: number; version: string; body: string }> {
  const write = ['-w', '\n%{http_code} %{http_version}', '-sS', '--max-time', '20', '-H', `authorization: ${TEST_KEY}`];
  const { stdout } = await run('curl', [...write, ...options, `http://${address}${path}`]).catch((error: { stderr: string }) => {
    throw new Error(error.stderr); // the message has the whole command line
  });
  const [status = '', version = ''] = (stdout.split('\n').at(-1) ?? '').split(' ');
  return { status: Number(status), version, body: stdout.slice(0, stdout.lastIndexOf('\n')) };
}

/** Everything the server says on a raw connection until it closes it. */
async function talk(address: string, speak: (socket: Socket) => void): Promise<string> {
  const at = address.lastIndexOf(':');
  const socket = connect({ host: address.slice(0, at), port: Number(address.slice(at + 1)) });
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => undefined);
  socket.on('connect', () => speak(socket));
  await new Promise((resolve) => socket.once('close', resolve));
  return Buffer.concat(chunks).toString('latin1');
}

/** Writes one byte every few milliseconds until all are written or the server hangs up. */
async function trickle(socket: Socket, bytes: Buffer, everyMs: number): Promise<void> {
  for (const byte of bytes) {
    if (socket.destroyed) return;
    socket.write(Buffer.of(byte));
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

describe('the one port', () => {
  it.each([
    ['HTTP/1.1', ['--http1.1'], '1.1'],
    ['HTTP/2 with prior knowledge', ['--http2-prior-knowledge'], '2'],
    ['HTTP/1.1 with an offer to upgrade', ['--http2'], '1.1'],
  ])('serves REST, Connect JSON and plain paths over %s', async (_name, options, version) => {
    await using port = await startTestServer();
    expect(await curl(port.address, '/api/v1/stacks', ...options)).toMatchObject({ status: 200, version });
    const json = ['-H', 'content-type: application/json', '-d', JSON.stringify({ id: STACK_ID })];
    const rpc = await curl(port.address, '/brokkr.v1.StackService/GetStack', ...options, ...json);
    expect(rpc).toMatchObject({ status: 200, version });
    expect(JSON.parse(rpc.body)).toMatchObject({ stack: { name: 'hello', generation: '7' } });
    expect(await curl(port.address, '/healthz', ...options)).toEqual({ status: 200, version, body: 'OK' });
    expect(await curl(port.address, '/', ...options)).toMatchObject({ status: 404, version });
  });

  it('understands a client that sends one byte at a time', async () => {
    await using port = await startTestServer();
    const request = `GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`;
    expect(await talk(port.address, (socket) => void trickle(socket, Buffer.from(request), 2))).toMatch(
      /^HTTP\/1.1 200 OK.*OK$/s,
    );
    const session = http2Connect(`http://${port.address}`, {
      createConnection: () => {
        const at = port.address.lastIndexOf(':');
        const socket = connect({ host: '127.0.0.1', port: Number(port.address.slice(at + 1)), noDelay: true });
        const write = socket.write.bind(socket);
        socket.write = ((chunk: Buffer) => write(chunk.subarray(0, 1)) && write(chunk.subarray(1))) as typeof socket.write;
        return socket;
      },
    });
    const stream = session.request({ ':path': '/healthz' });
    const status = await new Promise((resolve) => stream.once('response', (headers) => resolve(headers[':status'])));
    expect(status).toBe(200);
    session.destroy();
  });

  it.each([
    ['garbage', Buffer.from([0, 1, 2, 3, 255, 254]), /^HTTP\/1.1 400 .*this is not an HTTP request/s],
    ['a TLS client on the plaintext port', Buffer.from('16030100050100000103', 'hex'), /^HTTP\/1.1 400 /],
    ['a spoilt HTTP/2 preface', Buffer.from('PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n'), /^HTTP\/1.1 400 /],
    ['headers over 32 KiB', Buffer.from(`GET / HTTP/1.1\r\nx: ${'y'.repeat(40_000)}\r\n\r\n`), /^HTTP\/1.1 431 .*32768 bytes/s],
  ])('answers %s with a reason and closes', async (_name, bytes, expected) => {
    await using port = await startTestServer();
    expect(await talk(port.address, (socket) => void socket.write(bytes))).toMatch(expected);
  });

  it('refuses HTTP/2 headers over 32 KiB and goes on serving', async () => {
    await using port = await startTestServer();
    const refused = await curl(port.address, '/healthz', '--http2-prior-knowledge', '-H', `x: ${'y'.repeat(40_000)}`);
    expect(refused).toMatchObject({ status: 431 });
    expect(await curl(port.address, '/healthz', '--http2-prior-knowledge')).toMatchObject({ status: 200 });
  });

  it.each([
    ['says nothing', ''],
    ['stops within the HTTP/2 preface', 'PRI * HT'],
    ['sends its headers a byte at a time', 'GET /healthz HTTP/1.1\r\nx-slow: '.padEnd(2000, 'z')],
  ])('cuts off a client that %s', async (_name, bytes) => {
    await using port = await startTestServer({}, { limits: { headerTimeoutMs: 400, requestTimeoutMs: 800 } });
    const startMs = performance.now();
    const answer = await talk(port.address, (socket) => void trickle(socket, Buffer.from(bytes), 20));
    expect(performance.now() - startMs).toBeLessThan(2500);
    expect(answer === '' || answer.startsWith('HTTP/1.1 408')).toBe(true);
  });

  it.each(['--http1.1', '--http2-prior-knowledge'])('cuts off an upload that takes too long (%s)', async (version) => {
    await using port = await startTestServer({}, { limits: { headerTimeoutMs: 400, requestTimeoutMs: 700 } });
    const slow = [
      '--limit-rate',
      '1k',
      '-X',
      'POST',
      '-H',
      'content-type: application/json',
      '-H',
      'expect:',
      '-d',
      'x'.repeat(300_000),
    ];
    const answer = await curl(port.address, '/api/v1/stacks', version, ...slow).catch((error: Error) => error);
    if (!(answer instanceof Error)) expect(answer.status).toBe(408);
    expect(port.seen).toHaveLength(0);
  });

  it('refuses bodies over the limit, naming it, and gives publications their own limit', async () => {
    const limits = { requestBytes: 10_000, methodBytes: { '/brokkr.v1.StackService/CreateDeploymentObject': 100_000 } };
    await using port = await startTestServer({}, { limits });
    const objects = `/api/v1/stacks/${STACK_ID}/deployment-objects`;
    const post = (bytes: number, ...more: string[]) => [
      '-X',
      'POST',
      '-H',
      'content-type: text/yaml',
      '--data-binary',
      'x'.repeat(bytes),
      ...more,
    ];
    for (const version of ['--http1.1', '--http2-prior-knowledge']) {
      expect(await curl(port.address, objects, version, ...post(90_000))).toMatchObject({ status: 201 });
      const refused = await curl(port.address, objects, version, ...post(110_000));
      expect(refused.status).toBe(413);
      expect(JSON.parse(refused.body)).toMatchObject({ code: 'payload_too_large', details: { limit_bytes: 100_000 } });
      const chunked = await curl(port.address, objects, version, ...post(110_000, '-H', 'transfer-encoding: chunked'));
      expect(chunked.status).toBe(413);
      expect(await curl(port.address, '/api/v1/stacks', version, ...post(20_000))).toMatchObject({ status: 413 });
      const rpc = ['-H', 'content-type: application/json', '-d', JSON.stringify({ name: 'x'.repeat(20_000) })];
      const connectRefused = await curl(port.address, '/brokkr.v1.StackService/CreateStack', version, ...rpc);
      expect(connectRefused).toMatchObject({ status: 429 });
      expect(JSON.parse(connectRefused.body)).toMatchObject({ code: 'resource_exhausted' });
      expect(connectRefused.body).toContain('10000');
    }
  });

  it('keeps the connections of one replica within a number', async () => {
    await using port = await startTestServer({}, { limits: { maxConnections: 1, headerTimeoutMs: 5000 } });
    const open = talk(port.address, (socket) => void setTimeout(() => socket.end('x'), 1000));
    await expect.poll(() => port.server.counts().connections).toBe(1);
    expect(await talk(port.address, (socket) => void socket.write('GET / HTTP/1.1\r\n\r\n'))).toBe('');
    await open;
    await expect.poll(() => port.server.counts().connections).toBe(0);
    expect(await curl(port.address, '/healthz')).toMatchObject({ status: 200 });
  });

  it('destroys an HTTP/2 peer that answers no pings', async () => {
    await using port = await startTestServer({}, { limits: { pingMs: 300 } });
    const preface = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), Buffer.from('000000040000000000', 'hex')]);
    const said = await talk(port.address, (socket) => void socket.write(preface)); // it never acknowledges a ping
    expect(said.length).toBeGreaterThan(0);
    expect(port.server.counts()).toMatchObject({ connections: 0, http2Sessions: 0 });
  });

  it('tells what it served', async () => {
    const served: string[] = [];
    await using port = await startTestServer({
      observe: ({ httpMethod, target, status, isHeld }) => void served.push(`${httpMethod} ${target} ${status} ${isHeld}`),
    });
    await curl(port.address, '/healthz');
    await curl(port.address, '/api/v1/stacks');
    await curl(port.address, '/nothing', '--http2-prior-knowledge');
    await expect
      .poll(() => served)
      .toEqual(['GET /healthz 200 false', 'GET /brokkr.v1.StackService/ListStacks 200 false', 'GET none 404 false']);
  });

  it('says why it cannot listen', async () => {
    await using port = await startTestServer();
    await expect(startTestServer({}, { listen: port.address })).rejects.toThrow(/cannot listen on .*: another process uses it/);
    await expect(startTestServer({}, { listen: 'nonsense' })).rejects.toThrow('nonsense is not an address, expected host:port');
  });
});

describe('the end of the server', () => {
  it('finishes requests in flight, refuses new connections, and closes idle ones', async () => {
    const { promise: release, resolve } = Promise.withResolvers<void>();
    let begun = 0;
    const slow = async (_request: unknown, response: { end(text: string): unknown }) => {
      begun += 1;
      await release;
      response.end('done');
    };
    const port = await startTestServer({ plain: { '/slow': slow } }, { drainMs: 10_000 });
    const idle = talk(port.address, (socket) => void socket.write('GET /idle HTTP/1.1\r\nhost: x\r\n\r\n'));
    const inFlight = [curl(port.address, '/slow'), curl(port.address, '/slow', '--http2-prior-knowledge')];
    await expect.poll(() => port.server.counts().connections).toBe(3);
    await expect.poll(() => begun).toBe(2); // a connection whose request is on its way is idle still
    const stopped = port.stop();
    expect(await idle).toContain('404');
    await expect(curl(port.address, '/slow')).rejects.toThrow();
    resolve();
    expect(await Promise.all(inFlight)).toMatchObject([{ body: 'done' }, { body: 'done' }]);
    await stopped;
  });

  it('does not wait longer than it was given', async () => {
    const port = await startTestServer({ plain: { '/stuck': () => new Promise(() => undefined) } }, { drainMs: 300 });
    const stuck = curl(port.address, '/stuck').catch((error: Error) => error.message);
    await expect.poll(() => port.server.counts().connections).toBe(1);
    const startMs = performance.now();
    await port.stop();
    expect(performance.now() - startMs).toBeLessThan(3000);
    expect(await stuck).toMatch(/Empty reply|reset/);
  });
});
