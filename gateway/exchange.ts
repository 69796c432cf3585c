import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http';
import type { Readable, Writable } from 'node:stream';

/** What goes to an upstream. Headers are end to end ones, without `host`. */
export interface UpstreamRequest {
  readonly method: string;
  /** Path and query, as the client wrote them. */
  readonly target: string;
  /** The host that the client asked for. */
  readonly host: string;
  readonly headers: OutgoingHttpHeaders;
  /** Undefined when the headers are all of it. */
  readonly body: Readable | undefined;
}

/** What an upstream says, once its headers are there. */
export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Undefined when the headers are all of it. */
  readonly body: Readable | undefined;
  /** What came after the body; complete once the body has ended. */
  readonly trailers: () => IncomingHttpHeaders;
}

/** What a client asks for, whatever version of HTTP it speaks. */
export interface Question {
  readonly version: '1.1' | '2';
  readonly method: string;
  /** Path and query. */
  readonly target: string;
  readonly host: string;
  /** As they came in; pseudo headers may be among them. */
  readonly headers: IncomingHttpHeaders;
  /** Address of the client; undefined when it has gone already. */
  readonly client: string | undefined;
}

/** A request that waits for its answer. */
export interface Exchange extends Question {
  /** Undefined when the headers are all of it. */
  readonly body: Readable | undefined;
  /** Aborts when nobody waits for the answer any more: it is complete, or the client has gone. */
  readonly closed: AbortSignal;
  /** Sends status and headers at once. Call once. */
  respond(status: number, headers: OutgoingHttpHeaders, rest: { readonly isEmpty: boolean }): void;
  /** Where the body of the answer goes after `respond`; ended by `end` only. */
  readonly sink: Writable;
  /** Completes the answer. */
  end(trailers: OutgoingHttpHeaders): void;
  /** True once `respond` was called. */
  readonly isAnswered: boolean;
  /** Breaks the answer off, so that the client cannot take it for complete. */
  cut(): void;
}
