import { once } from 'node:events';
import {
  createServer,
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { buffer as readAll } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';

/** A request that reached the proxy. `status` is set once an answer went out. */
export interface ProxiedRequest {
  readonly method: string;
  /** With the query. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  /** What was sent, once it was received as a whole; only where bodies are kept. */
  body?: string;
  status?: number;
}

/**
 * What to do with a request instead of passing it on: answer it; `reset` the connection unanswered; `hang` and never
 * answer; `lose-response`: let the target do it, then reset instead of answering.
 */
export type Fault =
  | { readonly status: number; readonly body?: unknown; readonly headers?: Readonly<Record<string, string>> }
  | 'reset'
  | 'hang'
  | 'lose-response';

/** An HTTP/1.1 reverse proxy on a loopback port, plaintext towards its clients. */
export interface HttpProxy extends AsyncDisposable {
  /** `http://127.0.0.1:port`. */
  readonly url: string;
  /** Every request so far, oldest first. Tests may empty it. */
  readonly requests: ProxiedRequest[];
  /** How many requests so far had this method and a path that contains this text. */
  count(method?: string, pathPart?: string): number;
  /**
   * Lets `passes` more matching requests (default: of any kind) be answered; then every connection is reset, and every
   * request after that, until `heal`. Resolves when that happens.
   */
  killAfter(passes: number, isCounted?: (request: ProxiedRequest) => boolean): Promise<void>;
  /** Resets every connection and every new one until `heal`. */
  cut(): void;
  heal(): void;
}

/** What `startHttp1Proxy` is given. */
export interface Http1ProxyOptions {
  /** `http://host:port` or `https://host:port`. */
  readonly target: string;
  /** Reads each answer to its end before passing on any of it, as some company proxies do: a stream never arrives. */
  readonly buffer?: boolean;
}

/** What `startKubeProxy` is given. */
export interface KubeProxyOptions {
  /** `https://127.0.0.1:port` of the API server. */
  readonly target: string;
  /** PEM. */
  readonly ca: string;
  /** Decides request by request; undefined passes it on. */
  readonly onRequest?: (request: ProxiedRequest) => Fault | undefined;
  /** Keeps the bodies of all requests. */
  readonly keepBodies?: boolean;
  /** How far the `Date` of answers is moved, in milliseconds. */
  readonly dateOffsetMs?: () => number;
}

/**
 * Starts a proxy that knows HTTP/1.1 only, as between many networks: an HTTP/2 preface is answered with 400 and closed,
 * `Upgrade` and trailers do not get through.
 */
export function startHttp1Proxy({ target, buffer = false }: Http1ProxyOptions): Promise<HttpProxy> {
  return startProxy({ target, buffer });
}

/** Starts a proxy in front of a TLS API server that counts requests and fails chosen ones. Watches stream through. */
export function startKubeProxy(options: KubeProxyOptions): Promise<HttpProxy> {
  return startProxy({ ...options, buffer: false });
}

interface ProxyOptions {
  readonly target: string;
  readonly ca?: string;
  readonly buffer: boolean;
  readonly onRequest?: KubeProxyOptions['onRequest'];
  readonly keepBodies?: boolean;
  readonly dateOffsetMs?: KubeProxyOptions['dateOffsetMs'];
}

async function startProxy({
  target,
  ca,
  buffer,
  onRequest,
  keepBodies = false,
  dateOffsetMs = () => 0,
}: ProxyOptions): Promise<HttpProxy> {
  const requests: ProxiedRequest[] = [];
  const sockets = new Set<Socket>();
  const agent = target.startsWith('https:') ? new HttpsAgent({ ca, keepAlive: true }) : undefined;
  let isCut = false;
  let answered: (request: ProxiedRequest) => void = () => undefined;
  const cut = () => {
    isCut = true;
    for (const socket of sockets) socket.resetAndDestroy();
  };

  const server = createServer({ keepAliveTimeout: 60_000, requestTimeout: 0 }, (incoming, outgoing) => {
    const request: ProxiedRequest = { method: incoming.method ?? '', path: incoming.url ?? '', headers: incoming.headers };
    requests.push(request);
    if (keepBodies) keepBody(incoming, request);
    outgoing.once('finish', () => {
      request.status = outgoing.statusCode;
      answered(request);
    });
    const fault = onRequest?.(request);
    if (fault === 'hang') return;
    if (fault === 'reset') incoming.socket.resetAndDestroy();
    else if (typeof fault === 'object') answer(outgoing, fault);
    else void forward(incoming, outgoing, { target, agent, buffer, lose: fault === 'lose-response', dateOffsetMs });
  });
  server.on('connection', (socket: Socket) => {
    if (isCut) socket.resetAndDestroy();
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');

  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    count: (method, pathPart = '') =>
      requests.filter((request) => (method === undefined || request.method === method) && request.path.includes(pathPart)).length,
    killAfter(passes, isCounted = () => true) {
      const { promise, resolve } = Promise.withResolvers<void>();
      let left = passes;
      answered = (request) => {
        if (left <= 0 || !isCounted(request) || --left > 0) return;
        cut();
        resolve();
      };
      if (passes <= 0) {
        cut();
        resolve();
      }
      return promise;
    },
    cut,
    heal() {
      isCut = false;
      answered = () => undefined;
    },
    async [Symbol.asyncDispose]() {
      cut();
      agent?.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

/** Listens beside whoever passes the request on. */
function keepBody(incoming: IncomingMessage, request: ProxiedRequest): void {
  const chunks: Buffer[] = [];
  incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
  incoming.once('end', () => {
    request.body = Buffer.concat(chunks).toString('utf8');
  });
}

interface Route {
  readonly target: string;
  readonly agent: HttpsAgent | undefined;
  readonly buffer: boolean;
  /** Reset instead of answering. */
  readonly lose: boolean;
  readonly dateOffsetMs: () => number;
}

/** Passes one request on. A failure on either side ends the other: 502 before the answer began, a reset after. */
async function forward(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  { target, agent, buffer, lose, dateOffsetMs }: Route,
): Promise<void> {
  const send = target.startsWith('https:') ? httpsRequest : httpRequest;
  const url = new URL(incoming.url ?? '/', target);
  const upstream = send(url, { method: incoming.method, headers: endToEnd(incoming.headers), ...(agent && { agent }) });
  outgoing.once('close', () => upstream.destroy());
  try {
    const [[response]] = await Promise.all([
      once(upstream, 'response') as Promise<[IncomingMessage]>,
      pipeline(incoming, upstream),
    ]);
    if (lose) {
      await readAll(response);
      incoming.socket.resetAndDestroy();
      return;
    }
    const headers = endToEnd(response.headers);
    if (headers.date) headers.date = new Date(Date.parse(headers.date) + dateOffsetMs()).toUTCString();
    if (buffer) {
      const body = await readAll(response);
      outgoing.writeHead(response.statusCode ?? 502, { ...headers, 'content-length': body.length });
      outgoing.end(body);
      return;
    }
    outgoing.writeHead(response.statusCode ?? 502, headers);
    outgoing.flushHeaders();
    await pipeline(response, outgoing);
  } catch {
    if (outgoing.headersSent) incoming.socket.resetAndDestroy();
    else answer(outgoing, { status: 502, body: 'the target did not answer' });
  }
}

function answer(outgoing: ServerResponse, { status, body, headers }: Exclude<Fault, string>): void {
  const isText = typeof body === 'string';
  const type = isText || body === undefined ? 'text/plain' : 'application/json';
  outgoing.writeHead(status, { 'content-type': type, ...headers });
  outgoing.end(isText || body === undefined ? body : JSON.stringify(body));
}

/** RFC 9110, section 7.6.1: these concern one connection only and are not passed on. */
const hopByHop: readonly string[] = [
  ...['connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization'],
  ...['te', 'trailer', 'transfer-encoding', 'upgrade', 'http2-settings', 'expect'],
];

function endToEnd(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !hopByHop.includes(name)));
}
