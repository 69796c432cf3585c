import type { DescMethod, DescService } from '@bufbuild/protobuf';
import type { ConnectRouter, Interceptor } from '@connectrpc/connect';
import type { Clock } from '#lib/clock.ts';
import { createListener, type Listener, type ListenerCounts } from '#lib/listener.ts';
import type { Logger } from '#lib/log.ts';
import type { Task } from '#lib/run.ts';
import { aborted } from '#lib/signal.ts';
import { Timeouts } from '#lib/timeouts.ts';
import type { TlsFiles } from '#lib/tls.ts';
import { Health } from '#proto/grpc/health/v1/health_pb.js';
import { createDispatcher, type PlainHandler, type ServedRequest } from './dispatch.ts';
import { type Authenticate, createGate, type RequestGate } from './gate.ts';
import type { HotMethod } from './grpc-stream.ts';
import { createHealth } from './health.ts';
import { createHotStreams, type HotStreams } from './hot-streams.ts';
import { registerReflection } from './reflection.ts';
import type { Route } from './routes.ts';
import { createRpc } from './rpc.ts';
import { connectErrorOf } from './rpc-errors.ts';
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
  counts(): ListenerCounts & { readonly hotStreams: number };
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
  const hot = createHotStreams({ methods: deps.hot ?? [], gate, handlers: rpc.handlers, clock, log, newId: deps.newId });
  const requestTimeoutMs = limits.requestTimeoutMs ?? 300_000;
  const timeouts = new Timeouts(clock);
  const handle = createDispatcher({ ...deps, rpc, transcoder, timeouts }, requestTimeoutMs);
  const listener = createListener(
    { handle, handleStream: hot.take, timeouts, clock, log },
    {
      listen: config.listen,
      tls: config.tls ? [config.tls] : [],
      headerTimeoutMs: limits.headerTimeoutMs ?? 10_000,
      requestTimeoutMs,
      pingMs: limits.pingMs ?? 30_000,
      maxConnections: limits.maxConnections ?? 20_000,
    },
  );
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
        await aborted(signal);
        health.set(false);
        await drain(listener, hot, shutdown, clock, config.drainMs ?? 10_000);
      } catch (error) {
        opened.reject(error);
        throw error;
      } finally {
        listener.destroy();
      }
    },
  };
}

/** Lets calls finish for `drainMs`, then tells those that are left why they must end, and gives them a moment more. */
async function drain(
  listener: Listener,
  hot: HotStreams,
  shutdown: AbortController,
  clock: Clock,
  drainMs: number,
): Promise<void> {
  listener.stopAccepting();
  await within(clock, drainMs, listener.emptied());
  const draining = { code: 'draining', message: 'the broker is stopping, try another replica' } as const;
  shutdown.abort(connectErrorOf(draining));
  for (const stream of hot.streams) stream.end(draining);
  await within(clock, LAST_CALL_MS, listener.emptied());
}

/** AgentSync serves agents that are up to two minor versions older or newer; everybody else should hear of a typo. */
function ignoresUnknown(method: DescMethod): boolean {
  return method.parent.typeName === 'brokkr.v1.AgentSync' || method.parent.typeName.startsWith('grpc.');
}

/** Waits for `done`, but no longer than `ms`. */
async function within(clock: Clock, ms: number, done: Promise<void>): Promise<void> {
  const stop = new AbortController();
  await Promise.race([done, clock.sleep(ms, stop.signal).catch(() => undefined)]);
  stop.abort();
}
