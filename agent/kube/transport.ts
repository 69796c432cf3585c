import type { Dispatcher } from 'undici';
import { type Clock, TimeoutError } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import { explainFailure, ReachError, type ReachFailure, reachFailure } from '#lib/reach-failure.ts';
import { Breaker } from './breaker.ts';
import type { Credentials, TlsMaterial } from './credentials.ts';
import { isReusedSocketReset, isTrouble, kubeError } from './errors.ts';
import type { KubeCredentials } from './kubeconfig.ts';
import { openPool } from './pool.ts';
import { type Query, queryString } from './resource.ts';
import type { ServerClock } from './server-clock.ts';

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
const READY_DEADLINE_MS = 5000;
/** Idle sockets the server has closed meanwhile are all found dead at once after a restart of the server. */
const MAX_RESENDS = 3;

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

/** Told about every request: for metrics. `code` is the HTTP status, or `error` when there was no answer, with the class of that. */
export type RequestObserver = (verb: string, code: string, seconds: number, failure?: ReachFailure) => void;

interface Deps {
  readonly clock: Clock;
  readonly serverClock: ServerClock;
  readonly credentials: Credentials;
  readonly observe?: RequestObserver | undefined;
  /** Told when the server goes down, with the last failure, and when it is back. */
  readonly downChanged: (isDown: boolean, failure?: unknown) => void;
}

/**
 * HTTP/1.1 to one API server over a fixed number of warm connections, a second set for streams. Knows credentials,
 * deadlines and body limits, and nothing of objects. Does not retry, but for two cases that are no failure of the server: a
 * 401 after which the credentials turned out to have changed, and a reused socket that had been closed meanwhile. Sends nothing but
 * probes to a server that is down, see `Breaker`.
 */
export class KubeTransport {
  readonly #clock: Clock;
  readonly #serverClock: ServerClock;
  readonly #credentials: Credentials;
  readonly #breaker: Breaker;
  readonly #observe: RequestObserver | undefined;
  readonly #config: KubeCredentials;
  readonly #origin: string;
  readonly #basePath: string;
  #pools: { readonly tls: TlsMaterial; readonly requests: Dispatcher; readonly streams: Dispatcher } | undefined;
  #closed = false;
  #pending = 0;
  #trouble: string | undefined;

  constructor({ clock, serverClock, credentials, observe, downChanged }: Deps, config: KubeCredentials) {
    this.#clock = clock;
    this.#serverClock = serverClock;
    this.#credentials = credentials;
    this.#breaker = new Breaker(clock, { probe: (signal) => this.#probe(signal), moved: downChanged });
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

  /** Whether the server did not answer so often that nothing but probes is sent to it now. */
  get isDown(): boolean {
    return this.#breaker.isOpen;
  }

  /**
   * Sends a request and reads the answer, whatever its status. Rejects with `TimeoutError` after the deadline (30 s), with
   * the signal's reason, with the socket's error, or with a `ServerDownError`; throws `too_many_requests` beyond 2,048 pending ones.
   */
  async request(
    method: Dispatcher.HttpMethod,
    path: string,
    options: RequestOptions,
    signal: AbortSignal,
  ): Promise<KubeResponse> {
    await this.#breaker.pass(signal);
    return await this.#judged(() => this.#request(method, path, options, signal), signal);
  }

  /** Whether the server says that it is ready; a refusal (401, 403) is an answer, too. Rejects only with the signal's reason. */
  async ready(signal: AbortSignal): Promise<boolean> {
    try {
      await this.#breaker.pass(signal);
      return await this.#probe(signal);
    } catch (error) {
      if (signal.aborted) throw error;
      return false;
    }
  }

  /** Why the last look at whether it is ready failed, with what to look at next; undefined after one that did not. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** Host name or address of the server, or of the proxy before it. */
  get host(): string {
    return new URL(this.#config.proxyUrl ?? this.#origin).hostname;
  }

  /** Asks the server once over a connection of its own. Rejects with the socket's error, and when something in between has no answer of it. */
  async reach(signal: AbortSignal): Promise<void> {
    const { authorization, tls } = await this.#credentials.current(signal);
    const limits = { connections: 1, bodyTimeout: READY_DEADLINE_MS, maxResponseSize: MAX_BODY_BYTES };
    const connection = openPool(this.#config, this.#origin, tls, limits);
    try {
      const headers = { 'user-agent': 'brokkr-agent', ...(authorization !== undefined && { authorization }) };
      const path = `${this.#basePath}/version`;
      const { statusCode, body } = await connection.request({ origin: this.#origin, method: 'GET', path, headers, signal });
      await body.dump({ limit: MAX_BODY_BYTES, signal });
      if (statusCode >= 500) throw new BrokkrError('unavailable', `the API server answered with HTTP ${statusCode}`);
    } finally {
      await connection.destroy(null);
    }
  }

  async #request(
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
    await this.#breaker.pass(signal);
    const opened = await this.#judged(() => this.#open(path, options, signal), signal);
    if ('headers' in opened) throw kubeError(opened.status, opened.body, header(opened.headers, 'retry-after'));
    return opened;
  }

  async #open(path: string, options: RequestOptions, signal: AbortSignal): Promise<KubeStream | KubeResponse> {
    for (let reloaded = false; ; ) {
      const response = await this.#send('GET', path, options, 'streams', signal);
      if (response.statusCode >= 200 && response.statusCode <= 299) return { status: response.statusCode, body: response.body };
      const body = await response.body.text();
      if (response.statusCode === 401 && !reloaded) {
        reloaded = true;
        if (await this.#credentials.reload(signal)) continue;
      }
      return { status: response.statusCode, headers: response.headers, body };
    }
  }

  /** Ends every connection at once. Requests in flight reject. */
  async close(): Promise<void> {
    this.#closed = true;
    const pools = this.#pools;
    this.#pools = undefined;
    if (pools) await Promise.all([pools.requests.destroy(null), pools.streams.destroy(null)]);
  }

  /** Whether the server is ready. Never rejects but with the signal's reason. */
  async #probe(signal: AbortSignal): Promise<boolean> {
    const options = { verb: 'readyz', deadlineMs: READY_DEADLINE_MS };
    this.#trouble = undefined;
    try {
      const { status } = await this.#judged(() => this.#request('GET', '/readyz', options, signal), signal);
      if (status >= 500) this.#trouble = `it says with HTTP ${status} that it is not ready`;
      return status < 500;
    } catch (error) {
      if (signal.aborted) throw error;
      this.#trouble = explainFailure(error);
      return false;
    }
  }

  /** Tells the breaker how a request went. */
  async #judged<Answer extends KubeStream | KubeResponse>(work: () => Promise<Answer>, signal: AbortSignal): Promise<Answer> {
    try {
      const answer = await work();
      if ('headers' in answer && isTrouble(answer.status, answer.body))
        this.#breaker.failed(new ReachError('status', `it answers with HTTP ${answer.status}`));
      else this.#breaker.succeeded();
      return answer;
    } catch (error) {
      const isOurs = signal.aborted || this.#closed || error instanceof BrokkrError; // no credential, too many at a time
      if (!isOurs) this.#breaker.failed(error);
      throw error;
    }
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
        path: this.#basePath + path + queryString(options.query),
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
      this.#serverClock.heard(header(response.headers, 'date'), this.#clock.monotonic() - startedAt);
      this.#observe?.(verb, String(response.statusCode), seconds());
      return response;
    } catch (error) {
      const isWanted = !signal.aborted || this.#closed || signal.reason instanceof TimeoutError;
      if (isWanted) this.#observe?.(verb, 'error', seconds(), reachFailure(error) ?? 'unknown');
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

function impersonationHeaders(as: Impersonation | undefined): Record<string, string | string[]> {
  if (!as) return {};
  return { 'impersonate-user': as.user, ...(as.groups && as.groups.length > 0 && { 'impersonate-group': [...as.groups] }) };
}
