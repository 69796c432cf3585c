import { type DescMethod, type DescService, fromBinary, type Message } from '@bufbuild/protobuf';
import { Code, ConnectError, createContextValues } from '@connectrpc/connect';
import type { UniversalHandler, UniversalServerResponse } from '@connectrpc/connect/protocol';
import { errorFromJsonBytes } from '@connectrpc/connect/protocol-connect';
import { compressionGzip } from '@connectrpc/connect-node';
import { BrokkrError, httpStatus } from '#lib/errors.ts';
import type { IncomingRequest, OutgoingResponse } from '#lib/listener.ts';
import type { Logger } from '#lib/log.ts';
import { YAML_TYPES } from './body.ts';
import { callKey, callOf } from './context.ts';
import type { Gate } from './gate.ts';
import { pathOf, send, sendError } from './request.ts';
import { Printers } from './rest-json.ts';
import { createRequestReader } from './rest-request.ts';
import { compileRoutes, type Route, type Routes } from './routes.ts';
import { CHALLENGE, errorBodyOf, translate } from './rpc-errors.ts';

/** What transcoding needs. */
export interface TranscoderDeps {
  /** The handlers of the router by path, called in-process. */
  readonly handlers: ReadonlyMap<string, UniversalHandler>;
  readonly gate: Gate;
  readonly log: Logger;
  readonly newId: () => string;
}

/** Limits and exceptions of transcoding. */
export interface TranscoderOptions {
  readonly services: readonly DescService[];
  /** Largest body of a method in bytes. */
  readonly maxRequestBytes: (method: DescMethod) => number;
  /** True for methods whose requests may have fields we do not know. */
  readonly ignoresUnknown: (method: DescMethod) => boolean;
}

/** REST in front of the router: the same handlers, reached through `google.api.http`. */
export interface Transcoder {
  readonly routes: Routes;
  /** Answers a request below `/api/`; never rejects. `matched` is told its route, if it has one. */
  handle(request: IncomingRequest, response: OutgoingResponse, matched: (route: Route) => void): Promise<void>;
}

/** Request headers that handlers may read. */
const PASSED_IN = [
  'authorization',
  'idempotency-key',
  'if-match',
  'if-none-match',
  'user-agent',
  'traceparent',
  'tracestate',
  'x-forwarded-for',
  'x-request-id',
];

/** Response headers that belong to the inner call and not to the answer. */
const INNER = /^(?:content-|connect-|trailer-|accept-encoding$|transfer-encoding$)/;

/** Smallest answer worth compressing, bytes; Connect's own threshold. */
const COMPRESS_MIN_BYTES = 1024;

/** Compiles the routes and builds the transcoder. */
export function createTranscoder(deps: TranscoderDeps, options: TranscoderOptions): Transcoder {
  const routes = compileRoutes(options.services);
  const printers = new Printers();
  const reader = createRequestReader(options.ignoresUnknown);

  async function call(request: IncomingRequest, response: OutgoingResponse, matched: (route: Route) => void): Promise<void> {
    const { path, query: queryText } = pathOf(request);
    const query = new URLSearchParams(queryText);
    const verb = request.method === 'HEAD' ? 'GET' : (request.method ?? '');
    const match = routes.match(verb, path, (name) => query.has(name));
    if (match.kind === 'none') throw new BrokkrError('not_found', `no route ${path}`);
    if (match.kind === 'wrong-method') {
      const allow = match.allowed.join(', ');
      return sendError(request, response, 405, { code: 'method_not_allowed', message: `${path} allows ${allow}` }, { allow });
    }
    const { route } = match;
    matched(route);
    const format = answerFormat(route, request.headers.accept);
    const ended = new AbortController();
    response.once('close', () => ended.abort(new ConnectError('the client hung up', Code.Canceled)));
    try {
      const values = createContextValues().set(callKey, callOf(request.headers, request.socket?.remoteAddress, deps.newId));
      const header = innerHeaders(request);
      await deps.gate.admit(route.method, header, values);
      const bytes = await reader.read(request, route, match.values, query, options.maxRequestBytes(route.method));
      header.set('content-type', 'application/proto');
      header.set('connect-protocol-version', '1');
      const handler = deps.handlers.get(`/${route.method.parent.typeName}/${route.method.name}`);
      if (!handler) throw new BrokkrError('unimplemented', `${route.method.name} is not there`);
      const url = `http://localhost${handler.requestPath}`;
      const inner = await handler({
        httpVersion: '2.0',
        url,
        method: 'POST',
        header,
        body: once(bytes),
        signal: ended.signal,
        contextValues: values,
      });
      await answer(printers, request, response, route, format, inner, { path, query });
    } catch (error) {
      throw translate(error, route.method, ended.signal, deps.log);
    }
  }

  return {
    routes,
    async handle(request, response, matched) {
      try {
        await call(request, response, matched);
      } catch (error) {
        answerError(request, response, error, {});
      }
    },
  };
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

function innerHeaders(request: IncomingRequest): Headers {
  const header = new Headers();
  for (const name of PASSED_IN) {
    const value = request.headers[name];
    if (value !== undefined) header.set(name, Array.isArray(value) ? value.join(', ') : value);
  }
  return header;
}

type Format = 'json' | 'yaml';

function answerFormat(route: Route, accept: string | undefined): Format {
  for (const part of accept?.split(',') ?? []) {
    const type = part.split(';', 1)[0]?.trim().toLowerCase() ?? '';
    if (route.yamlResponse && YAML_TYPES.includes(type)) return 'yaml';
    if (type === '' || type === '*/*' || type === 'application/*' || type === 'application/json' || type.endsWith('+json'))
      return 'json';
  }
  if (!accept || route.empty) return 'json';
  const possible = ['application/json', ...(route.yamlResponse ? YAML_TYPES : [])].join(', ');
  throw new BrokkrError('not_acceptable', `accept is ${accept}, answers are ${possible}`);
}

async function answer(
  printers: Printers,
  request: IncomingRequest,
  response: OutgoingResponse,
  route: Route,
  format: Format,
  inner: UniversalServerResponse,
  asked: { readonly path: string; readonly query: URLSearchParams },
): Promise<void> {
  const bytes = await bytesOf(inner);
  const headers: Record<string, string> = {};
  inner.header?.forEach((value, name) => {
    if (!INNER.test(name)) headers[name] = value;
  });
  if (inner.status !== 200) {
    return answerError(
      request,
      response,
      errorFromJsonBytes(bytes, undefined, new ConnectError('no answer', Code.Internal)),
      headers,
    );
  }
  if (route.empty) return send(request, response, route.status, headers);
  const message = fromBinary(route.method.output, bytes);
  const token = route.nextPageToken && fieldOf(message, route.nextPageToken.localName);
  if (token) headers.link = `<${nextPage(asked, String(token))}>; rel="next"`;
  const text = format === 'yaml' ? yamlOf(message, route) : JSON.stringify(jsonOf(printers, message, route));
  headers['content-type'] = format === 'yaml' ? 'application/yaml' : 'application/json';
  if (route.yamlResponse) headers.vary = 'accept';
  await sendText(request, response, route.status, headers, text);
}

async function sendText(
  request: IncomingRequest,
  response: OutgoingResponse,
  status: number,
  headers: Record<string, string>,
  text: string,
): Promise<void> {
  if (text.length < COMPRESS_MIN_BYTES || !/\bgzip\b/.test(String(request.headers['accept-encoding'] ?? ''))) {
    return send(request, response, status, headers, text);
  }
  headers['content-encoding'] = 'gzip';
  headers.vary = headers.vary ? `${headers.vary}, accept-encoding` : 'accept-encoding';
  send(request, response, status, headers, await compressionGzip.compress(Buffer.from(text)));
}

function answerError(
  request: IncomingRequest,
  response: OutgoingResponse,
  error: unknown,
  headers: Readonly<Record<string, string>>,
): void {
  const body = errorBodyOf(error);
  const status = httpStatus(body.code);
  sendError(request, response, status, body, status === 401 ? { ...headers, 'www-authenticate': CHALLENGE } : headers);
}

async function bytesOf(inner: UniversalServerResponse): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of inner.body ?? []) chunks.push(chunk);
  return chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks);
}

function jsonOf(printers: Printers, message: Message, route: Route) {
  if (!route.responseField) return printers.of(route.method.output)(message);
  const value = fieldOf(message, route.responseField.localName);
  return value === undefined ? null : printers.ofField(route.responseField)(value);
}

function yamlOf(message: Message, route: Route): string {
  let value: unknown = message;
  for (const field of route.yamlResponse ?? []) value = value === undefined ? undefined : fieldOf(value, field.localName);
  return String(value ?? '');
}

function fieldOf(message: unknown, name: string): unknown {
  return (message as Record<string, unknown>)[name];
}

function nextPage({ path, query }: { readonly path: string; readonly query: URLSearchParams }, token: string): string {
  const next = new URLSearchParams(query);
  next.set('page_token', token);
  return `${path}?${next}`;
}
