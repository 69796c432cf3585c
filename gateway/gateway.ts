import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import type { Clock } from '#lib/clock.ts';
import { HealthServer } from '#lib/health-server.ts';
import { createListener, type Listener } from '#lib/listener.ts';
import type { Logger } from '#lib/log.ts';
import type { Task } from '#lib/run.ts';
import { aborted } from '#lib/signal.ts';
import { countSpans, type Telemetry } from '#lib/telemetry.ts';
import { Timeouts } from '#lib/timeouts.ts';
import { Authorities } from './authorities.ts';
import type { GatewayConfig } from './config.ts';
import { http1Exchange, http2Exchange } from './listen.ts';
import { createGatewayMetrics } from './metrics.ts';
import { proxy } from './proxy.ts';
import { Upstream } from './upstream.ts';
import { proxyWebSocket } from './websocket.ts';

/** What a gateway is built on. */
export interface GatewayDeps {
  /** What `gateway.upstream_ca_file` holds. */
  readonly ca: string | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** Undefined while no traces are made. */
  readonly telemetry?: Telemetry | undefined;
}

/** Builds all parts of a gateway; they run until the abort, then requests under way may end. */
export function createGateway({ gateway: config }: GatewayConfig, { ca, clock, log, telemetry }: GatewayDeps): Task[] {
  const timeouts = new Timeouts(clock);
  const { metrics, declared } = createGatewayMetrics({
    listener: () => listener.counts(),
    endpoints: () => upstream.endpoints,
    clock,
  });
  countSpans(metrics, telemetry);
  const failed = (endpoint: string, kind: string) => declared.upstreamFailures.inc({ endpoint, kind });
  const authorities = new Authorities({ file: config.upstreamCaFile, pem: ca }, { clock, log });
  const upstream: Upstream = new Upstream(
    config.upstreams.map((url) => ({ url: new URL(url), ca: () => authorities.pem })),
    { clock, log, timeouts, failed },
    { ...config, protocol: config.upstreamProtocol, pingMs: config.pingIntervalMs },
  );
  const deps = { upstream, metrics: declared, timeouts, clock, log };
  const listener: Listener = createListener(
    {
      // of HTTP/1.1, for every HTTP/2 stream is taken below
      handle: (request, response) =>
        void proxy(http1Exchange(request as IncomingMessage, response as ServerResponse), deps, config.responseTimeoutMs),
      handleStream(stream, headers) {
        void proxy(http2Exchange(stream, headers, timeouts), deps, config.responseTimeoutMs);
        return true;
      },
      handleUpgrade: (request, socket, head) => void proxyWebSocket(request, socket, head, deps, config.responseTimeoutMs),
      timeouts,
      clock,
      log,
    },
    {
      listen: config.listen,
      tls: config.certificates.map((dir) => ({ certFile: join(dir, 'tls.crt'), keyFile: join(dir, 'tls.key') })),
      headerTimeoutMs: config.headerTimeoutMs,
      requestTimeoutMs: config.requestTimeoutMs,
      pingMs: config.pingIntervalMs,
      maxConnections: config.maxConnections,
    },
  );
  let serving = false;
  const server: Task = {
    name: 'listener',
    async run(signal) {
      try {
        const address = await listener.open();
        serving = true;
        log.info({ address }, 'gateway serves');
        await aborted(signal);
        serving = false;
        await drain(listener, clock, config.drainMs);
      } finally {
        listener.destroy();
        upstream.close();
      }
    },
  };
  const health = new HealthServer(
    { metrics, view: { problems: () => problems(serving, upstream), state: () => upstream.endpoints.map(stateOf) }, log },
    { host: config.adminHost, port: config.adminPort },
  );
  return [server, upstream, health, authorities];
}

/** Ready with one healthy upstream; the others are what the metrics are for. */
function problems(serving: boolean, { endpoints }: Upstream): string[] {
  if (!serving) return ['no connections are taken'];
  const found = endpoints.flatMap(({ problem }) => problem ?? []);
  return found.length < endpoints.length ? [] : found;
}

function stateOf({
  name,
  open,
  problem,
}: {
  readonly name: string;
  readonly open: number;
  readonly problem: string | undefined;
}) {
  return { endpoint: name, open_requests: open, problem: problem ?? null };
}

/** Lets requests end for `drainMs`. */
async function drain(listener: Listener, clock: Clock, drainMs: number): Promise<void> {
  listener.stopAccepting();
  const stop = new AbortController();
  await Promise.race([listener.emptied(), clock.sleep(drainMs, stop.signal).catch(() => undefined)]);
  stop.abort();
}
