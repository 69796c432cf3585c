import type { DescMethod, DescService } from '@bufbuild/protobuf';
import {
  Code,
  ConnectError,
  type ConnectRouter,
  createConnectRouter,
  createContextValues,
  type Interceptor,
} from '@connectrpc/connect';
import type { UniversalHandler, UniversalServerResponse } from '@connectrpc/connect/protocol';
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from '@connectrpc/connect-node';
import { errorText } from '#lib/errors.ts';
import type { IncomingRequest, OutgoingResponse } from '#lib/listener.ts';
import type { Logger } from '#lib/log.ts';
import { COMPRESSIONS } from './compression.ts';
import { callKey, callOf } from './context.ts';
import type { Gate, RequestGate } from './gate.ts';
import { hasBody, sendError } from './request.ts';
import { createErrorsInterceptor, translate } from './rpc-errors.ts';

/** What serving RPCs needs. */
export interface RpcDeps {
  /** Registers the services. */
  readonly router: (router: ConnectRouter) => void;
  /** Run inside the one that translates errors, first is outermost. */
  readonly interceptors: readonly Interceptor[];
  readonly gate: Gate;
  /** Asked after authentication and before the body is read. */
  readonly requestGate: RequestGate | undefined;
  readonly log: Logger;
  readonly newId: () => string;
}

/** Limits of RPCs. */
export interface RpcOptions {
  /** Largest message of a method in bytes, after decompression. */
  readonly maxRequestBytes: (method: DescMethod) => number;
  /** True for methods whose requests may have fields we do not know. */
  readonly ignoresUnknown: (method: DescMethod) => boolean;
  /** Aborted when the time to finish calls is over. */
  readonly shutdownSignal: AbortSignal;
}

/** Largest answer, bytes: the largest deployment object (64 MiB) and its wrapping. */
const MAX_RESPONSE_BYTES = 80 * 1024 * 1024;
/** Longest deadline a client may ask for: the longest a timer can wait, 24 days. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/** Connect, gRPC and gRPC-Web over the router. */
export interface Rpc {
  /** Handlers by path. */
  readonly handlers: ReadonlyMap<string, UniversalHandler>;
  /** Serves a request whose path is the handler's; never rejects. */
  serve(handler: UniversalHandler, request: IncomingRequest, response: OutgoingResponse): Promise<void>;
}

/** Builds all handlers. */
export function createRpc(deps: RpcDeps, options: RpcOptions): Rpc {
  const handlers = new Map<string, UniversalHandler>();
  const base = createConnectRouter({
    interceptors: [createErrorsInterceptor(deps.log), ...deps.interceptors],
    acceptCompression: [...COMPRESSIONS],
    writeMaxBytes: MAX_RESPONSE_BYTES,
    maxTimeoutMs: MAX_TIMEOUT_MS,
    shutdownSignal: options.shutdownSignal,
    async requestGate(context) {
      try {
        await deps.gate.admit(context.method, context.requestHeader, context.values);
        await deps.requestGate?.(context);
      } catch (error) {
        throw translate(error, context.method, context.signal, deps.log);
      }
    },
  });
  deps.router(strictRouter(base, options));
  for (const handler of base.handlers) handlers.set(handler.requestPath, handler);
  return {
    handlers,
    async serve(handler, request, response) {
      try {
        const values = createContextValues().set(callKey, callOf(request.headers, request.socket?.remoteAddress, deps.newId));
        const answer = await handler(universalRequestFromNodeRequest(request as never, response as never, undefined, values));
        if (answer.status >= 400 && request.httpVersionMajor > 1) request.resume(); // unread, Node would reset the stream
        if (answer.status >= 400 && answer.body === undefined) refuse(handler, request, response, answer);
        else await universalResponseToNodeResponse(closing(answer, request), response as never);
      } catch (error) {
        fail(error, request, response, deps.log);
      }
    },
  };
}

/** Registers every method with its own limit and strictness. */
function strictRouter(base: ConnectRouter, options: RpcOptions): ConnectRouter {
  const optionsOf = (method: DescMethod) => ({
    readMaxBytes: options.maxRequestBytes(method),
    jsonOptions: { ignoreUnknownFields: options.ignoresUnknown(method) },
  });
  const router: ConnectRouter = {
    handlers: base.handlers,
    service(service, implementation, extra) {
      for (const method of service.methods) {
        const implemented = (implementation as Record<string, unknown>)[method.localName];
        const call = typeof implemented === 'function' ? implemented.bind(implementation) : missing(service, method);
        base.rpc(method, call as never, { ...optionsOf(method), ...extra });
      }
      return router;
    },
    rpc(method, implementation, extra) {
      base.rpc(method, implementation, { ...optionsOf(method), ...extra });
      return router;
    },
  };
  return router;
}

function missing(service: DescService, method: DescMethod): () => never {
  return () => {
    throw new ConnectError(`${service.typeName}/${method.name} is not there`, Code.Unimplemented);
  };
}

/** Connect answers a few mistakes with a bare status: say what was wrong. */
function refuse(
  handler: UniversalHandler,
  request: IncomingRequest,
  response: OutgoingResponse,
  { status, header }: UniversalServerResponse,
): void {
  const name = `${handler.method.parent.typeName}/${handler.method.name}`;
  const allow = handler.allowedMethods.join(', ');
  const headers = { ...Object.fromEntries(header ?? []), ...(status === 405 && { allow }) };
  const type = request.headers['content-type'] ?? 'missing';
  const reasons: Readonly<Record<number, string>> = {
    405: `${name} allows ${allow}`,
    415: `content-type is ${type}, allowed are application/json, application/proto, application/grpc, application/grpc-web`,
    505: `${name} streams in both directions and needs HTTP/2; over HTTP/1.1 agents poll`,
  };
  const code = status === 415 ? 'invalid_argument' : 'unimplemented';
  sendError(request, response, status, { code, message: reasons[status] ?? `${name} was refused` }, headers);
}

/** An HTTP/1.1 request that is answered before it is read takes its connection along. */
function closing(answer: UniversalServerResponse, request: IncomingRequest): UniversalServerResponse {
  if (answer.status < 400 || request.httpVersionMajor > 1 || !hasBody(request) || request.complete) return answer;
  const header = new Headers(answer.header);
  header.set('connection', 'close');
  return { ...answer, header };
}

/** What is left: requests without a usable address, and peers that went away while we answered. */
function fail(error: unknown, request: IncomingRequest, response: OutgoingResponse, log: Logger): void {
  if (response.headersSent || response.destroyed) {
    log.debug({ error: errorText(error) }, 'answer not delivered');
    return;
  }
  sendError(request, response, 400, { code: 'invalid_request', message: errorText(error) });
}
