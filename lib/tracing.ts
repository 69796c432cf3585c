import {
  type Attributes,
  type Context,
  context,
  isSpanContextValid,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  trace,
} from '@opentelemetry/api';
import { type ErrorName, errorText } from './errors.ts';

/** Makes spans that do nothing until `openTelemetry` has loaded the SDK. */
const tracer = trace.getTracer('brokkr');

/** Longest text of an attribute or of the reason of a failure, characters; longer ones are cut. */
export const MAX_ATTRIBUTE_CHARS = 256;

/** Version, trace id, span id, flags (W3C Trace Context, 3.2.2); later versions may have more behind a dash. */
const TRACEPARENT = /^(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;

/** Reads a W3C `traceparent`; undefined when it is absent or malformed. */
function parseTraceparent(text: string | undefined): SpanContext | undefined {
  const [, version, traceId = '', spanId = '', flags = '', more] = TRACEPARENT.exec(text ?? '') ?? [];
  if (version === undefined || (version === '00' && more !== undefined)) return undefined;
  const traceFlags = Number.parseInt(flags, 16) & TraceFlags.SAMPLED;
  const parent: SpanContext = { traceId, spanId, traceFlags, isRemote: true };
  return isSpanContextValid(parent) ? parent : undefined;
}

/** The `traceparent` of a request or a record when it is well-formed and sampled: what is worth keeping and passing on. */
export function sampledTraceparent(text: string | undefined): string | undefined {
  const parent = parseTraceparent(text);
  return parent && parent.traceFlags === TraceFlags.SAMPLED ? formatTraceparent(parent) : undefined;
}

/** The `traceparent` of the span under way when it is sampled. */
export function activeTraceparent(): string | undefined {
  const active = activeSpan();
  return active && formatTraceparent(active);
}

/** What tells whoever is sent a request of the span under way, sampled or not; nothing when there is none. */
export function traceHeaders(): { readonly traceparent?: string } {
  const active = trace.getActiveSpan()?.spanContext();
  return active && isSpanContextValid(active) ? { traceparent: formatTraceparent(active) } : {};
}

/** Ids of the sampled span under way, for log lines; nothing when there is none. */
export function activeTraceFields(): { readonly trace_id?: string; readonly span_id?: string } {
  const active = activeSpan();
  return active ? { trace_id: active.traceId, span_id: active.spanId } : {};
}

function activeSpan(): SpanContext | undefined {
  const active = trace.getActiveSpan()?.spanContext();
  return active && active.traceFlags & TraceFlags.SAMPLED ? active : undefined;
}

function formatTraceparent({ traceId, spanId, traceFlags }: SpanContext): string {
  return `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, '0')}`;
}

/** What a span is called and says. Attributes name things; they never hold contents. */
export interface SpanOptions {
  /** From a small set: what happens, not to whom. */
  readonly name: string;
  /** INTERNAL when absent. */
  readonly kind?: SpanKind;
  readonly attributes: Attributes;
  /** When it began, in milliseconds since 1970; now when absent. */
  readonly startMs?: number;
}

/** A span that was begun and has to be ended. */
export interface OpenSpan {
  readonly span: Span;
  /** Runs `work` with the span as the one under way, also in everything it awaits. */
  run<T>(work: () => T): T;
}

/**
 * Begins the span of a request that came with this header: child of the caller's span, whose decision about sampling
 * holds, or the first of a trace.
 */
export function beginServerSpan(name: string, traceparent: string | undefined, attributes: Attributes): OpenSpan {
  return begin({ name, kind: SpanKind.SERVER, attributes }, contextOf(parseTraceparent(traceparent)));
}

/** Begins a span of something that a record or a message with this `traceparent` has caused; undefined when that is not sampled. */
export function beginSpanOf(traceparent: string | undefined, options: SpanOptions): OpenSpan | undefined {
  const parent = parseTraceparent(traceparent);
  return parent?.traceFlags === TraceFlags.SAMPLED ? begin(options, contextOf(parent)) : undefined;
}

/**
 * Makes a span of something that has just ended, as `beginSpanOf` does. Returns the `traceparent` for what follows from it;
 * while no traces are made here, that of the cause; '' when the cause is not sampled.
 */
export function noteSpanOf(traceparent: string, options: SpanOptions): string {
  const traced = beginSpanOf(traceparent, options);
  traced?.span.end();
  return traced ? formatTraceparent(traced.span.spanContext()) : '';
}

/** Runs `work` in a span as `beginSpanOf` begins it; a rejection fails it. */
export async function inSpanOf<T>(traceparent: string, options: SpanOptions, work: () => Promise<T>): Promise<T> {
  const traced = beginSpanOf(traceparent, options);
  return traced ? await runToEnd(traced, work) : await work();
}

/** Runs `work` as the first span of a trace. */
export async function inNewTrace<T>(options: SpanOptions, work: () => Promise<T>): Promise<T> {
  return await runToEnd(begin(options, ROOT_CONTEXT), work);
}

/** Runs `work` in a child of the span under way. Costs next to nothing while none is recorded: `work` gets no span then. */
export async function inSpan<T>(options: () => SpanOptions, work: (span: Span | undefined) => Promise<T>): Promise<T> {
  if (!trace.getActiveSpan()?.isRecording()) return await work(undefined);
  const traced = begin(options(), context.active());
  return await runToEnd(traced, () => work(traced.span));
}

function begin({ startMs, ...options }: SpanOptions, parent: Context): OpenSpan {
  const span = tracer.startSpan(options.name, { ...options, ...(startMs !== undefined && { startTime: startMs }) }, parent);
  return { span, run: (work) => context.with(trace.setSpan(parent, span), work) };
}

async function runToEnd<T>({ span, run }: OpenSpan, work: () => Promise<T>): Promise<T> {
  try {
    return await run(work);
  } catch (error) {
    failSpan(span, errorText(error));
    throw error;
  } finally {
    span.end();
  }
}

function contextOf(parent: SpanContext | undefined): Context {
  return parent ? trace.setSpanContext(ROOT_CONTEXT, parent) : ROOT_CONTEXT;
}

/** Ends the span of a request that was answered with this HTTP status; 0 for one that was not. */
export function endServerSpan(span: Span, status: number): void {
  if (status > 0) span.setAttribute('http.response.status_code', status);
  if (status >= 500) failSpan(span, `status ${status}`);
  span.end();
}

/** Writes on the span under way which error of the table it ended with. */
export function noteError(name: ErrorName): void {
  trace.getActiveSpan()?.setAttribute('error.type', name);
}

/** Marks a span as failed; a long reason is cut. */
export function failSpan(span: Span, reason: string): void {
  span.setStatus({ code: SpanStatusCode.ERROR, message: reason.slice(0, MAX_ATTRIBUTE_CHARS) });
}

/** The `traceparent` of a span, for what it causes elsewhere. */
export function traceparentOf({ span }: OpenSpan): string {
  return formatTraceparent(span.spanContext());
}
