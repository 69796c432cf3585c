import { type Dispatcher, Pool, ProxyAgent } from 'undici';
import type { Clock } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import type { Credentials, TlsMaterial } from './credentials.ts';
import { kubeError } from './errors.ts';
import type { KubeCredentials } from './kubeconfig.ts';

/** Sockets for requests: APPLY measured no gain beyond 32. One request at a time on each. */
const CONNECTIONS = 32;
/** Sockets for watches and log streams, one each. */
const STREAM_CONNECTIONS = 512;
/** Requests waiting for a socket or an answer; more is a bug of the caller, who has a limiter. */
const MAX_PENDING = 2048;
const CALL_DEADLINE_MS = 30_000;
/** The server gives up first, so that its answer and not our deadline says what happened. */
const SERVER_TIMEOUT = '25s';
const MAX_BODY_BYTES = 64 * 1024 * 1024;
const CONNECT_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_MS = 30_000;
const TCP_KEEP_ALIVE_MS = 15_000;
/** Idle sockets the server has closed meanwhile are all found dead at once after a restart of the server. */
const MAX_RESENDS = 3;

/** Query parameters; undefined ones are left out. */
export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

/** Whom to act as (`Impersonate-*` headers); the caller needs the `impersonate` verb on them. */
export interface Impersonation {
  readonly user: string;
  readonly groups?: readonly string[];
}

/** Everything about a request but method and path. */
export interface RequestOptions {
  readonly query?: Query;
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly impersonate?: Impersonation | undefined;
  /** Label of the metrics; the method in lower case unless given (list, watch, apply). */
  readonly verb?: string;
  /** May be sent again when a reused socket turns out to be dead. Default: GET only. */
  readonly idempotent?: boolean;
  readonly deadlineMs?: number;
}

/** An answer, read to its end. */
export interface KubeResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/** An answer whose body is still coming. The reader must consume it or abort the signal. */
export interface KubeStream {
  readonly status: number;
  readonly body: AsyncIterable<Buffer>;
}

/** Told about every request: for metrics. `code` is the HTTP status, or `error` when there was no answer. */
export type RequestObserver = (verb: string, code: string, seconds: number) => void;

interface Deps {
  readonly clock: Clock;
  readonly credentials: Credentials;
  readonly observe?: RequestObserver | undefined;
}

/**
 * HTTP/1.1 to one API server over a fixed number of warm connections, a second set for streams. Knows credentials,
 * deadlines and body limits, and nothing of objects. Does not retry, but for two cases that are no failure of the server: a
 * 401 after which the credentials turned out to have changed, and a reused socket that had been closed meanwhile.
 */
export class KubeTransport {
  readonly #clock: Clock;
  readonly #credentials: Credentials;
  readonly #observe: RequestObserver | undefined;
  readonly #config: KubeCredentials;
  readonly #origin: string;
  readonly #basePath: string;
  #pools: { readonly tls: TlsMaterial; readonly requests: Dispatcher; readonly streams: Dispatcher } | undefined;
  #closed = false;
  #pending = 0;

  constructor({ clock, credentials, observe }: Deps, config: KubeCredentials) {
    this.#clock = clock;
    this.#credentials = credentials;
    this.#observe = observe;
    this.#config = config;
    const url = new URL(config.server);
    this.#origin = url.origin;
    this.#basePath = url.pathname.replace(/\/$/, '');
  }

  /** Requests sent and not yet answered. */
  get pending(): number {
    return this.#pending;
  }

  /**
   * Sends a request and reads the answer, whatever its status. Rejects with `TimeoutError` after the deadline (30 s), with
   * the signal's reason, or with the socket's error; throws `too_many_requests` beyond 2,048 pending ones.
   */
  async request(
    method: Dispatcher.HttpMethod,
    path: string,
    options: RequestOptions,
    signal: AbortSignal,
  ): Promise<KubeResponse> {
    if (this.#pending >= MAX_PENDING)
      throw new BrokkrError('too_many_requests', `more than ${MAX_PENDING} requests to the API server pending`);
    using deadline = this.#clock.deadline(options.deadlineMs ?? CALL_DEADLINE_MS, signal);
    const query = method === 'GET' ? options.query : { timeout: SERVER_TIMEOUT, ...options.query };
    const idempotent = options.idempotent ?? method === 'GET';
    this.#pending += 1;
    try {
      for (let resends = 0, reloaded = false; ; ) {
        try {
          const response = await this.#send(method, path, { ...options, ...(query && { query }) }, 'requests', deadline.signal);
          const body = await response.body.text();
          if (response.statusCode === 401 && !reloaded) {
            reloaded = true;
            if (await this.#credentials.reload(deadline.signal)) continue;
          }
          return { status: response.statusCode, headers: response.headers, body };
        } catch (error) {
          if (deadline.signal.aborted) throw deadline.signal.reason;
          if (!idempotent || resends >= MAX_RESENDS || !isReusedSocketReset(error)) throw error;
          resends += 1;
        }
      }
    } finally {
      this.#pending -= 1;
    }
  }

  /** Like `request`, but rejects with a `KubeError` unless the status is a success, and parses the JSON answer. */
  async json(
    method: Dispatcher.HttpMethod,
    path: string,
    options: RequestOptions,
    signal: AbortSignal,
  ): Promise<{ readonly status: number; readonly value: unknown }> {
    const { status, headers, body } = await this.request(method, path, options, signal);
    if (status < 200 || status > 299) throw kubeError(status, body, header(headers, 'retry-after'));
    return { status, value: JSON.parse(body) };
  }

  /**
   * Opens a GET whose body has no end of its own: a watch, a log. The deadline covers the head of the answer only, silence
   * afterwards is the reader's to judge. Rejects with a `KubeError` unless the status is a success. Abort the signal to close it.
   */
  async stream(path: string, options: RequestOptions, signal: AbortSignal): Promise<KubeStream> {
    for (let reloaded = false; ; ) {
      const response = await this.#send('GET', path, options, 'streams', signal);
      if (response.statusCode >= 200 && response.statusCode <= 299) return { status: response.statusCode, body: response.body };
      const body = await response.body.text();
      if (response.statusCode === 401 && !reloaded) {
        reloaded = true;
        if (await this.#credentials.reload(signal)) continue;
      }
      throw kubeError(response.statusCode, body, header(response.headers, 'retry-after'));
    }
  }

  /** Ends every connection at once. Requests in flight reject. */
  async close(): Promise<void> {
    this.#closed = true;
    const pools = this.#pools;
    this.#pools = undefined;
    if (pools) await Promise.all([pools.requests.destroy(null), pools.streams.destroy(null)]);
  }

  async #send(
    method: Dispatcher.HttpMethod,
    path: string,
    options: RequestOptions,
    kind: 'requests' | 'streams',
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    const verb = options.verb ?? method.toLowerCase();
    const startedAt = this.#clock.monotonic();
    const seconds = () => (this.#clock.monotonic() - startedAt) / 1000;
    try {
      const { authorization, tls } = await this.#credentials.current(signal);
      const response = await this.#poolsFor(tls)[kind].request({
        origin: this.#origin,
        method,
        path: this.#basePath + path + search(options.query),
        headers: {
          accept: 'application/json',
          'user-agent': 'brokkr-agent',
          ...(authorization !== undefined && { authorization }),
          ...(options.body !== undefined && { 'content-type': 'application/json' }),
          ...options.headers,
          ...impersonationHeaders(options.impersonate),
        },
        body: options.body ?? null,
        signal,
      });
      this.#observe?.(verb, String(response.statusCode), seconds());
      return response;
    } catch (error) {
      if (!signal.aborted || this.#closed) this.#observe?.(verb, 'error', seconds());
      throw error;
    }
  }

  /** The connections for these certificates; after a rotation the old ones end with their last request. */
  #poolsFor(tls: TlsMaterial) {
    if (this.#closed) throw new BrokkrError('canceled', 'connection to the API server is closed');
    if (this.#pools?.tls === tls) return this.#pools;
    const old = this.#pools;
    this.#pools = {
      tls,
      requests: openPool(this.#config, this.#origin, tls, {
        connections: CONNECTIONS,
        bodyTimeout: CALL_DEADLINE_MS,
        maxResponseSize: MAX_BODY_BYTES,
      }),
      streams: openPool(this.#config, this.#origin, tls, {
        connections: STREAM_CONNECTIONS,
        bodyTimeout: 0,
        maxResponseSize: -1,
      }),
    };
    void old?.requests.close();
    void old?.streams.close();
    return this.#pools;
  }
}

/** One value of a header of an answer. */
export function header(headers: KubeResponse['headers'], name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value[0] : value;
}

interface PoolLimits {
  readonly connections: number;
  readonly bodyTimeout: number;
  readonly maxResponseSize: number;
}

function openPool(config: KubeCredentials, origin: string, tls: TlsMaterial, limits: PoolLimits): Dispatcher {
  const socket = { timeout: CONNECT_TIMEOUT_MS, keepAlive: true, keepAliveInitialDelay: TCP_KEEP_ALIVE_MS };
  const connect = {
    ...socket,
    rejectUnauthorized: !config.insecureSkipTlsVerify,
    ...(tls.ca !== undefined && { ca: tls.ca }),
    ...(tls.cert !== undefined && { cert: tls.cert }),
    ...(tls.key !== undefined && { key: tls.key }),
    ...(config.tlsServerName !== undefined && { servername: config.tlsServerName }),
  };
  const options: Pool.Options = {
    ...limits,
    pipelining: 1,
    allowH2: false, // on by default in undici 8; one connection for all stalls all streams at once when it half-dies
    headersTimeout: CALL_DEADLINE_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MS,
  };
  if (config.proxyUrl === undefined) return new Pool(origin, { ...options, connect });
  return new ProxyAgent({ ...options, uri: config.proxyUrl, requestTls: connect, proxyTls: socket });
}

/** The server closed an idle connection while we were writing to it: nothing of this request was handled or answered. */
function isReusedSocketReset(error: unknown): boolean {
  if (!(error instanceof Error) || !('code' in error)) return false;
  if (error.code === 'ECONNRESET' || error.code === 'EPIPE') return true;
  if (error.code !== 'UND_ERR_SOCKET') return false;
  const socket = 'socket' in error ? (error.socket as { readonly bytesRead?: number } | null) : null;
  return (socket?.bytesRead ?? 0) > 0;
}

function impersonationHeaders(as: Impersonation | undefined): Record<string, string | string[]> {
  if (!as) return {};
  return { 'impersonate-user': as.user, ...(as.groups && as.groups.length > 0 && { 'impersonate-group': [...as.groups] }) };
}

function search(query: Query | undefined): string {
  if (!query) return '';
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return text === '' ? '' : `?${text}`;
}
