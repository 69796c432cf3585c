import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Logger } from './log.ts';
import type { Metrics } from './metrics.ts';
import type { Task } from './run.ts';
import { aborted } from './signal.ts';

const REQUEST_TIMEOUT_MS = 10_000;
const MAX_CONNECTIONS = 64;

/** What the health port shows. */
export interface HealthView {
  /** Why the process is not ready, one line each; empty when it is. */
  readonly problems: () => readonly string[];
  /** The state of everything, as JSON. */
  readonly state: () => unknown;
}

/** The health port: `/healthz` (the process lives), `/readyz` (it can do its work, otherwise why not), `/health` (JSON), `/metrics`. */
export class HealthServer implements Task {
  readonly name = 'health';
  readonly #deps: { readonly metrics: Metrics; readonly view: HealthView; readonly log: Logger };
  readonly #options: { readonly host: string; readonly port: number };
  readonly #listening = Promise.withResolvers<AddressInfo>();

  constructor(
    deps: { readonly metrics: Metrics; readonly view: HealthView; readonly log: Logger },
    options: { readonly host: string; readonly port: number },
  ) {
    this.#deps = deps;
    this.#options = options;
    this.#listening.promise.catch(() => undefined); // `run` rejects, too
  }

  /** Where it listens, once it does; rejects when the port cannot be had. */
  get address(): Promise<AddressInfo> {
    return this.#listening.promise;
  }

  async run(signal: AbortSignal): Promise<void> {
    if (signal.aborted) {
      this.#listening.reject(signal.reason);
      return;
    }
    const server = createServer(
      { requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS },
      ({ method, url }, response) => {
        this.#answer(method ?? '', (url ?? '').split('?')[0] ?? '', response).catch((error: unknown) => {
          this.#deps.log.error({ error }, 'health request failed');
          response.destroy();
        });
      },
    );
    server.maxConnections = MAX_CONNECTIONS;
    try {
      server.listen(this.#options.port, this.#options.host);
      await once(server, 'listening', { signal });
    } catch (error) {
      server.close(); // an abort in this instant leaves a server that would listen for ever
      this.#listening.reject(error);
      throw error;
    }
    const address = server.address() as AddressInfo;
    this.#listening.resolve(address);
    this.#deps.log.info({ address: `${address.address}:${address.port}` }, 'health port is open');
    await aborted(signal);
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  }

  async #answer(method: string, path: string, response: ServerResponse): Promise<void> {
    const { metrics, view } = this.#deps;
    if (method !== 'GET' && method !== 'HEAD') return text(response, 405, 'only GET and HEAD are served here');
    switch (path) {
      case '/healthz':
        return text(response, 200, 'ok');
      case '/readyz': {
        const problems = view.problems();
        return text(response, problems.length === 0 ? 200 : 503, problems.length === 0 ? 'ok' : problems.join('\n'));
      }
      case '/health':
        return send(response, 200, 'application/json', JSON.stringify(view.state(), plain));
      case '/metrics':
        return send(response, 200, metrics.contentType, await metrics.text());
      default:
        return text(response, 404, 'nothing here: try /healthz, /readyz, /health or /metrics');
    }
  }
}

function text(response: ServerResponse, status: number, body: string): void {
  send(response, status, 'text/plain; charset=utf-8', `${body}\n`);
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
  response.end(body);
}

function plain(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? Number(value) : value;
}
