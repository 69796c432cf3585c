import type { OutgoingHttpHeaders } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { type Clock, TimeoutError } from '#lib/clock.ts';
import { BrokkrError, errorText, httpStatus } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Timeouts } from '#lib/timeouts.ts';
import { beginServerSpan, endServerSpan, traceHeaders } from '#lib/tracing.ts';
import { isWhole } from './body.ts';
import type { Answer, Exchange } from './exchange.ts';
import { endToEnd, upstreamHeaders } from './headers.ts';
import type { GatewayMetrics } from './metrics.ts';
import { checkRequest } from './request.ts';
import { type Served, UnreachableError, type Upstream } from './upstream.ts';

/** What requests are passed on with. */
export interface ProxyDeps {
  readonly upstream: Upstream;
  readonly metrics: GatewayMetrics;
  readonly timeouts: Timeouts;
  readonly clock: Clock;
  readonly log: Logger;
}

/** How a request went: for the access log. */
interface Outcome {
  status: number;
  bytes: number;
  endpoint?: string;
  error?: string;
}

/** Passes one request on and its answer back, a piece at a time, as fast as the slower side takes them. Never rejects. */
export async function proxy(exchange: Exchange, deps: ProxyDeps, responseTimeoutMs: number): Promise<void> {
  const { method, headers, target } = exchange;
  const path = target.split('?')[0] ?? '';
  const attributes = { 'http.request.method': method, 'url.path': path };
  const traced = beginServerSpan(method, headers.traceparent?.toString(), attributes); // of routes it knows nothing
  const outcome: Outcome = { status: 0, bytes: 0 };
  await traced.run(() => serve(exchange, path, deps, responseTimeoutMs, outcome));
  endServerSpan(traced.span, outcome.status);
}

async function serve(
  exchange: Exchange,
  path: string,
  deps: ProxyDeps,
  responseTimeoutMs: number,
  outcome: Outcome,
): Promise<void> {
  const { metrics, clock, log } = deps;
  const startMs = clock.monotonic();
  metrics.open.inc({ version: exchange.version });
  try {
    checkRequest(exchange);
    await passOn(exchange, deps, responseTimeoutMs, outcome);
  } catch (error) {
    outcome.error = errorText(error);
    if (exchange.isAnswered) exchange.cut();
    else if (!exchange.closed.aborted) refuse(exchange, error, outcome);
  }
  const seconds = (clock.monotonic() - startMs) / 1000;
  metrics.open.dec({ version: exchange.version });
  metrics.requests.inc({ version: exchange.version, status: statusClass(outcome.status) });
  metrics.seconds.observe({ version: exchange.version }, seconds);
  const { client, host, method, version } = exchange;
  log.info({ client, host, method, path, version, duration_ms: Math.round(seconds * 1000), ...outcome }, 'request');
}

async function passOn(exchange: Exchange, deps: ProxyDeps, responseTimeoutMs: number, outcome: Outcome): Promise<void> {
  const { endpoint, answer } = await firstAnswer(exchange, deps, responseTimeoutMs);
  try {
    outcome.endpoint = endpoint.name;
    outcome.status = answer.status;
    await relay(exchange, answer, outcome);
  } finally {
    endpoint.open--;
  }
}

/** The time for an answer counts from the end of the request: until then it is the client who is slow. */
async function firstAnswer(exchange: Exchange, deps: ProxyDeps, responseTimeoutMs: number): Promise<Served<Answer>> {
  const { method, target, host, client, body, headers } = exchange;
  const late = new AbortController();
  let cancel = () => {};
  const arm = () => {
    cancel = deps.timeouts.add(responseTimeoutMs, () => late.abort(new TimeoutError(`no answer within ${responseTimeoutMs} ms`)));
  };
  if (body) body.once('end', arm);
  else arm();
  const request = { method, target, host, headers: { ...upstreamHeaders(headers, { client, host }), ...traceHeaders() }, body };
  try {
    return await deps.upstream.send(request, AbortSignal.any([exchange.closed, late.signal]));
  } catch (error) {
    throw late.signal.aborted ? late.signal.reason : error;
  } finally {
    body?.off('end', arm);
    cancel();
  }
}

async function relay(exchange: Exchange, answer: Answer, outcome: Outcome): Promise<void> {
  exchange.respond(answer.status, endToEnd(answer.headers), { isEmpty: answer.body === undefined });
  if (answer.body) {
    answer.body.on('data', (chunk: Buffer) => {
      outcome.bytes += chunk.length;
    });
    await pipeline(answer.body, exchange.sink, { end: false });
    if (!isWhole(answer.body)) throw new Error('the upstream broke off');
  }
  exchange.end(endToEnd(answer.trailers()));
}

/** Answers in the place of an upstream; gRPC clients make `unavailable` of 502 to 504. */
function refuse(exchange: Exchange, error: unknown, outcome: Outcome): void {
  const [status, code, message] = answerTo(error);
  outcome.status = status;
  const body = Buffer.from(JSON.stringify({ code, message }));
  const headers: OutgoingHttpHeaders = { 'content-type': 'application/json', 'content-length': body.length };
  exchange.respond(status, headers, { isEmpty: exchange.method === 'HEAD' });
  if (exchange.method !== 'HEAD') exchange.sink.write(body);
  exchange.end({});
}

/** What a client is told of a failure before there is an answer of an upstream. */
export function answerTo(error: unknown): readonly [status: number, code: string, message: string] {
  if (error instanceof BrokkrError) return [httpStatus(error.code), error.code, error.message];
  if (error instanceof UnreachableError) return [503, 'unavailable', 'no upstream can be reached'];
  if (error instanceof TimeoutError) return [504, 'deadline_exceeded', 'the upstream did not answer in time'];
  return [502, 'unavailable', 'the upstream broke off'];
}

/** The label of a status. */
export function statusClass(status: number): string {
  return status === 0 ? 'none' : `${Math.floor(status / 100)}xx`;
}
