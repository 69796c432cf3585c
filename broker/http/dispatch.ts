import type { DescMethod } from '@bufbuild/protobuf';
import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { IncomingRequest, OutgoingResponse } from '#lib/listener.ts';
import type { Logger } from '#lib/log.ts';
import type { Timeouts } from '#lib/timeouts.ts';
import { beginServerSpan, endServerSpan, type OpenSpan } from '#lib/tracing.ts';
import { hasBody, pathOf, sendError } from './request.ts';
import type { Route } from './routes.ts';
import type { Rpc } from './rpc.ts';
import type { Transcoder } from './transcode.ts';

/** Answers a plain path. A throw is logged and answered with 500. */
export type PlainHandler = (request: IncomingRequest, response: OutgoingResponse) => void | Promise<void>;

/** A request that was answered, for metrics: labels from small closed sets. */
export interface ServedRequest {
  /** `/package.Service/Method` or the plain path; 'none' for paths that lead nowhere. */
  readonly target: string;
  /** As the client wrote it. */
  readonly httpMethod: string;
  readonly status: number;
  /** The answer takes as long as it likes: a stream, or a poll that waits for news. */
  readonly isHeld: boolean;
  readonly durationMs: number;
}

/** Where requests can go. */
export interface DispatcherDeps {
  readonly rpc: Rpc;
  readonly transcoder: Transcoder;
  readonly plain?: Readonly<Record<string, PlainHandler>>;
  readonly observe?: ((request: ServedRequest) => void) | undefined;
  readonly timeouts: Timeouts;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Sends each request to RPCs, REST or a plain path. `requestTimeoutMs` is for uploads over HTTP/2. */
export function createDispatcher(
  deps: DispatcherDeps,
  requestTimeoutMs: number,
): (request: IncomingRequest, response: OutgoingResponse) => void {
  const { rpc, transcoder, plain = {}, timeouts, clock, log } = deps;
  return (request, response) => {
    const { path } = pathOf(request);
    const handler = rpc.handlers.get(path);
    const served: Served = { target: 'none', httpMethod: request.method ?? '', isHeld: false };
    if (deps.observe) observe(deps.observe, clock, response, served);
    if (request.httpVersionMajor > 1 && !(handler && isClientStream(handler.method)))
      limitUpload(timeouts, requestTimeoutMs, request, response);
    if (handler) {
      served.target = path;
      const traced = beginSpan(path.slice(1), request, response);
      describeRpc(traced, handler.method);
      served.isHeld = isHeld(handler.method);
      void traced.run(() => rpc.serve(handler, request, response));
    } else if (path.startsWith('/api/')) {
      const traced = beginSpan(request.method ?? '', request, response);
      const matched = ({ method, template }: Route) => {
        served.target = `/${method.parent.typeName}/${method.name}`;
        served.isHeld = isHeld(method);
        traced.span.updateName(`${request.method} ${template}`).setAttribute('http.route', template);
        describeRpc(traced, method);
      };
      void traced.run(() => transcoder.handle(request, response, matched));
    } else {
      const known = Object.hasOwn(plain, path) ? plain[path] : undefined;
      if (known) {
        served.target = path;
        void servePlain(known, request, response, log);
      } else sendError(request, response, 404, { code: 'not_found', message: `nothing at ${path}` });
    }
  };
}

/** What is known of a request before its answer. */
interface Served {
  target: string;
  readonly httpMethod: string;
  isHeld: boolean;
}

function observe(tell: (request: ServedRequest) => void, clock: Clock, response: OutgoingResponse, served: Served): void {
  const startMs = clock.monotonic();
  response.once('close', () => tell({ ...served, status: response.statusCode, durationMs: clock.monotonic() - startMs }));
}

function isHeld(method: DescMethod): boolean {
  return method.methodKind !== 'unary' || method.name === 'Poll';
}

/** The span of a request, from here until it is answered. */
function beginSpan(name: string, { method, headers }: IncomingRequest, response: OutgoingResponse): OpenSpan {
  const traced = beginServerSpan(name, headers.traceparent?.toString(), { 'http.request.method': method ?? '' });
  response.once('close', () => endServerSpan(traced.span, response.headersSent ? response.statusCode : 0));
  return traced;
}

function describeRpc({ span }: OpenSpan, { parent, name }: DescMethod): void {
  span.setAttributes({ 'rpc.service': parent.typeName, 'rpc.method': name });
}

function isClientStream(method: DescMethod): boolean {
  return method.methodKind === 'bidi_streaming' || method.methodKind === 'client_streaming';
}

/** HTTP/1.1 limits the time of a request by itself; HTTP/2 does not. */
function limitUpload(timeouts: Timeouts, timeoutMs: number, request: IncomingRequest, response: OutgoingResponse): void {
  if (!hasBody(request)) return;
  const cancel = timeouts.add(timeoutMs, () => {
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
