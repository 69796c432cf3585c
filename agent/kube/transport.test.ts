import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type Clock, systemClock } from '#lib/clock.ts';
import { startTcpProxy } from '../../test/fault-proxy.ts';
import { startKubeProxy } from '../../test/http-proxy.ts';
import { type Kube as TestKube, useKube } from '../../test/kube.ts';
import { CONFIG_MAPS, openTestKube } from '../../test/kube-client.ts';
import { classify } from './errors.ts';
import { type KubeCredentials, loadCredentials } from './kubeconfig.ts';

const { signal } = new AbortController();
let server: TestKube;
let directory: string;

beforeAll(async () => {
  server = await useKube();
  directory = await mkdtemp(join(tmpdir(), 'brokkr-transport-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** A plain HTTP server, for answers the API server never gives. */
async function serve(listener: RequestListener): Promise<string> {
  const plain = createServer(listener).listen(0, '127.0.0.1');
  await once(plain, 'listening');
  onTestFinished(() => {
    plain.closeAllConnections();
    plain.close();
  });
  return `http://127.0.0.1:${(plain.address() as AddressInfo).port}`;
}

const clockAt = (speed: number): Clock => ({
  ...systemClock,
  deadline: (ms, stop) => systemClock.deadline(ms / speed, stop),
  monotonic: () => systemClock.monotonic() * speed,
});

/** A connection is free for the next request a turn after its answer was read. */
const idle = () => new Promise((resolve) => setImmediate(resolve));

function plugin(script: string): Partial<KubeCredentials> {
  const args = ['-e', script];
  return {
    auth: {
      kind: 'exec',
      plugin: {
        apiVersion: 'client.authentication.k8s.io/v1',
        command: process.execPath,
        args,
        env: { MINE: 'x' },
        directory,
        provideClusterInfo: true,
      },
    },
  };
}

describe('credentials', () => {
  it('of a pod come from its service account directory and follow its token', async () => {
    const good = await server.identity('pod', { clusterAdmin: true });
    const { hostname, port } = new URL(server.url);
    await writeFile(join(directory, 'namespace'), 'default');
    await writeFile(join(directory, 'ca.crt'), server.caData);
    await writeFile(join(directory, 'token'), 'expired\n');
    const env = { KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port, HOME: directory };
    const rest = await loadCredentials({ serviceAccountDir: directory }, env, signal);
    await using kube = openTestKube({ url: server.url, rest });
    const list = () => kube.list({ resource: CONFIG_MAPS, namespace: 'default', content: 'metadata' }, signal).next();
    expect(await list().catch(classify)).toBe('credential');
    await writeFile(join(directory, 'token'), `${good.token}\n`);
    expect(await list()).toMatchObject({ done: false }); // read again after the 401, within the minute
  });

  it('are read again each minute without a refusal', async () => {
    const seen: unknown[] = [];
    const url = await serve(({ headers }, response) => {
      seen.push(headers.authorization);
      response.end('{}');
    });
    const file = join(directory, 'rotating');
    await writeFile(file, 'one');
    let now = 0;
    await using kube = openTestKube(
      { url, rest: { auth: { kind: 'tokenFile', file } } },
      {},
      { ...systemClock, monotonic: () => now },
    );
    await kube.version(signal);
    await writeFile(file, 'two');
    now = 59_999;
    await kube.version(signal);
    now = 60_000;
    await kube.version(signal);
    await rm(file);
    now = 120_000;
    await kube.version(signal); // the last good one stays in use
    expect(seen).toEqual(['Bearer one', 'Bearer one', 'Bearer two', 'Bearer two']);
  });

  it('of a plugin are fetched once, with what it needs to know, and again after a refusal', async () => {
    const log = join(directory, 'plugin.log');
    const script = `
      const { spec } = JSON.parse(process.env.KUBERNETES_EXEC_INFO);
      require('node:fs').appendFileSync(${JSON.stringify(log)}, process.env.MINE + ' ' + spec.interactive + ' ' + spec.cluster.server + '\\n');
      const runs = require('node:fs').readFileSync(${JSON.stringify(log)}, 'utf8').split('\\n').length - 1;
      console.log(JSON.stringify({ kind: 'ExecCredential', status: { token: 'run' + runs } }));`;
    let accepted = 'Bearer run1';
    const url = await serve(({ headers }, response) => {
      response.statusCode = headers.authorization === accepted ? 200 : 401;
      response.end('{}');
    });
    await using kube = openTestKube({ url, rest: plugin(script) });
    await Promise.all([kube.version(signal), kube.version(signal), kube.version(signal)]);
    expect(await readFile(log, 'utf8')).toBe(`x false ${url}\n`);
    accepted = 'Bearer run2';
    await kube.version(signal);
    expect((await readFile(log, 'utf8')).split('\n')).toHaveLength(3);
  });

  it('of a plugin that fails are an error that tells its last words and no secret', async () => {
    const url = await serve((_, response) => response.end('{}'));
    await using failing = openTestKube({ url, rest: plugin(`console.error('log in first'); process.exit(3)`) });
    await expect(failing.version(signal)).rejects.toThrow('ended with 3: log in first');
    await using talking = openTestKube({ url, rest: plugin(`console.log('s3cret')`) });
    await expect(talking.version(signal)).rejects.toThrow(/^credential plugin .* did not answer with an ExecCredential$/);
  });

  it('of an OIDC provider are left to client-node', async () => {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const token = `${part({ alg: 'none' })}.${part({ exp: 4_102_444_800 })}.x`;
    const url = await serve(({ headers }, response) => response.end(JSON.stringify({ gitVersion: headers.authorization })));
    const config = { 'id-token': token, 'client-id': 'a', 'refresh-token': 'r', 'idp-issuer-url': 'https://127.0.0.1:1' };
    await using kube = openTestKube({ url, rest: { auth: { kind: 'provider', name: 'oidc', config } } });
    expect(await kube.version(signal)).toBe(`Bearer ${token}`);
  });

  it('may be a client certificate in files, with new connections once they change', async () => {
    const certs = join(dirname(server.kubeconfigPath), '..', 'certs');
    const [cert, key] = await Promise.all([readFile(join(certs, 'apiserver.crt')), readFile(join(certs, 'apiserver.key'))]);
    let connections = 0;
    const tls = createTlsServer({ cert, key, requestCert: true, rejectUnauthorized: false }, (request, response) => {
      const { subject } = (
        request.socket as unknown as { getPeerCertificate(): { subject?: { CN?: string } } }
      ).getPeerCertificate();
      response.end(JSON.stringify({ gitVersion: subject?.CN ?? 'nobody' }));
    });
    tls.on('secureConnection', () => connections++);
    tls.listen(0, '127.0.0.1');
    await once(tls, 'listening');
    onTestFinished(() => {
      tls.closeAllConnections();
      tls.close();
    });
    const file = join(directory, 'client.crt');
    await writeFile(file, cert);
    let now = 0;
    const rest = { certificate: { file }, key: { data: key.toString() } };
    const url = `https://127.0.0.1:${(tls.address() as AddressInfo).port}`;
    await using kube = openTestKube({ url, caData: server.caData, rest }, {}, { ...systemClock, monotonic: () => now });
    expect(await kube.version(signal)).toContain('127.0.0.1');
    await idle();
    await kube.version(signal);
    expect(connections).toBe(1);
    await idle();
    await writeFile(file, Buffer.concat([cert, Buffer.from('\n')]));
    now = 60_000;
    await kube.version(signal);
    expect(connections).toBe(2);
  });
});

describe('transport', () => {
  it('gives up after its deadline and says so', async () => {
    await using proxy = await startKubeProxy({ target: server.url, ca: server.caData, onRequest: () => 'hang' });
    await using kube = openTestKube({ url: proxy.url }, {}, clockAt(100));
    await expect(kube.version(signal)).rejects.toThrow('ms exceeded');
    expect(kube.transport.pending).toBe(0);
  });

  it('ends with the reason of the signal', async () => {
    await using proxy = await startKubeProxy({ target: server.url, ca: server.caData, onRequest: () => 'hang' });
    await using kube = openTestKube({ url: proxy.url });
    const stop = new AbortController();
    const call = kube.version(stop.signal);
    stop.abort(new Error('no longer needed'));
    await expect(call).rejects.toThrow('no longer needed');
  });

  it('reads at most 64 MiB', async () => {
    const url = await serve((_, response) => {
      const chunk = Buffer.alloc(1024 * 1024, 'x');
      for (let count = 0; count < 65; count += 1) response.write(chunk);
      response.end();
    });
    await using kube = openTestKube({ url });
    await expect(kube.version(signal)).rejects.toThrow('exceeded max size');
  });

  it('asks the server to give up first on writes, and counts by verb and code', async () => {
    await using proxy = await startKubeProxy({ target: server.url, ca: server.caData });
    const counted: string[] = [];
    const request = (verb: string, code: string) => void counted.push(`${verb} ${code}`);
    await using kube = openTestKube({ url: proxy.url, token: server.identities.ops.token }, { request });
    const namespace = await server.namespace('counted');
    const body = JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' } });
    await kube.apply({ resource: CONFIG_MAPS, namespace, name: 'a', fieldManager: 'brokkr/a', body }, signal);
    await kube.findMetadata({ resource: CONFIG_MAPS, namespace, name: 'b' }, signal);
    expect(counted).toEqual(['apply 201', 'get 404']);
    expect(proxy.requests[0]?.path).toContain('timeout=25s');
    proxy.cut();
    await expect(kube.version(signal)).rejects.toThrow();
    expect(counted.at(-1)).toBe('get error');
  });

  it('gets over connections that are half open: calls end by their deadline, the next ones use new connections', async () => {
    await using proxy = await startTcpProxy({ target: { host: '127.0.0.1', port: Number(new URL(server.url).port) } });
    const endpoint = { url: `https://127.0.0.1:${proxy.port}`, caData: server.caData, token: server.identities.ops.token };
    await using kube = openTestKube(endpoint, {}, clockAt(60));
    const calls = () => Promise.allSettled(Array.from({ length: 12 }, () => kube.version(signal)));
    expect((await calls()).every(({ status }) => status === 'fulfilled')).toBe(true);
    const before = proxy.counts().accepted;
    proxy.stall();
    expect((await calls()).every(({ status }) => status === 'rejected')).toBe(true);
    await proxy.heal();
    expect((await calls()).every(({ status }) => status === 'fulfilled')).toBe(true);
    expect(proxy.counts().accepted).toBeGreaterThan(before);
    expect(kube.transport.pending).toBe(0);
  });

  it('is slowed down by a 429, for as long as the server asks', async () => {
    const at: number[] = [];
    await using proxy = await startKubeProxy({
      target: server.url,
      ca: server.caData,
      onRequest: () => {
        at.push(systemClock.monotonic());
        return at.length === 1 ? { status: 429, headers: { 'retry-after': '1' }, body: 'too many' } : undefined;
      },
    });
    await using kube = openTestKube({ url: proxy.url, token: server.identities.ops.token });
    const call = () => kube.limiter.run(() => kube.version(signal), 'normal', signal);
    const before = kube.limiter.limit;
    expect(await call().catch(classify)).toBe('transient');
    expect(kube.limiter.limit).toBe(before / 2);
    expect(await call()).toMatch(/^v1\./);
    expect((at[1] ?? 0) - (at[0] ?? 0)).toBeGreaterThanOrEqual(990);
  });

  it('reads a rotated token again when a watch is refused', async () => {
    const { token } = server.identities.ops;
    const file = join(directory, 'watch-token');
    await writeFile(file, 'expired');
    await using kube = openTestKube({ url: server.url, caData: server.caData, rest: { auth: { kind: 'tokenFile', file } } });
    const stop = new AbortController();
    const open = () => kube.transport.stream('/api/v1/namespaces', { query: { watch: true, resourceVersion: '0' } }, stop.signal);
    expect(await open().catch(classify)).toBe('credential');
    await writeFile(file, token);
    expect((await open()).status).toBe(200);
    stop.abort(new Error('test over'));
  });

  it('does not send a create twice', async () => {
    await using proxy = await startKubeProxy({
      target: server.url,
      ca: server.caData,
      onRequest: ({ method }) => (method === 'POST' ? 'lose-response' : undefined),
    });
    await using kube = openTestKube({ url: proxy.url, token: server.identities.ops.token });
    const namespace = await server.namespace('once');
    await kube.version(signal); // so that the connection is a reused one
    const body = JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' } });
    await expect(kube.create({ resource: CONFIG_MAPS, namespace, body }, signal)).rejects.toThrow();
    expect(proxy.count('POST')).toBe(1);
  });

  it('goes through a proxy when one is named', async () => {
    const tunnels: Socket[] = [];
    const proxy = createServer().listen(0, '127.0.0.1');
    proxy.on('connect', ({ url = '' }, socket: Socket) => {
      const [host = '', port] = url.split(':');
      const target = connect(Number(port), host, () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        socket.pipe(target).pipe(socket);
      });
      tunnels.push(socket, target);
      for (const end of [socket, target]) end.on('error', () => undefined);
    });
    await once(proxy, 'listening');
    const proxyUrl = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    const kube = openTestKube({ ...server, token: server.identities.ops.token, rest: { proxyUrl } });
    expect(await kube.version(signal)).toMatch(/^v1\./);
    await idle();
    expect(await kube.ready(signal)).toBe(true);
    expect(tunnels).toHaveLength(2);
    await kube[Symbol.asyncDispose]();
    for (const socket of tunnels) socket.destroy();
    proxy.close();
  });
});
