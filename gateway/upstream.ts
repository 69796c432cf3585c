import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { explainFailure, type ReachFailure, reachFailure } from '#lib/reach-failure.ts';
import type { Task } from '#lib/run.ts';
import type { Timeouts } from '#lib/timeouts.ts';
import { type Address, DialError } from './dial.ts';
import type { Answer, UpstreamRequest } from './exchange.ts';
import { Http1Connections, type UpgradeAnswer } from './send-http1.ts';
import { Http2Sessions } from './send-http2.ts';

/** How upstreams are spoken to and looked after. Times in milliseconds. */
export interface UpstreamOptions {
  readonly protocol: 'http2' | 'http1';
  readonly connectTimeoutMs: number;
  readonly pingMs: number;
  readonly healthPath: string;
  readonly healthIntervalMs: number;
}

/** One process that takes requests. */
export interface Endpoint {
  /** Host and port, for logs and metrics. */
  readonly name: string;
  readonly http1: Http1Connections;
  readonly http2: Http2Sessions;
  /** Requests that are under way. */
  open: number;
  /** Why it is passed over while others are healthy; undefined: it is healthy. */
  problem: string | undefined;
}

/** What looking after them needs. `failed` is told each time one was not reached. */
export interface UpstreamDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly failed: (endpoint: string, kind: ReachFailure) => void;
}

/** An answer, and who gave it. */
export interface Served<T> {
  readonly endpoint: Endpoint;
  readonly answer: T;
}

/** No endpoint could be reached. */
export class UnreachableError extends Error {
  override readonly name = 'UnreachableError';
}

/** The processes behind the gateway: chooses among them, and finds out who is healthy. */
export class Upstream implements Task {
  readonly name = 'upstream';
  readonly endpoints: readonly Endpoint[];
  readonly #deps: UpstreamDeps;
  readonly #options: UpstreamOptions;

  constructor(addresses: readonly Address[], deps: UpstreamDeps & { readonly timeouts: Timeouts }, options: UpstreamOptions) {
    this.#deps = deps;
    this.#options = options;
    this.endpoints = addresses.map((address) => ({
      name: address.url.host,
      http1: new Http1Connections(address, deps.timeouts, options.connectTimeoutMs),
      http2: new Http2Sessions(address, deps, options),
      open: 0,
      problem: undefined,
    }));
  }

  /**
   * Sends a request to the endpoint with the least to do, and to the next one when it cannot be reached. Count down `open` of
   * the endpoint when the answer has ended.
   */
  send(request: UpstreamRequest, signal: AbortSignal): Promise<Served<Answer>> {
    return this.#first((endpoint) => this.#sendTo(endpoint, request, signal), signal);
  }

  /** The same for a request to become a WebSocket. */
  upgrade(request: UpstreamRequest, signal: AbortSignal): Promise<Served<UpgradeAnswer>> {
    return this.#first((endpoint) => endpoint.http1.upgrade(request, signal), signal);
  }

  /** Asks every endpoint in each interval whether it is healthy. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.endpoints.map((endpoint) => this.#watch(endpoint, signal)));
  }

  /** Ends all connections as soon as nothing is under way on them. Nothing can be sent afterwards. */
  close(): void {
    for (const { http1, http2 } of this.endpoints) {
      http1.close();
      http2.close();
    }
  }

  #sendTo({ http1, http2 }: Endpoint, request: UpstreamRequest, signal: AbortSignal): Promise<Answer> {
    return this.#options.protocol === 'http2' ? http2.send(request, signal) : http1.send(request, signal);
  }

  /** Healthy ones first; when nobody is, everybody is tried, for the check itself may be what is wrong. */
  async #first<T>(use: (endpoint: Endpoint) => Promise<T>, signal: AbortSignal): Promise<Served<T>> {
    const order = this.endpoints.toSorted(
      (a, b) => Number(a.problem !== undefined) - Number(b.problem !== undefined) || a.open - b.open,
    );
    const reasons: string[] = [];
    for (const endpoint of order) {
      endpoint.open++;
      try {
        return { endpoint, answer: await use(endpoint) };
      } catch (error) {
        endpoint.open--;
        if (!(error instanceof DialError) || signal.aborted) throw error;
        this.#unreached(endpoint, error);
        this.#judge(endpoint, error.message);
        reasons.push(error.message);
      }
    }
    throw new UnreachableError(reasons.join('; '));
  }

  async #watch(endpoint: Endpoint, signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    while (!signal.aborted) {
      const problem = await this.#ask(endpoint, signal);
      if (signal.aborted) return;
      this.#judge(endpoint, problem);
      await clock.sleep(this.#options.healthIntervalMs, signal).catch(() => undefined);
    }
  }

  async #ask(endpoint: Endpoint, signal: AbortSignal): Promise<string | undefined> {
    const { healthPath, connectTimeoutMs } = this.#options;
    const request = { method: 'GET', target: healthPath, host: endpoint.name, headers: {}, body: undefined };
    using deadline = this.#deps.clock.deadline(connectTimeoutMs, signal);
    try {
      const { status, body } = await this.#sendTo(endpoint, request, deadline.signal);
      body?.on('error', () => undefined).resume();
      return status >= 200 && status < 300 ? undefined : `${endpoint.name}: ${healthPath} answers ${status}`;
    } catch (error) {
      if (!signal.aborted) this.#unreached(endpoint, error);
      return error instanceof DialError ? error.message : `${endpoint.name}: ${healthPath} ${explainFailure(error)}`;
    }
  }

  #unreached({ name }: Endpoint, error: unknown): void {
    this.#deps.failed(name, reachFailure(error) ?? 'unknown');
  }

  #judge(endpoint: Endpoint, problem: string | undefined): void {
    const was = endpoint.problem;
    endpoint.problem = problem;
    if (problem !== undefined && was !== problem)
      this.#deps.log.warn({ endpoint: endpoint.name, error: problem }, 'upstream is not healthy');
    if (problem === undefined && was !== undefined) this.#deps.log.info({ endpoint: endpoint.name }, 'upstream is healthy again');
  }
}
