import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants, type IncomingHttpHeaders } from 'node:http2';
import type { Clock } from '#lib/clock.ts';
import { keepAlive, SESSION_WINDOW_BYTES, STREAM_WINDOW_BYTES } from '#lib/http2-server.ts';
import { ReachError } from '#lib/reach-failure.ts';
import { abortable } from '#lib/signal.ts';
import type { Timeouts } from '#lib/timeouts.ts';
import { sendBody } from './body.ts';
import { type Address, dialError } from './dial.ts';
import type { Answer, UpstreamRequest } from './exchange.ts';

/** Time limits of a connection to an upstream, milliseconds. */
export interface SessionOptions {
  readonly connectTimeoutMs: number;
  readonly pingMs: number;
}

/** Streams on one connection; more take another one. Also bound by what the upstream allows. */
const MAX_STREAMS_PER_SESSION = 500;

/** How often a request that an upstream refused is sent in all. */
const MAX_ATTEMPTS = 3;

/** The HTTP/2 connections to one upstream: opened when needed, as many as its streams take. */
export class Http2Sessions {
  readonly #address: Address;
  readonly #deps: { readonly clock: Clock; readonly timeouts: Timeouts };
  readonly #options: SessionOptions;
  /** Streams by connection. */
  readonly #sessions = new Map<ClientHttp2Session, number>();
  #dialling: Promise<void> | undefined;
  #isClosed = false;

  constructor(address: Address, deps: { readonly clock: Clock; readonly timeouts: Timeouts }, options: SessionOptions) {
    this.#address = address;
    this.#deps = deps;
    this.#options = options;
  }

  /**
   * Sends a request; resolves with the head of the answer. Rejects with a `DialError` when nothing has been sent. An abort
   * breaks the stream off, whatever has come.
   */
  async send(request: UpstreamRequest, signal: AbortSignal): Promise<Answer> {
    for (let attempt = 1; ; attempt++) {
      const stream = await this.#open(request, signal);
      if (request.body) sendBody(request.body, stream);
      try {
        return await answerOf(stream);
      } catch (error) {
        // refused or overtaken by a GOAWAY: the upstream has processed nothing of it (RFC 9113, 8.7)
        const untouched = stream.rstCode === constants.NGHTTP2_REFUSED_STREAM && !request.body;
        if (!untouched || attempt === MAX_ATTEMPTS || signal.aborted) throw error;
      }
    }
  }

  /** Ends each connection once its streams have ended. */
  close(): void {
    this.#isClosed = true;
    for (const session of this.#sessions.keys()) session.close();
  }

  async #open(request: UpstreamRequest, signal: AbortSignal): Promise<ClientHttp2Stream> {
    const session = await this.#take(signal);
    const release = () => {
      this.#sessions.set(session, (this.#sessions.get(session) ?? 1) - 1);
      if (session.destroyed) this.#sessions.delete(session);
    };
    try {
      return this.#request(session, request, signal).once('close', release);
    } catch (error) {
      release();
      throw error;
    }
  }

  /** An abort resets the stream; to close it would end the body first, as if it were whole. */
  #request(
    session: ClientHttp2Session,
    { headers, method, target, host, body }: UpstreamRequest,
    signal: AbortSignal,
  ): ClientHttp2Stream {
    const scheme = this.#address.url.protocol.slice(0, -1);
    return session.request(
      { ...headers, ':method': method, ':path': target, ':authority': host, ':scheme': scheme },
      { endStream: body === undefined, signal },
    );
  }

  /** A connection with room for one more stream, which is counted at once. */
  async #take(signal: AbortSignal): Promise<ClientHttp2Session> {
    for (;;) {
      for (const [session, streams] of this.#sessions) {
        const allowed = Math.min(MAX_STREAMS_PER_SESSION, session.remoteSettings.maxConcurrentStreams ?? MAX_STREAMS_PER_SESSION);
        if (session.closed || session.destroyed || streams >= allowed) continue;
        this.#sessions.set(session, streams + 1);
        return session;
      }
      this.#dialling ??= this.#dial().finally(() => {
        this.#dialling = undefined;
      });
      await abortable(this.#dialling, signal);
    }
  }

  /** Opens one connection for all who wait. The settings of the peer show that it speaks HTTP/2. */
  async #dial(): Promise<void> {
    const { url } = this.#address;
    const ca = this.#address.ca();
    const { clock, timeouts } = this.#deps;
    const session = connect(url.origin, {
      settings: { enablePush: false, initialWindowSize: STREAM_WINDOW_BYTES },
      ...(ca !== undefined && { ca }),
    });
    const ready = Promise.withResolvers<void>();
    session.once('remoteSettings', () => ready.resolve());
    session.on('error', ready.reject);
    session.once('close', () => {
      ready.reject(new ReachError('protocol', 'it closed the connection without a word of http/2'));
      if (!this.#sessions.get(session)) this.#sessions.delete(session);
    });
    try {
      using deadline = clock.deadline(this.#options.connectTimeoutMs, new AbortController().signal);
      await abortable(ready.promise, deadline.signal);
      if (session.remoteSettings.maxConcurrentStreams === 0) throw new ReachError('unavailable', 'it takes no requests');
      if (this.#isClosed) throw new Error('the gateway stops');
    } catch (error) {
      session.destroy();
      throw dialError(this.#address, error);
    }
    session.setLocalWindowSize(SESSION_WINDOW_BYTES);
    keepAlive(session, timeouts, this.#options.pingMs);
    this.#sessions.set(session, 0);
  }
}

function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  let trailers: IncomingHttpHeaders = {};
  stream.on('trailers', (headers) => {
    trailers = headers;
  });
  return new Promise((resolve, reject) => {
    stream.on('error', reject);
    stream.once('close', () => reject(new Error(`the upstream broke off (code ${stream.rstCode})`)));
    stream.once('response', (headers, flags) => {
      const isEmpty = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0;
      if (isEmpty) stream.resume();
      resolve({
        status: headers[':status'] ?? 502,
        headers,
        body: isEmpty ? undefined : stream,
        trailers: () => trailers,
      });
    });
  });
}
