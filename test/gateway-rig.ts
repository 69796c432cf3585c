import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer as createHttp1, type RequestListener, type Server } from 'node:http';
import {
  type ClientHttp2Session,
  connect,
  createServer as createHttp2,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import { type Authority, createAuthority } from './certificate-authority.ts';
import { type Program, startProcess, type TestProcess, temporaryDirectory } from './processes.ts';

/** Whom clients of a test's gateways trust, and what these show. */
export interface LoopbackCertificate {
  readonly authority: Authority;
  /** The authority's certificate, PEM. */
  readonly ca: string;
  /** Directory of a certificate for 127.0.0.1. */
  readonly directory: string;
}

/** Makes an authority and a certificate for 127.0.0.1. */
export async function certifyLoopback(): Promise<LoopbackCertificate> {
  const authority = await createAuthority('gateway authority');
  const directory = await temporaryDirectory();
  await authority.issue(directory, { hosts: ['127.0.0.1'] });
  return { authority, ca: await readFile(authority.certFile, 'utf8'), directory };
}

/** A gateway process. */
export interface TestGateway extends TestProcess {
  readonly port: number;
  /** Of /healthz and the others. */
  readonly adminUrl: string;
}

/** Starts a gateway on free loopback ports and waits until it serves. */
export async function startGateway(
  certificates: readonly string[],
  upstreams: readonly string[],
  env: Readonly<Record<string, string>> = {},
  program: Program = 'gateway/main.ts',
): Promise<TestGateway> {
  const started = await startProcess(program, ['serve'], {
    BROKKR__GATEWAY__LISTEN: '127.0.0.1:0',
    BROKKR__GATEWAY__CERTIFICATES: certificates.join(','),
    BROKKR__GATEWAY__UPSTREAMS: upstreams.join(','),
    BROKKR__GATEWAY__HEALTH_INTERVAL: '200ms',
    BROKKR__GATEWAY__ADMIN_HOST: '127.0.0.1',
    BROKKR__GATEWAY__ADMIN_PORT: '0',
    ...env,
  });
  const serves = await started.line(({ msg }) => msg === 'gateway serves');
  const admin = await started.line(({ msg }) => msg === 'health port is open');
  return { ...started, port: Number(String(serves.address).split(':').at(-1)), adminUrl: `http://${admin.address}` };
}

/** A server of the test's own behind a gateway. */
export interface TestUpstream extends AsyncDisposable {
  readonly url: string;
}

/** An HTTP/2 server without TLS; `/readyz` answers by itself. */
export async function startHttp2Upstream(
  serve: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void,
): Promise<TestUpstream> {
  const sessions = new Set<ServerHttp2Session>();
  const server = createHttp2();
  server.on('session', (session) => {
    sessions.add(session);
    session.once('close', () => sessions.delete(session));
  });
  server.on('stream', (stream, headers) => {
    stream.on('error', () => undefined);
    if (headers[':path'] === '/readyz') stream.respond({ ':status': 200 }, { endStream: true });
    else serve(stream, headers);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      for (const session of sessions) session.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

/** An HTTP/1.1 server without TLS; `/readyz` answers by itself. */
export async function startHttp1Upstream(
  serve: RequestListener,
  prepare: (server: Server) => void = () => undefined,
): Promise<TestUpstream> {
  const server = createHttp1((request, response) => {
    if (request.url === '/readyz') response.end();
    else serve(request, response);
  });
  prepare(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

/** What a program said and how it ended, whatever that was. Gives up after 20 s. */
export async function say(program: string, args: readonly string[], input = ''): Promise<{ code: number; text: string }> {
  const child = promisify(execFile)(program, args, { timeout: 20_000 });
  child.child.stdin?.end(input);
  const { code, stdout, stderr } = await child.then(
    (done) => ({ code: 0, ...done }),
    (failed: { code: number; stdout: string; stderr: string }) => failed,
  );
  return { code, text: `${stdout}${stderr}` };
}

/** What curl prints of a page of the gateway on loopback, whose certificate `caFile` vouches for: the body, the status, the version of HTTP. */
export async function curlGateway(caFile: string, port: number, path: string, ...options: readonly string[]): Promise<string> {
  const trust = ['-sS', '--cacert', caFile, '-w', ' %{http_code} %{http_version}'];
  return (await say('curl', [...trust, ...options, `https://127.0.0.1:${port}${path}`])).text;
}

/** A connection of HTTP/2 to the gateway; closed with the test. */
export function dialGateway(port: number, ca: string): ClientHttp2Session & Disposable {
  const session = connect(`https://127.0.0.1:${port}`, { ca });
  session.on('error', () => undefined);
  return Object.assign(session, { [Symbol.dispose]: () => session.destroy() });
}

/** Answers `hello`. */
export function hello(stream: ServerHttp2Stream): void {
  stream.respond({ ':status': 200 });
  stream.end('hello');
}
