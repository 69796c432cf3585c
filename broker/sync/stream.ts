import { fromBinary } from '@bufbuild/protobuf';
import { BrokkrError, errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { type AgentMessage, AgentMessageSchema, AgentSync } from '#proto/brokkr/v1/sync_pb.js';
import { assertAccess } from '../api/access.ts';
import type { Principal } from '../api/principal.ts';
import type { HotMethod, HotStream } from '../http/grpc-stream.ts';
import type { AgentSession } from './session.ts';
import type { Sync } from './sync.ts';

/** Frames of one agent that wait to be taken; a well-behaved agent has a few. */
const MAX_INBOUND = 256;
/** Frames written between two turns of the event loop, so that one agent's backlog does not delay the others. */
const SLICE = 16;

/** AgentSync.Session over our own gRPC framing. */
export function sessionMethod(sync: Sync, log: Logger): HotMethod {
  return {
    path: '/brokkr.v1.AgentSync/Session',
    maxMessageBytes: 1024 * 1024,
    open(stream) {
      assertAccess(AgentSync.method.session, stream.principal as Principal, undefined);
      const connection = new SessionStream(sync, stream);
      stream.receive({ message: (payload) => connection.take(payload), end: () => connection.finish() });
      connection.serve().catch((error: unknown) => {
        if (!(error instanceof BrokkrError)) log.warn({ error: errorText(error) }, 'session stream failed');
        stream.fail(error);
      });
    },
  };
}

/** One stream: takes frames in order, one at a time, and pumps the session's frames out. */
class SessionStream {
  readonly #sync: Sync;
  readonly #stream: HotStream;
  readonly #inbound: AgentMessage[] = [];
  readonly #opened = Promise.withResolvers<AgentMessage>();
  #session: AgentSession | undefined;
  #taking = false;
  #finished = false;

  constructor(sync: Sync, stream: HotStream) {
    this.#sync = sync;
    this.#stream = stream;
    this.#opened.promise.catch(() => undefined);
    stream.signal.addEventListener('abort', () => this.finish(), { once: true });
  }

  take(payload: Uint8Array): void {
    const message = decode(payload);
    if (!this.#session && this.#inbound.length === 0 && message.body.case === 'hello') this.#opened.resolve(message);
    else if (this.#inbound.length >= MAX_INBOUND)
      throw new BrokkrError('slow_consumer', `more than ${MAX_INBOUND} frames wait to be taken`);
    else this.#inbound.push(message);
    if (!this.#session && message.body.case !== 'hello' && this.#inbound.length === 1)
      this.#opened.reject(new BrokkrError('protocol_violation', 'the first frame is not hello'));
    void this.#drain();
  }

  finish(): void {
    this.#finished = true;
    this.#opened.reject(new BrokkrError('canceled', 'the agent ended the stream before hello'));
    this.#session?.wake();
  }

  async serve(): Promise<void> {
    const hello = await this.#opened.promise;
    if (hello.body.case !== 'hello') return;
    const session = await this.#sync.open(this.#stream.principal as Principal, hello.body.value, 'stream');
    this.#session = session;
    session.took(hello);
    try {
      void this.#drain();
      await this.#pump(session);
    } finally {
      this.#sync.close(session, 'the stream ended');
    }
    this.#stream.end();
  }

  async #pump(session: AgentSession): Promise<void> {
    const over = AbortSignal.any([session.signal, this.#stream.signal]);
    for (let written = 1; ; written++) {
      const frame = await session.next();
      if (frame) {
        if (!this.#stream.write(frame.bytes)) await this.#stream.drain(this.#stream.signal).catch(() => undefined);
        if (written % SLICE === 0) await new Promise<void>((resolve) => setImmediate(resolve));
      } else if (over.aborted || (this.#finished && !this.#taking))
        return; // the agent sends no more and has its answers
      else await session.wait(over).catch(() => undefined);
    }
  }

  async #drain(): Promise<void> {
    const session = this.#session;
    if (!session || this.#taking) return;
    this.#taking = true;
    try {
      for (let message = this.#inbound.shift(); message; message = this.#inbound.shift()) {
        const taken = this.#sync.receive(session, message);
        // events wait for the database (bounded in the ingest); heartbeats and states go on meanwhile
        if (message.body.case === 'events') taken.catch((error: unknown) => this.#fail(session, error));
        else await taken;
      }
    } catch (error) {
      this.#fail(session, error);
    } finally {
      this.#taking = false;
    }
    if (this.#finished) session.wake();
  }

  #fail(session: AgentSession, error: unknown): void {
    this.#stream.fail(error);
    session.end(errorText(error));
  }
}

function decode(payload: Uint8Array): AgentMessage {
  try {
    return fromBinary(AgentMessageSchema, payload);
  } catch (cause) {
    throw new BrokkrError('protocol_violation', `a frame of ${payload.length} bytes is not an AgentMessage`, { cause });
  }
}
