import { context, diag, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-grpc';
import { defaultResource, resourceFromAttributes } from '@opentelemetry/resources';
import { NodeSDK } from '@opentelemetry/sdk-node';
import { ParentBasedSampler, TraceIdRatioBasedSampler } from '@opentelemetry/sdk-trace';
import { dialSocket, portOf } from './check-network.ts';
import { SpanQueue, type SpanResult } from './span-queue.ts';
import type { Telemetry, TelemetryConfig, TelemetryDeps } from './telemetry.ts';
import { MAX_ATTRIBUTE_CHARS } from './tracing.ts';

/** Bound of one request to the collector. */
const EXPORT_TIMEOUT_MS = 5_000;
/** Bound of finding out whether it can be reached. */
const REACH_TIMEOUT_MS = 5_000;
/** Of one span. */
const MAX_ATTRIBUTES = 32;

/** Sets up traces, and nothing else: no metrics, no logs, no instrumentation, no detection of where the process runs. Use `openTelemetry`. */
export function startSdk(config: TelemetryConfig, { log, clock, version, instanceId }: TelemetryDeps): Telemetry {
  let tell: (result: SpanResult, spans: number) => void = () => undefined;
  const exporter = new OTLPTraceExporter({ url: config.otlpEndpoint, timeoutMillis: EXPORT_TIMEOUT_MS });
  const endpoint = portOf(new URL(config.otlpEndpoint));
  const reach = async (signal: AbortSignal) => {
    using deadline = clock.deadline(REACH_TIMEOUT_MS, signal);
    const socket = await dialSocket(endpoint, deadline.signal).catch((error: unknown) => {
      throw deadline.signal.aborted ? deadline.signal.reason : error;
    });
    socket.destroy();
  };
  const queue = new SpanQueue({ exporter, reach, clock, log, count: (result, spans) => tell(result, spans) });
  new NodeSDK({
    resource: defaultResource().merge(resourceFromAttributes({ 'service.version': version, 'service.instance.id': instanceId })),
    serviceName: config.serviceName,
    autoDetectResources: false,
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(config.samplingRate) }),
    spanProcessors: [queue],
    spanLimits: { attributeCountLimit: MAX_ATTRIBUTES, attributeValueLengthLimit: MAX_ATTRIBUTE_CHARS },
    textMapPropagator: null,
    instrumentations: [],
    metricReaders: [],
    logRecordProcessors: [],
  }).start();
  return {
    count: (to) => {
      tell = to;
    },
    async [Symbol.asyncDispose]() {
      await queue[Symbol.asyncDispose]();
      for (const api of [trace, context, diag]) api.disable();
    },
  };
}
