import {
  createServer as createHttp1Server,
  type Server as Http1Server,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import {
  createServer as createHttp2Server,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { type AddressInfo, createServer, type Server as NetServer, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { IncomingRequest, OutgoingResponse } from './request.ts';
import { sniff } from './sniff.ts';
import type { Timeouts } from './timeouts.ts';
import { openTls, type TlsFiles, watchTls } from './tls.ts';

/** Where and how connections are taken. Times in milliseconds. */
export interface ListenerConfig {
  /** `host:port`; `[::1]:3000` for IPv6, `:3000` for all addresses, port 0 for a free one. */
  readonly listen: string;
  /** With it the port speaks TLS only. */
  readonly tls: TlsFiles | undefined;
  /** Time for the headers of an HTTP/1.1 request and for the first bytes of a connection. */
  readonly headerTimeoutMs: number;
  /** Time for a whole request, body included; streams are exempt. */
  readonly requestTimeoutMs: number;
  /** How often HTTP/2 peers are pinged; one that has not answered by the next ping is dead. */
  readonly pingMs: number;
  /** More connections than this are closed at once. */
  readonly maxConnections: number;
}

/** Who takes what comes in. */
export interface ListenerDeps {
  readonly handle: (request: IncomingRequest, response: OutgoingResponse) => void;
  /** Takes an HTTP/2 stream before `handle` sees it, or returns false. */
  readonly handleStream: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => boolean;
  /** Looked after for as long as the listener is open. */
  readonly timeouts: Timeouts;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Connections, whatever they speak. */
export interface Listener {
  /** Starts taking connections; resolves with the address in use, `host:port`. */
  open(): Promise<string>;
  /** Numbers of now. */
  counts(): { readonly connections: number; readonly http2Sessions: number };
  /** Takes no more connections and asks peers to leave: GOAWAY on HTTP/2, idle HTTP/1.1 connections closed. */
  stopAccepting(): void;
  /** Resolves when the last connection has gone. */
  emptied(): Promise<void>;
  /** Ends every connection and all timers. */
  destroy(): void;
}

/** Header lines of a request, bytes in all. */
const MAX_HEADER_BYTES = 32 * 1024;
/** How much a peer may send on one stream and on one connection before we have read it; 64 KiB make uploads 57 times slower at 40 ms. */
const STREAM_WINDOW_BYTES = 4 * 1024 * 1024;
const SESSION_WINDOW_BYTES = 8 * 1024 * 1024;
const MAX_STREAMS_PER_SESSION = 1000;
/** Cancelled streams before a session is closed as an attack: a gateway cancels for many callers over one connection. */
const RESET_BURST = 20_000;
const RESETS_PER_SECOND = 2000;
/** How long an idle HTTP/1.1 connection is kept: longer than the minute of common load balancers. */
const KEEP_ALIVE_MS = 75_000;
/** Waiting connections of the kernel. */
const BACKLOG = 4096;

/** Builds the listener; nothing is open yet. */
export function createListener(deps: ListenerDeps, config: ListenerConfig): Listener {
  const { timeouts, log } = deps;
  const closing = new AbortController();
  const sockets = new Set<Socket>();
  /** Connections that have not said a byte yet. */
  const silent = new Set<Socket>();
  const sessions = new Set<ServerHttp2Session>();
  const empty = Promise.withResolvers<void>();
  let accepting = true;
  const http1 = createHttp1(deps, config, () => accepting);
  const http2 = createHttp2(deps, sessions, (session) => keepAlive(session, timeouts, config.pingMs));
  const net = createServer({ allowHalfOpen: true, noDelay: true });
  net.maxConnections = config.maxConnections;
  net.on('drop', () => log.warn({ maxConnections: config.maxConnections }, 'connection refused, too many are open'));

  const route = (socket: Socket | TLSSocket) =>
    sniff(socket, { expectTls: false, timeouts, timeoutMs: config.headerTimeoutMs }, (spoken) => {
      (spoken === 'http2' ? http2 : http1).emit('connection', socket);
    });

  net.on('connection', (socket) => {
    sockets.add(socket);
    silent.add(socket);
    socket.once('readable', () => silent.delete(socket));
    socket.on('error', (error) => log.debug({ error: errorText(error) }, 'connection failed'));
    socket.once('close', () => {
      sockets.delete(socket);
      silent.delete(socket);
      if (!accepting && sockets.size === 0) empty.resolve();
    });
    if (!config.tls) route(socket);
  });

  return {
    async open() {
      if (config.tls) {
        const { server, pair } = await openTls(config.tls);
        net.on('connection', (socket) =>
          sniff(socket, { expectTls: true, timeouts, timeoutMs: config.headerTimeoutMs }, (spoken) => {
            if (spoken === 'tls') server.emit('connection', socket);
            else refusePlain(socket);
          }),
        );
        server.on('secureConnection', (socket) => {
          socket.on('error', (error) => log.debug({ error: errorText(error) }, 'tls connection failed'));
          route(socket);
        });
        server.on('tlsClientError', (error) => log.debug({ error: errorText(error) }, 'tls handshake failed'));
        void watchTls(server, pair, config.tls, deps, closing.signal);
      }
      http1.emit('listening'); // without it a server that is fed connections enforces no header and request timeouts
      void timeouts.run(closing.signal);
      return await listen(net, config.listen);
    },
    counts: () => ({ connections: sockets.size, http2Sessions: sessions.size }),
    stopAccepting() {
      accepting = false;
      net.close();
      http1.closeIdleConnections();
      for (const session of sessions) session.close();
      for (const socket of silent) socket.destroy(); // spare connections of clients; nothing was asked on them
      if (sockets.size === 0) empty.resolve();
    },
    emptied: () => empty.promise,
    destroy() {
      for (const session of sessions) session.destroy();
      for (const socket of sockets) socket.destroy();
      http1.close(() => undefined);
      closing.abort(new Error('the listener is closed'));
    },
  };
}

function createHttp1(deps: ListenerDeps, config: ListenerConfig, accepting: () => boolean): Http1Server {
  const server = createHttp1Server({
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: Math.min(config.headerTimeoutMs, config.requestTimeoutMs),
    requestTimeout: config.requestTimeoutMs,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: 250,
    noDelay: true,
  });
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    if (!accepting()) response.setHeader('connection', 'close');
    deps.handle(request, response);
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket) =>
    refuseHttp1(error, socket as Socket & { readonly _httpMessage?: ServerResponse }),
  );
  return server;
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

/** Plain bytes on a TLS port. */
function refusePlain(socket: Socket): void {
  const body = 'this port speaks TLS, use https://\n';
  const head = `HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n`;
  socket.resume();
  socket.end(head + body, () => socket.destroySoon());
}

function createHttp2(
  deps: ListenerDeps,
  sessions: Set<ServerHttp2Session>,
  opened: (session: ServerHttp2Session) => void,
): Http2Server {
  const server = createHttp2Server({
    settings: {
      maxConcurrentStreams: MAX_STREAMS_PER_SESSION,
      initialWindowSize: STREAM_WINDOW_BYTES,
      maxHeaderListSize: MAX_HEADER_BYTES,
      enablePush: false,
    },
    streamResetBurst: RESET_BURST,
    streamResetRate: RESETS_PER_SECOND,
  });
  server.on('session', (session) => {
    sessions.add(session);
    session.once('close', () => sessions.delete(session));
    session.setLocalWindowSize(SESSION_WINDOW_BYTES);
    opened(session);
  });
  server.on('sessionError', (error) => deps.log.debug({ error: errorText(error) }, 'http/2 session failed'));
  server.on('request', deps.handle);
  // Node turns every stream into a request and a response; hot streams are taken before, they need neither.
  const [toRequest] = server.listeners('stream') as ((...args: unknown[]) => void)[];
  server.removeAllListeners('stream');
  server.on('stream', (stream, headers, ...rest: unknown[]) => {
    stream.on('error', (error) => deps.log.debug({ error: errorText(error) }, 'http/2 stream failed'));
    if (headerBytes(headers) > MAX_HEADER_BYTES) stream.respond({ ':status': 431 }, { endStream: true });
    else if (!deps.handleStream(stream, headers)) toRequest?.call(server, stream, headers, ...rest);
  });
  return server;
}

/** Size as RFC 9113 counts it (10.5.1); the setting itself binds a peer only once it has acknowledged it. */
function headerBytes(headers: IncomingHttpHeaders): number {
  let bytes = 0;
  for (const name in headers) bytes += name.length + String(headers[name]).length + 32;
  return bytes;
}

/** Pings the peer for as long as the session lives and destroys it when an answer is missing at the next ping. */
function keepAlive(session: ServerHttp2Session, timeouts: Timeouts, pingMs: number): void {
  let answered = true;
  let cancel = () => {};
  const ping = () => {
    if (session.destroyed) return;
    if (!answered) {
      session.destroy();
      return;
    }
    answered = false;
    session.ping(() => {
      answered = true;
    });
    cancel = timeouts.add(pingMs, ping);
  };
  cancel = timeouts.add(pingMs, ping);
  session.once('close', () => cancel());
}

/** Starts listening and says where. Throws with a text for people when the address is not to be had. */
function listen(server: NetServer, address: string): Promise<string> {
  const match = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(address);
  if (!match) throw new Error(`${address} is not an address, expected host:port`);
  const host = match[1] ?? match[2];
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(new Error(`cannot listen on ${address}: ${reasonOf(error)}`, { cause: error })),
    );
    server.listen({ ...(host && { host }), port: Number(match[3]), backlog: BACKLOG }, () => {
      const { address: actual, family, port } = server.address() as AddressInfo;
      resolve(family === 'IPv6' ? `[${actual}]:${port}` : `${actual}:${port}`);
    });
  });
}

function reasonOf(error: NodeJS.ErrnoException): string {
  if (error.code === 'EADDRINUSE') return 'another process uses it';
  if (error.code === 'EACCES') return 'this user may not';
  return errorText(error);
}
