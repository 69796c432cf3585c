import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';

/** Header lines of a request, bytes in all; for both versions of HTTP. */
export const MAX_HEADER_BYTES = 32 * 1024;
/** How long an idle HTTP/1.1 connection is kept: longer than the minute of common load balancers. */
const KEEP_ALIVE_MS = 75_000;

/** Who takes requests, and what connections may be asked for. */
export interface Http1Deps {
  readonly handle: (request: IncomingMessage, response: ServerResponse) => void;
  /** Takes connections that become WebSockets (RFC 6455); without it such a request is one like any other. */
  readonly handleUpgrade: ((request: IncomingMessage, socket: Duplex, head: Buffer) => void) | undefined;
  /** False once peers are asked to leave. */
  readonly accepting: () => boolean;
}

/** A server that is fed connections. Its time limits (milliseconds) hold from its event `listening` on. */
export function createHttp1(
  deps: Http1Deps,
  limits: { readonly headerTimeoutMs: number; readonly requestTimeoutMs: number },
): Server {
  const { handleUpgrade } = deps;
  const server = createServer({
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: Math.min(limits.headerTimeoutMs, limits.requestTimeoutMs),
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: 250,
    noDelay: true,
    shouldUpgradeCallback: (request) => handleUpgrade !== undefined && wantsWebSocket(request),
  });
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    if (!deps.accepting()) response.setHeader('connection', 'close');
    // asked while connections were still taken, answered since: the client was told that it may stay
    response.once('finish', () => {
      if (!deps.accepting()) server.closeIdleConnections();
    });
    deps.handle(request, response);
  });
  if (handleUpgrade) server.on('upgrade', handleUpgrade);
  server.on('clientError', (error: NodeJS.ErrnoException, socket) =>
    refuseHttp1(error, socket as Socket & { readonly _httpMessage?: ServerResponse }),
  );
  return server;
}

/** A request with a body is none, for its bytes would be taken for those of the WebSocket (RFC 6455, 4.1). */
function wantsWebSocket({ method, headers }: IncomingMessage): boolean {
  const { upgrade, 'content-length': length, 'transfer-encoding': encoding } = headers;
  return method === 'GET' && upgrade?.toLowerCase() === 'websocket' && length === undefined && encoding === undefined;
}

/** What is no HTTP/1.1, too long or too slow gets a reason, unless an answer is on its way already. */
function refuseHttp1(error: NodeJS.ErrnoException, socket: Socket & { readonly _httpMessage?: ServerResponse }): void {
  if (!socket.writable || socket._httpMessage?.headersSent || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  if (error.code === 'HPE_HEADER_OVERFLOW') {
    refuse(
      socket,
      '431 Request Header Fields Too Large',
      'invalid_request',
      `the headers have more than ${MAX_HEADER_BYTES} bytes`,
    );
  } else if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    refuse(socket, '408 Request Timeout', 'deadline_exceeded', 'the request was not complete in time');
  } else {
    refuse(socket, '400 Bad Request', 'invalid_request', 'this is not an HTTP request');
  }
}

function refuse(socket: Socket, status: string, code: string, message: string): void {
  const body = JSON.stringify({ code, message });
  const head = `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n`;
  socket.end(head + body, () => socket.destroy());
}

/** Answers plain bytes on a TLS port and closes. */
export function refusePlain(socket: Socket): void {
  const body = 'this port speaks TLS, use https://\n';
  const head = `HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n`;
  socket.resume();
  socket.end(head + body, () => socket.destroySoon());
}
