import { create, type DescMessage, type MessageShape, toJsonString } from '@bufbuild/protobuf';
import type { Dispatcher } from 'undici';
import { type Clock, TimeoutError } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import { failureText } from '#lib/reach-failure.ts';
import { abortable } from '#lib/signal.ts';
import {
  type AgentMessage,
  type BlobChunk,
  type BrokerMessage,
  type FetchBlobsRequest,
  type Hello,
  PollRequestSchema,
  PollResponseSchema,
  ReadBlobsRequestSchema,
  ReadBlobsResponseSchema,
  ReportRequestSchema,
  ReportResponseSchema,
} from '#proto/brokkr/v1/sync_pb.js';
import { certificateError, type Endpoint } from './endpoint.ts';
import { createDispatcher } from './http.ts';
import { callUnary } from './unary.ts';
import type { Received, Transport, TransportDeps, Wire } from './wire.ts';

const SERVICE = 'brokkr.v1.AgentSync';
/** The longest a broker holds a poll (docs/protocol.md, "Polling"). */
const MAX_HOLD_MS = 25_000;
/** Time for a call on top of what it may be held. */
const CALL_MS = 20_000;
/** A poll or report that got no answer is sent again: a reused connection may have been closed meanwhile. */
const ATTEMPTS = 3;
const RETRY_MS = 250;
const BLOB_BYTES = 1024 * 1024;
/** One held poll, one report, and content beside them. */
const CONNECTIONS = 4;

/** Told about every poll, for metrics. */
export type PollObserver = (success: boolean, seconds: number) => void;

/** Settings of the poll tier. */
export interface PollOptions {
  /** The longest the agent wants a poll to be held, in milliseconds. */
  readonly holdMs: number;
}

/** The poll tier: unary Connect JSON over HTTP/1.1, for networks that carry no streams. */
export function createPollTransport(
  { readEndpoint, clock, observe = () => undefined }: TransportDeps & { readonly observe?: PollObserver },
  options: PollOptions,
): Transport {
  return {
    tier: 'poll',
    async open(hello, signal) {
      const endpoint = await readEndpoint();
      signal.throwIfAborted();
      if (hello.body.case !== 'hello') throw new Error('a session begins with hello');
      return new PollWire(endpoint, hello.body.value, { clock, observe }, Math.min(options.holdMs, MAX_HOLD_MS));
    },
  };
}

interface PollDeps {
  readonly clock: Clock;
  readonly observe: PollObserver;
}

class PollWire implements Wire {
  readonly tier = 'poll';
  ack = 0n;
  readonly #endpoint: Endpoint;
  readonly #hello: Hello;
  readonly #deps: PollDeps;
  readonly #holdMs: number;
  readonly #dispatcher: Dispatcher;
  readonly #closed = new AbortController();
  /** Heartbeats, which travel with the next poll. At most one. */
  #ping: AgentMessage | undefined;
  #answers: BrokerMessage[] = [];
  #answered = Promise.withResolvers<void>();
  #session = { sessionToken: '', epoch: 0n };

  constructor(endpoint: Endpoint, hello: Hello, deps: PollDeps, holdMs: number) {
    this.#endpoint = endpoint;
    this.#hello = hello;
    this.#deps = deps;
    this.#holdMs = holdMs;
    this.#dispatcher = createDispatcher(endpoint, { connections: CONNECTIONS });
  }

  async *received(signal: AbortSignal): AsyncIterable<Received> {
    let poll: Promise<{ readonly messages: readonly BrokerMessage[]; readonly waitMs: number }> | undefined;
    let hello: Hello | undefined = this.#hello;
    for (;;) {
      signal.throwIfAborted();
      poll ??= this.#poll(hello, signal);
      poll.catch(() => undefined); // raced below: the failure is seen when it wins
      const result = await abortable(Promise.race([poll, this.#answered.promise]), signal);
      yield* this.#takeAnswers();
      if (!result) continue;
      poll = undefined;
      hello = undefined;
      yield 'alive';
      for (const message of result.messages) {
        if (message.seq !== 0n && message.seq <= this.ack) continue; // sent again because our acknowledgement was lost
        this.ack = message.seq;
        yield message;
      }
      if (result.waitMs > 0) await this.#pause(result.waitMs, signal);
      yield* this.#takeAnswers();
    }
  }

  async send(message: AgentMessage, signal: AbortSignal): Promise<void> {
    if (message.body.case === 'ping') {
      this.#ping = message;
      return;
    }
    const body = create(ReportRequestSchema, { ...this.#session, messages: [message] });
    const { messages } = await this.#call('Report', ReportRequestSchema, body, ReportResponseSchema, CALL_MS, signal);
    if (messages.length === 0) return;
    this.#answers.push(...messages);
    this.#answered.resolve();
  }

  async *fetch(wanted: FetchBlobsRequest, signal: AbortSignal): AsyncIterable<BlobChunk> {
    const fetch = { ...wanted, ...this.#session };
    for (;;) {
      const body = create(ReadBlobsRequestSchema, { fetch, maxBytes: BLOB_BYTES });
      const { chunks } = await this.#call('ReadBlobs', ReadBlobsRequestSchema, body, ReadBlobsResponseSchema, CALL_MS, signal);
      if (chunks.length === 0) return;
      yield* chunks;
      const last = chunks.at(-1);
      const position = fetch.digests.findIndex((digest) => last && Buffer.compare(digest, last.digest) === 0);
      if (!last || position < 0) return;
      const end = last.offset + BigInt(last.data.length);
      const complete = end >= last.total;
      fetch.digests = fetch.digests.slice(complete ? position + 1 : position);
      fetch.offset = complete ? 0n : end;
      if (fetch.digests.length === 0) return;
    }
  }

  opened(sessionToken: string, epoch: bigint): void {
    this.#session = { sessionToken, epoch };
  }

  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort(new Error('the session is closed'));
    await this.#dispatcher.destroy();
  }

  /** Answers to reports: outside the order of the polls, so they acknowledge nothing. All of them may come twice. */
  *#takeAnswers(): Generator<BrokerMessage> {
    if (this.#answers.length === 0) return;
    const answers = this.#answers;
    this.#answers = [];
    this.#answered = Promise.withResolvers();
    yield* answers;
  }

  async #poll(hello: Hello | undefined, signal: AbortSignal) {
    const ping = this.#ping;
    this.#ping = undefined;
    const body = create(PollRequestSchema, {
      ...(hello ? { hello } : this.#session),
      ack: this.ack,
      holdMs: this.#holdMs,
      messages: ping ? [ping] : [],
    });
    const { clock, observe } = this.#deps;
    const started = clock.monotonic();
    let success = false;
    try {
      const answer = await this.#call('Poll', PollRequestSchema, body, PollResponseSchema, this.#holdMs + CALL_MS, signal);
      success = true;
      return { messages: answer.messages, waitMs: answer.more ? 0 : Math.min(answer.nextPollMs, MAX_HOLD_MS) };
    } finally {
      observe(success, (clock.monotonic() - started) / 1000);
    }
  }

  /** Waits between two polls, or until a report was answered. */
  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const either = AbortSignal.any([signal, stop.signal]);
    const sleep = this.#deps.clock.sleep(ms, either).catch(() => undefined);
    await Promise.race([sleep, this.#answered.promise]);
    stop.abort();
    signal.throwIfAborted();
  }

  /** One unary call, again after a failure that gave no answer. */
  async #call<Q extends DescMessage, A extends DescMessage>(
    method: string,
    request: Q,
    message: MessageShape<Q>,
    answer: A,
    deadlineMs: number,
    signal: AbortSignal,
  ): Promise<MessageShape<A>> {
    const either = AbortSignal.any([signal, this.#closed.signal]);
    const text = toJsonString(request, message);
    for (let attempt = 1; ; attempt++) {
      try {
        using deadline = this.#deps.clock.deadline(deadlineMs, either);
        return await callUnary(this.#dispatcher, this.#endpoint, `${SERVICE}/${method}`, text, answer, deadline.signal);
      } catch (error) {
        either.throwIfAborted();
        if (error instanceof BrokkrError) throw error;
        const certificate = certificateError(error);
        if (certificate) throw certificate;
        if (attempt >= ATTEMPTS || error instanceof TimeoutError || (method === 'Poll' && this.ack === 0n)) {
          throw new BrokkrError('unavailable', `the broker cannot be reached: ${failureText(error)}`, { cause: error });
        }
        await this.#deps.clock.sleep(RETRY_MS * attempt, either);
      }
    }
  }
}
