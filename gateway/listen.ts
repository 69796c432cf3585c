import type { IncomingMessage, ServerResponse } from 'node:http';
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import type { Timeouts } from '#lib/timeouts.ts';
import type { Exchange, Question } from './exchange.ts';

/** How long a client may go on sending after it was answered, milliseconds. */
const LAST_BYTES_MS = 1000;

/** What an HTTP/1.1 client asks for, without its body. */
export function http1Question(request: IncomingMessage): Question {
  const { method = 'GET', url = '/', headers, headersDistinct, socket } = request;
  // several hosts make none that is valid
  const { host = headersDistinct.host?.join(' ') ?? '', target } = absoluteForm(url);
  return { version: '1.1', method, target, host, headers, client: socket.remoteAddress };
}

/** A request of an HTTP/1.1 client. */
export function http1Exchange(request: IncomingMessage, response: ServerResponse): Exchange {
  const closed = new AbortController();
  response.once('close', () => closed.abort(new Error('the client has gone')));
  request.on('error', () => undefined); // the response closes, too
  response.on('error', () => undefined);
  const { 'content-length': length, 'transfer-encoding': encoding } = request.headers;
  return {
    ...http1Question(request),
    body: encoding !== undefined || (length !== undefined && length !== '0') ? request : undefined,
    closed: closed.signal,
    get isAnswered() {
      return response.headersSent;
    },
    sink: response,
    respond(status, headers) {
      response.writeHead(status, headers);
      response.flushHeaders();
    },
    end(trailers) {
      if (response.hasHeader('trailer')) response.addTrailers(trailers as NodeJS.Dict<string>);
      response.end();
    },
    cut: () => void request.socket.destroy(),
  };
}

/** Of a whole URL in the first line, the host counts and not the header (RFC 9112, 3.2.2). */
function absoluteForm(target: string): { readonly host?: string; readonly target: string } {
  const [, host, path = ''] = /^https?:\/\/([^/?#]*)(.*)$/i.exec(target) ?? [];
  if (host === undefined) return { target };
  return { host, target: path.startsWith('/') ? path : `/${path}` };
}

/** A request of an HTTP/2 client. */
export function http2Exchange(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, timeouts: Timeouts): Exchange {
  const closed = new AbortController();
  let trailers: NodeJS.Dict<string | string[] | number> = {};
  stream.once('close', () => closed.abort(new Error('the client has gone')));
  if (headers.expect?.toLowerCase() === '100-continue') stream.additionalHeaders({ ':status': 100 });
  return {
    version: '2',
    method: String(headers[':method']),
    target: String(headers[':path'] ?? '/'),
    host: String(headers[':authority'] ?? headers.host ?? ''),
    headers,
    client: stream.session?.socket?.remoteAddress,
    body: stream.endAfterHeaders ? undefined : stream,
    closed: closed.signal,
    get isAnswered() {
      return stream.headersSent;
    },
    sink: stream,
    respond(status, answer, { isEmpty }) {
      if (stream.destroyed) return;
      stream.respond({ ...answer, ':status': status }, { endStream: isEmpty, waitForTrailers: !isEmpty });
      if (isEmpty) finish(stream, timeouts);
      else
        stream.once('wantTrailers', () => {
          stream.sendTrailers(trailers);
          finish(stream, timeouts);
        });
    },
    end(last) {
      trailers = last;
      stream.end();
    },
    cut: () => void stream.destroy(new Error('the answer broke off')), // to close it would end the body first, as if it were whole
  };
}

/**
 * A client that still sends a while after it was answered is asked to stop, without calling that an error (RFC 9113, 8.1). Not at
 * once: a reset overtakes what has not been sent yet.
 */
function finish(stream: ServerHttp2Stream, timeouts: Timeouts): void {
  if (stream.readableEnded || stream.endAfterHeaders) return;
  const cancel = timeouts.add(LAST_BYTES_MS, () => stream.close(constants.NGHTTP2_NO_ERROR));
  stream.once('close', cancel);
}
