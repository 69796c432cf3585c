import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import type { Clock, Deadline } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import { abortable } from '#lib/signal.ts';
import type { Call } from './context.ts';
import { FrameReader, grpcFrame, grpcTimeoutMs, grpcTrailers } from './grpc-frame.ts';
import type { ErrorBody } from './rpc-errors.ts';

/**
 * A bidi method served by our own gRPC framing instead of Connect: a third of the memory and a tenth of the CPU a stream.
 * Requests of other protocols to the same path go to Connect.
 */
export interface HotMethod {
  /** `/package.Service/Method`. */
  readonly path: string;
  /** Largest message from the client, bytes. */
  readonly maxMessageBytes: number;
  /** Called once a stream, after authentication, before any message. A throw ends the stream with that error. */
  open(stream: HotStream, headers: IncomingHttpHeaders): void;
}

/** Handlers of what comes in. Called in order, never after the stream ended; a throw ends the stream with that error. */
export interface HotStreamHandlers {
  /** One message; the bytes are the callee's. */
  message(payload: Uint8Array): void;
  /** The client sends no more; the stream stays open for answers. */
  end(): void;
}

/** What is known about a stream once it is admitted. */
export interface Admitted {
  readonly principal: unknown;
  readonly call: Call;
  /** The error that the client is told for whatever was thrown; logs what nobody expected. */
  readonly bodyOf: (error: unknown) => ErrorBody;
}

/** Bytes that may wait in a stream before `write` returns false. */
const HIGH_WATER_BYTES = 256 * 1024;

/** One gRPC stream. Answer headers are sent as soon as it is open. */
export class HotStream {
  /** What `authenticate` returned. */
  readonly principal: unknown;
  readonly call: Call;
  /** Aborts when the stream has ended, whoever ended it: cancelled, deadline, connection lost, `end`. */
  readonly signal: AbortSignal;
  readonly #stream: ServerHttp2Stream;
  readonly #bodyOf: (error: unknown) => ErrorBody;
  readonly #reader: FrameReader;
  readonly #ended = new AbortController();
  #handlers: HotStreamHandlers | undefined;
  #trailers = grpcTrailers(undefined);
  #deadline: Deadline | undefined;

  /** Use `openHotStream`. */
  constructor(stream: ServerHttp2Stream, options: Admitted & { readonly maxMessageBytes: number }) {
    this.principal = options.principal;
    this.call = options.call;
    this.signal = this.#ended.signal;
    this.#stream = stream;
    this.#bodyOf = options.bodyOf;
    this.#reader = new FrameReader(options.maxMessageBytes);
    stream.on('error', () => undefined); // 'close' follows and tells the owner
    stream.on('wantTrailers', () => this.#sendTrailers());
    stream.on('close', () => this.#finish(new BrokkrError('canceled', 'the stream is closed')));
    stream.respond(
      { ':status': 200, 'content-type': 'application/grpc+proto', 'grpc-accept-encoding': 'identity' },
      { waitForTrailers: true },
    );
  }

  /** Starts reading. Call once. */
  receive(handlers: HotStreamHandlers): void {
    this.#handlers = handlers;
    this.#stream.on('data', (chunk: Buffer) => this.#take(chunk));
    this.#stream.on('end', () => this.#endOfInput());
  }

  /** Stops reading; the client's sending stops once the windows are full. */
  pause(): void {
    this.#stream.pause();
  }

  /** Reads on. */
  resume(): void {
    this.#stream.resume();
  }

  /** Sends one message. False when more than 256 KiB wait: stop and `drain`. A write after the end is ignored. */
  write(payload: Uint8Array): boolean {
    return this.writeFrame(grpcFrame(payload));
  }

  /** Sends what `grpcFrame` made; for one message to many streams. */
  writeFrame(frame: Buffer): boolean {
    if (this.signal.aborted || this.#stream.destroyed || this.#stream.writableEnded) return false;
    this.#stream.write(frame);
    return this.#stream.writableLength < HIGH_WATER_BYTES;
  }

  /** Bytes that wait to be sent. */
  get writableLength(): number {
    return this.#stream.writableLength;
  }

  /** Resolves when what waits has been handed to the network; rejects when the stream ends first or `signal` aborts. */
  async drain(signal: AbortSignal): Promise<void> {
    while (!this.signal.aborted && this.#stream.writableNeedDrain) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const wake = () => resolve();
      this.#stream.once('drain', wake);
      this.signal.addEventListener('abort', wake, { once: true });
      await abortable(promise, signal).finally(() => {
        this.#stream.off('drain', wake);
        this.signal.removeEventListener('abort', wake);
      });
    }
    this.signal.throwIfAborted();
    signal.throwIfAborted();
  }

  /** Ends the stream: in order, or with an error. What was written before is still sent. Later calls do nothing. */
  end(error?: ErrorBody): void {
    if (this.signal.aborted) return;
    this.#trailers = grpcTrailers(error);
    this.#stream.end();
    this.#finish(error ? new BrokkrError(error.code, error.message) : new BrokkrError('canceled', 'the stream has ended'));
    this.#stream.removeAllListeners('data');
    this.#stream.resume(); // what the client still sends is thrown away
  }

  /** Ends the stream with whatever was thrown. */
  fail(error: unknown): void {
    this.end(this.#bodyOf(error));
  }

  /** Ends the stream with `deadline_exceeded` when the client's deadline passes. */
  endAfter(ms: number, clock: Clock): void {
    this.#deadline = clock.deadline(ms, this.signal);
    this.#deadline.signal.addEventListener('abort', () => {
      if (!this.signal.aborted) this.end({ code: 'deadline_exceeded', message: `the deadline of ${ms} ms has passed` });
    });
  }

  #take(chunk: Buffer): void {
    if (this.signal.aborted) return;
    try {
      this.#reader.push(chunk, (message) => {
        this.#handlers?.message(message);
        return !this.signal.aborted;
      });
    } catch (error) {
      this.fail(error);
    }
  }

  #endOfInput(): void {
    if (this.signal.aborted) return;
    try {
      if (!this.#reader.empty) throw new BrokkrError('invalid_request', 'the stream ended within a message');
      this.#handlers?.end();
    } catch (error) {
      this.fail(error);
    }
  }

  #finish(reason: BrokkrError): void {
    if (this.signal.aborted) return;
    this.#ended.abort(reason);
    this.#deadline?.[Symbol.dispose]();
  }

  #sendTrailers(): void {
    const stream = this.#stream;
    if (stream.destroyed || stream.closed) return;
    stream.sendTrailers(this.#trailers);
    if (stream.readableEnded) return;
    // Tells the client to stop sending (RFC 9113, 8.1); at once it would overtake the trailers.
    setImmediate(() => {
      if (!stream.closed) stream.close(constants.NGHTTP2_NO_ERROR);
    });
  }
}

/** True when a request is one for our own framing: POST of `application/grpc` or `application/grpc+proto`, uncompressed. */
export function isHotRequest(headers: IncomingHttpHeaders): boolean {
  const type = headers['content-type'];
  return headers[':method'] === 'POST' && (type === 'application/grpc' || type === 'application/grpc+proto');
}

/** Answers with the error alone (gRPC, "Trailers-Only"). */
export function refuseHotStream(stream: ServerHttp2Stream, error: ErrorBody): void {
  if (stream.destroyed || stream.headersSent) return;
  stream.respond({ ':status': 200, 'content-type': 'application/grpc+proto', ...grpcTrailers(error) }, { endStream: true });
  stream.resume();
  if (!stream.closed) stream.close(constants.NGHTTP2_NO_ERROR);
}

/** Opens an admitted stream and hands it to its method. */
export function openHotStream(
  method: HotMethod,
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  admitted: Admitted,
  clock: Clock,
): HotStream {
  const timeoutMs = grpcTimeoutMs(headers['grpc-timeout']);
  const hot = new HotStream(stream, { ...admitted, maxMessageBytes: method.maxMessageBytes });
  if (timeoutMs !== undefined) hot.endAfter(timeoutMs, clock);
  try {
    method.open(hot, headers);
  } catch (error) {
    hot.fail(error);
  }
  return hot;
}
