import {
  createServer,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { errorText } from './errors.ts';
import { MAX_HEADER_BYTES } from './http1-server.ts';
import type { Logger } from './log.ts';
import type { Timeouts } from './timeouts.ts';

/** How much a peer may send on one stream and on one connection before we have read it; 64 KiB make uploads 57 times slower at 40 ms. */
export const STREAM_WINDOW_BYTES = 4 * 1024 * 1024;
export const SESSION_WINDOW_BYTES = 8 * 1024 * 1024;
const MAX_STREAMS_PER_SESSION = 1000;
/** Cancelled streams before a session is closed as an attack: a gateway cancels for many callers over one connection. */
const RESET_BURST = 20_000;
const RESETS_PER_SECOND = 2000;

/** Who takes what comes in. */
export interface Http2Deps {
  readonly handle: (request: Http2ServerRequest, response: Http2ServerResponse) => void;
  /** Takes a stream before `handle` sees it, or returns false. */
  readonly handleStream: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => boolean;
  readonly log: Logger;
}

/** A server that is fed connections; `opened` hears of each session. */
export function createHttp2(deps: Http2Deps, opened: (session: ServerHttp2Session) => void): Http2Server {
  const server = createServer({
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

/** A session of either side. */
interface PingedSession {
  readonly destroyed: boolean;
  destroy(): void;
  ping(answered: () => void): boolean;
  once(event: 'close', listener: () => void): unknown;
}

/** Pings the peer for as long as the session lives and destroys it when an answer is missing at the next ping, `pingMs` later. */
export function keepAlive(session: PingedSession, timeouts: Timeouts, pingMs: number): void {
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
