import type { Clock } from '#lib/clock.ts';
import type { ListenerCounts } from '#lib/listener.ts';
import { declareListenerMetrics } from '#lib/listener-metrics.ts';
import { createMetrics, type Metrics } from '#lib/metrics.ts';
import { declareSegmentMetrics } from '#lib/segment-metrics.ts';

/** The metrics of a gateway that are set where something happens; labels are closed sets. */
export type GatewayMetrics = ReturnType<typeof declareGatewayMetrics>;

/** What the gauges look at. */
export interface GatewayView {
  readonly listener: () => ListenerCounts;
  readonly endpoints: () => readonly { readonly name: string; readonly open: number; readonly problem: string | undefined }[];
  readonly clock: Clock;
}

/** A registry with everything in it, the process included. */
export function createGatewayMetrics(view: GatewayView): { readonly metrics: Metrics; readonly declared: GatewayMetrics } {
  const metrics = createMetrics({ processMetrics: true });
  return { metrics, declared: declareGatewayMetrics(metrics, view) };
}

/** Declares the metrics. Endpoints are those of the settings. */
export function declareGatewayMetrics(metrics: Metrics, view: GatewayView) {
  declareListenerMetrics(metrics, 'gateway_', view.listener, view.clock);
  declareSegmentMetrics(metrics, 'gateway_');
  metrics.gauge({
    name: 'gateway_upstream_healthy',
    help: '1 when the upstream passed its last check',
    labels: ['endpoint'],
    collect(gauge) {
      for (const { name, problem } of view.endpoints()) gauge.set({ endpoint: name }, problem === undefined ? 1 : 0);
    },
  });
  metrics.gauge({
    name: 'gateway_upstream_requests',
    help: 'requests under way at an upstream',
    labels: ['endpoint'],
    collect(gauge) {
      for (const { name, open } of view.endpoints()) gauge.set({ endpoint: name }, open);
    },
  });
  return {
    open: metrics.gauge({
      name: 'gateway_open_requests',
      help: 'requests that are not complete, by version of HTTP',
      labels: ['version'],
    }),
    requests: metrics.counter({
      name: 'gateway_requests_total',
      help: 'requests by class of their status; none: the client left before there was one',
      labels: ['version', 'status'],
    }),
    upstreamFailures: metrics.counter({
      name: 'gateway_upstream_failures_total',
      help: 'requests and checks that did not reach an upstream, by kind: nxdomain, dns, refused, unreachable, timeout, reset, tls, certificate, protocol, unknown',
      labels: ['endpoint', 'kind'],
    }),
    seconds: metrics.histogram({
      name: 'gateway_request_duration_seconds',
      help: 'time from the headers of a request to the end of its answer',
      labels: ['version'],
    }),
  };
}
