import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { DescMethod, DescService } from '@bufbuild/protobuf';
import { type ConnectRouter, createContextValues, type Interceptor } from '@connectrpc/connect';
import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Task } from '#lib/run.ts';
import { aborted } from '#lib/signal.ts';
import { Health } from '#proto/grpc/health/v1/health_pb.js';
import { callKey, callOf, principalKey } from './context.ts';
import { type Authenticate, createGate, type Gate, type RequestGate } from './gate.ts';
import { type HotMethod, type HotStream, isHotRequest, openHotStream, refuseHotStream } from './grpc-stream.ts';
import { createHealth } from './health.ts';
import { createListener, type Listener } from './listener.ts';
import { registerReflection } from './reflection.ts';
import { hasBody, type IncomingRequest, type OutgoingResponse, pathOf, sendError } from './request.ts';
import type { Route } from './routes.ts';
import { createRpc, type Rpc } from './rpc.ts';
import { connectErrorOf, errorBodyOf, translate } from './rpc-errors.ts';
import type { TlsFiles } from './tls.ts';
import { createTranscoder } from './transcode.ts';

/** What the port serves and whom it asks. */
export interface ServerDeps {
  /** Registers the services; each method gets its own limit and strictness. */
  readonly router: (router: ConnectRouter) => void;
  /** Run inside the one that translates errors, first is outermost; validation belongs here. */
  readonly interceptors: readonly Interceptor[];
  /** Finds out who calls; not asked for public methods. */
  readonly authenticate: Authenticate;
  /** Asked after authentication and before the body is read; not for hot streams, whose `open` sees the principal. */
  readonly requestGate?: RequestGate | undefined;
  /** For REST, reflection and health. */
  readonly services: readonly DescService[];
  readonly hot?: readonly HotMethod[];
  /** Plain paths, `/healthz` for example. */
  readonly plain?: Readonly<Record<string, PlainHandler>>;
  readonly log: Logger;
  readonly clock: Clock;
  readonly newId: () => string;
  /** Told of every request that was answered. */
  readonly observe?: ((request: ServedRequest) => void) | undefined;
}

/** Answers a plain path. A throw is logged and answered with 500. */
export type PlainHandler = (request: IncomingRequest, response: OutgoingResponse) => void | Promise<void>;

/** A request that was answered, for metrics: labels from small closed sets. */
export interface ServedRequest {
  /** rest, rpc or plain. */
  readonly kind: 'rest' | 'rpc' | 'plain';
  /** `/package.Service/Method` or the plain path; 'none' for paths that lead nowhere. */
  readonly target: string;
  readonly status: number;
  readonly durationMs: number;
}

/** Settings of the port. Times in milliseconds. */
export interface ServerConfig {
  /** `host:port`; port 0 for a free one. */
  readonly listen: string;
  readonly tls?: TlsFiles | undefined;
  /** Whether reflection is served; true when absent. */
  readonly reflection?: boolean;
  /** How long calls may go on after the abort; 10,000 when absent. */
  readonly drainMs?: number;
  readonly limits?: ServerLimits;
}

/** Limits of the port; each has a default. */
export interface ServerLimits {
  /** Largest request, bytes; 1 MiB. */
  readonly requestBytes?: number;
  /** Largest request of single methods, `/package.Service/Method` → bytes. */
  readonly methodBytes?: Readonly<Record<string, number>>;
  /** 10,000. */
  readonly headerTimeoutMs?: number;
  /** 300,000. */
  readonly requestTimeoutMs?: number;
  /** 30,000. */
  readonly pingMs?: number;
  /** 20,000. */
  readonly maxConnections?: number;
}

/** The one port of the broker. */
export interface Server extends Task {
  /** Resolves with the address in use, `host:port`, once connections are taken; rejects when that fails. */
  readonly ready: Promise<string>;
  /** The REST routes that are served. */
  readonly routes: readonly Route[];
  /** What gRPC health clients are told; true from `ready` to the abort. */
  setServing(serving: boolean): void;
  /** Numbers of now, for gauges. */
  counts(): { readonly connections: number; readonly http2Sessions: number; readonly hotStreams: number };
}

const DEFAULT_REQUEST_BYTES = 1024 * 1024;
/** How long calls may take to end after they were told that the time to finish is over. */
const LAST_CALL_MS = 1000;

/** Builds the server; it listens once it runs. */
export function createServer(deps: ServerDeps, config: ServerConfig): Server {
  const { clock, log } = deps;
  const limits = config.limits ?? {};
  const shutdown = new AbortController();
  const gate = createGate(deps.authenticate);
  const health = createHealth(deps.services.map((service) => service.typeName));
  const maxRequestBytes = (method: DescMethod) =>
    limits.methodBytes?.[`/${method.parent.typeName}/${method.name}`] ?? limits.requestBytes ?? DEFAULT_REQUEST_BYTES;
  const router = (connect: ConnectRouter) => {
    deps.router(connect);
    health.register(connect);
    if (config.reflection ?? true) registerReflection(connect, [...deps.services, Health]);
  };
  const rpc = createRpc(
    { router, interceptors: deps.interceptors, gate, requestGate: deps.requestGate, log, newId: deps.newId },
    { maxRequestBytes, ignoresUnknown, shutdownSignal: shutdown.signal },
  );
  const transcoder = createTranscoder(
    { handlers: rpc.handlers, gate, log, newId: deps.newId },
    { services: deps.services, maxRequestBytes, ignoresUnknown },
  );
  const hot = createHotStreams(deps, gate, rpc);
  const requestTimeoutMs = limits.requestTimeoutMs ?? 300_000;
  const listener: Listener = createListener(
    { handle, handleStream: hot.take, clock, log },
    {
      listen: config.listen,
      tls: config.tls,
      headerTimeoutMs: limits.headerTimeoutMs ?? 10_000,
      requestTimeoutMs,
      pingMs: limits.pingMs ?? 30_000,
      maxConnections: limits.maxConnections ?? 20_000,
    },
  );

  function handle(request: IncomingRequest, response: OutgoingResponse): void {
    const { path } = pathOf(request);
    const handler = rpc.handlers.get(path);
    if (request.httpVersionMajor > 1 && !(handler && isClientStream(handler.method)))
      limitUpload(listener, requestTimeoutMs, request, response);
    if (handler) {
      observed('rpc', path, response);
      void rpc.serve(handler, request, response);
    } else if (path.startsWith('/api/')) {
      observed('rest', 'rest', response);
      void transcoder.handle(request, response);
    } else {
      const known = deps.plain && Object.hasOwn(deps.plain, path) ? deps.plain[path] : undefined;
      observed('plain', known ? path : 'none', response);
      if (known) void servePlain(known, request, response, log);
      else sendError(request, response, 404, { code: 'not_found', message: `nothing at ${path}` });
    }
  }

  function observed(kind: ServedRequest['kind'], target: string, response: OutgoingResponse): void {
    const { observe } = deps;
    if (!observe) return;
    const startMs = clock.monotonic();
    response.once('close', () => observe({ kind, target, status: response.statusCode, durationMs: clock.monotonic() - startMs }));
  }

  const opened = Promise.withResolvers<string>();
  opened.promise.catch(() => undefined); // run() rejects with the same error
  return {
    name: 'server',
    ready: opened.promise,
    routes: transcoder.routes.all,
    setServing: health.set,
    counts: () => ({ ...listener.counts(), hotStreams: hot.streams.size }),
    async run(signal) {
      try {
        const address = await listener.open();
        health.set(true);
        log.info({ address, tls: config.tls !== undefined }, 'listening');
        opened.resolve(address);
      } catch (error) {
        opened.reject(error);
        listener.destroy();
        throw error;
      }
      await aborted(signal);
      health.set(false);
      listener.stopAccepting();
      await within(clock, config.drainMs ?? 10_000, listener.emptied());
      const draining = { code: 'draining', message: 'the broker is stopping, try another replica' } as const;
      shutdown.abort(connectErrorOf(draining));
      for (const stream of hot.streams) stream.end(draining);
      await within(clock, LAST_CALL_MS, listener.emptied());
      listener.destroy();
    },
  };
}

/** AgentSync serves agents that are up to two minor versions older or newer; everybody else should hear of a typo. */
function ignoresUnknown(method: DescMethod): boolean {
  return method.parent.typeName === 'brokkr.v1.AgentSync' || method.parent.typeName.startsWith('grpc.');
}

function isClientStream(method: DescMethod): boolean {
  return method.methodKind === 'bidi_streaming' || method.methodKind === 'client_streaming';
}

/** HTTP/1.1 limits the time of a request by itself; HTTP/2 does not. */
function limitUpload(listener: Listener, timeoutMs: number, request: IncomingRequest, response: OutgoingResponse): void {
  if (!hasBody(request)) return;
  const cancel = listener.timeouts.add(timeoutMs, () => {
    sendError(request, response, 408, {
      code: 'deadline_exceeded',
      message: `the request was not complete within ${timeoutMs} ms`,
    });
    request.destroy();
  });
  request.once('end', cancel);
  response.once('close', cancel);
}

async function servePlain(
  handler: PlainHandler,
  request: IncomingRequest,
  response: OutgoingResponse,
  log: Logger,
): Promise<void> {
  try {
    await handler(request, response);
  } catch (error) {
    log.error({ path: request.url, error: errorText(error) }, 'plain request failed');
    sendError(request, response, 500, { code: 'internal_error', message: 'something went wrong in the broker' });
  }
}

interface HotStreams {
  readonly streams: ReadonlySet<HotStream>;
  /** False when the stream is not for a hot method. */
  take(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): boolean;
}

function createHotStreams({ hot = [], clock, log, newId }: ServerDeps, gate: Gate, rpc: Rpc): HotStreams {
  const methods = new Map(hot.map((method) => [method.path, method]));
  const streams = new Set<HotStream>();
  for (const { path } of hot)
    if (!rpc.handlers.has(path)) throw new Error(`${path} is served by nobody else: clients of other protocols need it`);

  async function open(method: HotMethod, stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void> {
    const desc = (rpc.handlers.get(method.path) as NonNullable<ReturnType<typeof rpc.handlers.get>>).method;
    try {
      const call = callOf(headers, stream.session?.socket.remoteAddress, newId);
      const values = createContextValues().set(callKey, call);
      await gate.admit(desc, headersOf(headers), values);
      if (stream.destroyed) return;
      const opened = openHotStream(method, stream, headers, { principal: values.get(principalKey), call }, clock);
      if (opened.signal.aborted) return;
      streams.add(opened);
      opened.signal.addEventListener('abort', () => streams.delete(opened), { once: true });
    } catch (error) {
      refuseHotStream(stream, errorBodyOf(translate(error, desc, undefined, log)));
    }
  }

  return {
    streams,
    take(stream, headers) {
      const method = methods.get(headers[':path'] ?? '');
      if (!method || !isHotRequest(headers)) return false;
      void open(method, stream, headers);
      return true;
    },
  };
}

function headersOf(headers: IncomingHttpHeaders): Headers {
  const result = new Headers();
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined && !name.startsWith(':')) result.set(name, Array.isArray(value) ? value.join(', ') : value);
  }
  return result;
}

/** Waits for `done`, but no longer than `ms`. */
async function within(clock: Clock, ms: number, done: Promise<void>): Promise<void> {
  const stop = new AbortController();
  await Promise.race([done, clock.sleep(ms, stop.signal).catch(() => undefined)]);
  stop.abort();
}
