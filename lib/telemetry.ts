import type { Clock } from './clock.ts';
import type { Settings } from './config.ts';
import type { Logger } from './log.ts';
import type { Metrics } from './metrics.ts';
import type { SpanResult } from './span-queue.ts';

/** The settings of traces, which every process has; `serviceName` is what it is called in them. */
export function telemetrySettings<const N extends string>(serviceName: N) {
  return {
    'telemetry.enabled': { type: 'bool', default: false, meaning: 'traces over OTLP (docs/traces.md)' },
    'telemetry.otlp_endpoint': {
      type: 'string',
      default: 'http://localhost:4317',
      pattern: /^(http:\/\/[^\s/@?#]+:\d{1,5}|https:\/\/[^\s/@?#]+)\/?$/,
      meaning: 'collector that takes OTLP over gRPC: http://host:port, or https://host:port for TLS',
    },
    'telemetry.sampling_rate': {
      type: 'number',
      default: 0.1,
      min: 0,
      max: 1,
      meaning: 'share of the traces begun here that are kept; for others the decision of whoever began them holds',
    },
    'telemetry.service_name': { type: 'string', default: serviceName, pattern: /\S/, meaning: 'service.name in traces' },
  } as const satisfies Settings;
}

/** The section `telemetry` of a configuration. */
export interface TelemetryConfig {
  readonly enabled: boolean;
  readonly otlpEndpoint: string;
  /** 0 to 1. */
  readonly samplingRate: number;
  readonly serviceName: string;
}

/** What telemetry needs of its process. */
export interface TelemetryDeps {
  readonly log: Logger;
  readonly clock: Clock;
  /** Version of the process. */
  readonly version: string;
  /** Random id of the process. */
  readonly instanceId: string;
}

/** Traces that are being made. Dispose it after everything else has ended: what waits is sent, for 2 s at most. */
export interface Telemetry extends AsyncDisposable {
  /** Has `tell` told what becomes of spans from now on. */
  count(tell: (result: SpanResult, spans: number) => void): void;
}

/** Loads the SDK and begins to make traces, if they are switched on. Await it before the first request is served. */
export async function openTelemetry(config: TelemetryConfig, deps: TelemetryDeps): Promise<Telemetry | undefined> {
  if (!config.enabled) return undefined;
  const { startSdk } = await import('./telemetry-sdk.ts'); // 43 MB and 200 ms that only those pay who want traces
  return startSdk(config, deps);
}

/** Declares the metric of spans; 0 of everything while there are no traces. */
export function countSpans(metrics: Metrics, telemetry: Pick<Telemetry, 'count'> | undefined): void {
  const spans = metrics.counter({
    name: 'trace_spans_total',
    help: 'spans of sampled traces: exported, dropped for want of room in the queue, failed because the collector did not take them',
    labels: ['result'],
  });
  telemetry?.count((result, number) => spans.inc({ result }, number));
}
