import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createFileRegistry, fromBinary, toJson } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData } from '@grpc/grpc-js';
import { afterAll, expect } from 'vitest';

/** A span as it arrived. */
export interface ReceivedSpan {
  /** `service.name` of who made it. */
  readonly service: string;
  readonly name: string;
  readonly kind: string;
  /** Lower-case hex, as in `traceparent`. */
  readonly traceId: string;
  readonly spanId: string;
  /** Empty for the first of a trace. */
  readonly parentSpanId: string;
  readonly attributes: Readonly<Record<string, unknown>>;
  /** The reason, when it failed. */
  readonly error: string | undefined;
}

/** A collector of the test's own. */
export interface OtlpReceiver {
  readonly port: number;
  /** Settings of a process that is to send traces to it, those it begins itself at this rate. */
  settings(samplingRate: string, serviceName?: string): Readonly<Record<string, string>>;
  /** In the order of arrival. */
  readonly spans: readonly ReceivedSpan[];
  /** Waits until `wanted` holds for the spans of a trace. */
  trace(traceId: string, wanted: (spans: readonly ReceivedSpan[]) => boolean): Promise<readonly ReceivedSpan[]>;
}

// Descriptors of the OTLP protos, serialised: see README.md beside it.
const registry = createFileRegistry(
  fromBinary(FileDescriptorSetSchema, readFileSync(join(import.meta.dirname, 'trace-service.binpb'))),
);
const PACKAGE = 'opentelemetry.proto.collector.trace.v1';

/** Starts a gRPC server with OTLP's TraceService on a loopback port; with `tls` it speaks TLS. Closed at the end of the file. */
export async function startOtlpReceiver(tls?: { readonly cert: Buffer; readonly key: Buffer }): Promise<OtlpReceiver> {
  const request = registry.getMessage(`${PACKAGE}.ExportTraceServiceRequest`);
  if (!request) throw new Error('trace-service.binpb has no ExportTraceServiceRequest');
  const spans: ReceivedSpan[] = [];
  const server = new Server({ 'grpc.max_receive_message_length': 64 * 1024 * 1024 });
  const method = {
    path: `/${PACKAGE}.TraceService/Export`,
    requestStream: false,
    responseStream: false,
    requestDeserialize: (bytes: Buffer) => toJson(request, fromBinary(request, bytes), { registry }) as ExportJson,
    responseSerialize: (bytes: Buffer) => bytes,
    requestSerialize: () => Buffer.alloc(0),
    responseDeserialize: () => undefined,
  };
  const implementation = (call: ServerUnaryCall<ExportJson, Buffer>, answer: sendUnaryData<Buffer>) => {
    spans.push(...spansOf(call.request));
    answer(null, Buffer.alloc(0));
  };
  server.addService({ Export: method }, { Export: implementation });
  const credentials = tls
    ? ServerCredentials.createSsl(null, [{ cert_chain: tls.cert, private_key: tls.key }])
    : ServerCredentials.createInsecure();
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', credentials, (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  afterAll(() => server.forceShutdown());
  return {
    port,
    spans,
    settings: (samplingRate, serviceName) => ({
      BROKKR__TELEMETRY__ENABLED: 'true',
      BROKKR__TELEMETRY__OTLP_ENDPOINT: `${tls ? 'https' : 'http'}://127.0.0.1:${port}`,
      BROKKR__TELEMETRY__SAMPLING_RATE: samplingRate,
      ...(serviceName !== undefined && { BROKKR__TELEMETRY__SERVICE_NAME: serviceName }),
    }),
    async trace(traceId, wanted) {
      const own = () => spans.filter((span) => span.traceId === traceId);
      await expect
        .poll(() => wanted(own()) || own().map(({ service, name }) => `${service}: ${name}`), { timeout: 30_000 })
        .toBe(true);
      return own();
    },
  };
}

interface ValueJson {
  readonly stringValue?: string;
  readonly boolValue?: boolean;
  readonly intValue?: string;
  readonly doubleValue?: number;
}
type AttributesJson = readonly { readonly key: string; readonly value?: ValueJson }[];
interface ExportJson {
  readonly resourceSpans?: readonly {
    readonly resource?: { readonly attributes?: AttributesJson };
    readonly scopeSpans?: readonly { readonly spans?: readonly SpanJson[] }[];
  }[];
}
interface SpanJson {
  readonly name: string;
  readonly kind: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly attributes?: AttributesJson;
  readonly status?: { readonly code?: string; readonly message?: string };
}

function spansOf({ resourceSpans = [] }: ExportJson): ReceivedSpan[] {
  return resourceSpans.flatMap(({ resource, scopeSpans = [] }) => {
    const service = String(attributesOf(resource?.attributes)['service.name']);
    return scopeSpans.flatMap(({ spans = [] }) => spans.map((span) => ({ service, ...spanOf(span) })));
  });
}

function spanOf({ name, kind, traceId, spanId, parentSpanId, attributes, status }: SpanJson): Omit<ReceivedSpan, 'service'> {
  return {
    name,
    kind: kind.replace('SPAN_KIND_', ''),
    traceId: hex(traceId),
    spanId: hex(spanId),
    parentSpanId: hex(parentSpanId ?? ''),
    attributes: attributesOf(attributes),
    error: status?.code === 'STATUS_CODE_ERROR' ? (status.message ?? '') : undefined,
  };
}

function attributesOf(attributes: AttributesJson = []): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value = {} }) => [key, plain(value)]));
}

function plain({ stringValue, boolValue, intValue, doubleValue }: ValueJson): unknown {
  return stringValue ?? boolValue ?? (intValue === undefined ? doubleValue : Number(intValue));
}

function hex(base64: string): string {
  return Buffer.from(base64, 'base64').toString('hex');
}
