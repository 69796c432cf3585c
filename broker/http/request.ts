import type { ServerResponse } from 'node:http';
import type { IncomingRequest, OutgoingResponse } from '#lib/listener.ts';

/** Path and query of a request. */
export function pathOf(request: IncomingRequest): { readonly path: string; readonly query: string } {
  const url = request.url ?? '/';
  const at = url.indexOf('?');
  return at < 0 ? { path: url, query: '' } : { path: url.slice(0, at), query: url.slice(at + 1) };
}

/** Answers once, with a body of known length; does nothing when the peer has gone. */
export function send(
  request: IncomingRequest,
  response: OutgoingResponse,
  status: number,
  headers: Readonly<Record<string, string>>,
  body?: string | Uint8Array,
): void {
  if (response.headersSent || response.destroyed) return;
  const length = body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) };
  // An HTTP/1.1 request that was answered before it was read cannot share its connection with another one.
  const unread = hasBody(request) && !request.complete;
  const close = request.httpVersionMajor === 1 && unread ? { connection: 'close' } : {};
  const all = { ...headers, ...(status === 204 ? {} : length), ...close };
  (response as ServerResponse).writeHead(status, all);
  if (body === undefined || request.method === 'HEAD' || status === 204) response.end();
  else (response as ServerResponse).end(body);
  if (request.httpVersionMajor > 1 && unread) request.resume();
}

/** True when the headers announce a body; HTTP/2 requests may have one without. */
export function hasBody(request: IncomingRequest): boolean {
  const { 'content-length': length, 'transfer-encoding': encoding } = request.headers;
  if (length !== undefined) return length !== '0';
  return request.httpVersionMajor > 1 ? request.method !== 'GET' && request.method !== 'HEAD' : encoding !== undefined;
}

/** Answers with `{code, message, details?}`. */
export function sendError(
  request: IncomingRequest,
  response: OutgoingResponse,
  status: number,
  body: { readonly code: string; readonly message: string; readonly details?: object | undefined },
  headers: Readonly<Record<string, string>> = {},
): void {
  const details = body.details && Object.keys(body.details).length > 0 ? { details: body.details } : {};
  const json = JSON.stringify({ code: body.code, message: body.message, ...details });
  send(request, response, status, { 'content-type': 'application/json', ...headers }, json);
}
