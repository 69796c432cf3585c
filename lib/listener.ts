import type { IncomingMessage, ServerResponse } from 'node:http';
import type {
  Http2ServerRequest,
  Http2ServerResponse,
  IncomingHttpHeaders,
  ServerHttp2Session,
  ServerHttp2Stream,
} from 'node:http2';
import { type AddressInfo, createServer, type Server as NetServer, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import type { Clock } from './clock.ts';
import { errorText } from './errors.ts';
import { createHttp1, refusePlain } from './http1-server.ts';
import { createHttp2, keepAlive } from './http2-server.ts';
import type { Logger } from './log.ts';
import { sniff } from './sniff.ts';
import type { Timeouts } from './timeouts.ts';
import { hasName, openTls, type TlsFiles, type TlsTermination } from './tls.ts';
import { HANDSHAKE_FAILURES, type HandshakeFailure, handshakeFailure, handshakeProblem } from './tls-problems.ts';

/** A request on the port, of either HTTP version. */
export type IncomingRequest = IncomingMessage | Http2ServerRequest;

/** The answer to a request on the port. */
export type OutgoingResponse = ServerResponse | Http2ServerResponse;

/** Where and how connections are taken. Times in milliseconds. */
export interface ListenerConfig {
  /** `host:port`; `[::1]:3000` for IPv6, `:3000` for all addresses, port 0 for a free one. */
  readonly listen: string;
  /** With certificates the port speaks TLS only; the first is for clients that ask for no name, or for one that nobody has. */
  readonly tls: readonly TlsFiles[];
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
  /** Takes connections that become WebSockets; without it such a request is one like any other. */
  readonly handleUpgrade?: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
  /** Looked after for as long as the listener is open. */
  readonly timeouts: Timeouts;
  readonly clock: Clock;
  readonly log: Logger;
}

/** What a listener counts, for metrics. */
export interface ListenerCounts {
  /** Open now. */
  readonly connections: number;
  readonly http2Sessions: number;
  /** Taken since the start, and closed at once because too many were open. */
  readonly accepted: number;
  readonly dropped: number;
  /** Since the start, over all connections, TLS included. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Since the start. */
  readonly handshakeFailures: Readonly<Record<HandshakeFailure, number>>;
  /** Certificates in use: the file, and when it ceases to be valid (milliseconds since 1970). */
  readonly certificates: readonly { readonly certFile: string; readonly validToMs: number }[];
}

/** Connections, whatever they speak. */
export interface Listener {
  /** Starts taking connections; resolves with the address in use, `host:port`. */
  open(): Promise<string>;
  counts(): ListenerCounts;
  /** Takes no more connections and asks peers to leave: GOAWAY on HTTP/2, idle HTTP/1.1 connections closed. */
  stopAccepting(): void;
  /** Resolves when the last connection has gone. */
  emptied(): Promise<void>;
  /** Ends every connection and all timers. */
  destroy(): void;
}

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
  let certificates: TlsTermination['certificates'] = () => [];
  let accepting = true;
  const http1 = createHttp1({ ...deps, handleUpgrade: deps.handleUpgrade, accepting: () => accepting }, config);
  const http2 = createHttp2(deps, (session) => {
    sessions.add(session);
    session.once('close', () => sessions.delete(session));
    keepAlive(session, timeouts, config.pingMs);
  });
  // over TLS nobody closes one direction only: a client that has left would stay until the next ping
  const net = createServer({ allowHalfOpen: config.tls.length === 0, noDelay: true });
  net.maxConnections = config.maxConnections;
  net.on('drop', () => log.warn({ maxConnections: config.maxConnections }, 'connection refused, too many are open'));
  const tally = new Tally(net);

  const route = (socket: Socket | TLSSocket) =>
    sniff(socket, { expectTls: false, timeouts, timeoutMs: config.headerTimeoutMs }, (spoken) => {
      if (spoken === 'tls') log.info({ client: socket.remoteAddress }, 'a client speaks tls on a plain port');
      (spoken === 'http2' ? http2 : http1).emit('connection', socket);
    });

  net.on('connection', (socket) => {
    sockets.add(socket);
    void socket.remoteAddress; // asked for once, it is known even when the client has gone
    silent.add(socket);
    socket.once('readable', () => silent.delete(socket));
    socket.on('error', (error) => log.debug({ error: errorText(error) }, 'connection failed'));
    socket.once('close', () => {
      sockets.delete(socket);
      silent.delete(socket);
      if (!accepting && sockets.size === 0) empty.resolve();
    });
    if (config.tls.length === 0) route(socket);
  });

  return {
    async open() {
      if (config.tls.length > 0) {
        const tls = await openTls(config.tls, deps);
        certificates = tls.certificates;
        feedTls(net, tls, route, { ...deps, failed: (failure) => tally.handshakeFailures[failure]++ }, config);
        void tls.watch(closing.signal);
      }
      http1.emit('listening'); // without it a server that is fed connections enforces no header and request timeouts
      void timeouts.run(closing.signal);
      return await listen(net, config.listen);
    },
    counts: () => ({
      ...tally.with(sockets),
      http2Sessions: sessions.size,
      certificates: certificates().map(({ certFile, leaf }) => ({ certFile, validToMs: leaf.validToDate.getTime() })),
    }),
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

/** Counts over the connections of a server. */
class Tally {
  readonly handshakeFailures = Object.fromEntries(HANDSHAKE_FAILURES.map((name) => [name, 0])) as Record<
    HandshakeFailure,
    number
  >;
  #accepted = 0;
  #dropped = 0;
  #bytesIn = 0;
  #bytesOut = 0;

  constructor(server: NetServer) {
    server.on('drop', () => {
      this.#dropped += 1;
    });
    server.on('connection', (socket) => {
      this.#accepted += 1;
      socket.once('close', () => {
        this.#bytesIn += socket.bytesRead;
        this.#bytesOut += socket.bytesWritten;
      });
    });
  }

  /** The counts with what those that are open add. */
  with(open: ReadonlySet<Socket>) {
    let [bytesIn, bytesOut] = [this.#bytesIn, this.#bytesOut];
    for (const { bytesRead, bytesWritten } of open) {
      bytesIn += bytesRead;
      bytesOut += bytesWritten;
    }
    const { handshakeFailures } = this;
    return { connections: open.size, accepted: this.#accepted, dropped: this.#dropped, handshakeFailures, bytesIn, bytesOut };
  }
}

/** Has connections shake hands before `route` takes them. */
function feedTls(
  net: NetServer,
  { server, certificateFor }: TlsTermination,
  route: (socket: TLSSocket) => void,
  { timeouts, clock, log, failed }: ListenerDeps & { readonly failed: (failure: HandshakeFailure) => void },
  { headerTimeoutMs }: ListenerConfig,
): void {
  net.on('connection', (socket) =>
    sniff(socket, { expectTls: true, timeouts, timeoutMs: headerTimeoutMs }, (spoken) => {
      if (spoken === 'tls') {
        server.emit('connection', socket);
        return;
      }
      log.info({ client: socket.remoteAddress }, 'a client speaks plain http on a tls port');
      failed('plain');
      refusePlain(socket);
    }),
  );
  server.on('secureConnection', (socket) => {
    socket.on('error', (error) => log.debug({ error: errorText(error) }, 'tls connection failed'));
    const serverName = socket.servername || undefined;
    if (serverName !== undefined && !hasName(certificateFor(serverName), serverName)) {
      // most clients check the name after the handshake and leave without a word
      log.info({ client: socket.remoteAddress, server_name: serverName }, 'a client asks for a name that no certificate has');
    }
    route(socket);
  });
  server.on('tlsClientError', (error, socket: TLSSocket & { readonly _parent?: Socket }) => {
    const serverName = socket.servername || undefined;
    failed(handshakeFailure(error));
    const shown = { certificate: certificateFor(serverName), serverName, nowMs: clock.now() };
    const reason = handshakeProblem(error, shown);
    // a client that has closed has no address any more; the connection below remembers it
    const client = socket._parent?.remoteAddress;
    log.info({ client, server_name: serverName, error: reason }, 'tls handshake failed');
  });
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
