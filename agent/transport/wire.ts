import type { Clock } from '#lib/clock.ts';
import type { AgentMessage, BlobChunk, BrokerMessage, FetchBlobsRequest } from '#proto/brokkr/v1/sync_pb.js';
import type { Endpoint } from './endpoint.ts';

/** How a session travels: one bidi stream over HTTP/2, or unary JSON over HTTP/1.1. */
export type Tier = 'stream' | 'poll';

/** Largest message either side may send, in bytes (the hard frame limit; what the broker asks for in Welcome is lower). */
export const MAX_MESSAGE_BYTES = 1024 * 1024;

/** A frame, or the news that the broker answered without having anything to say. */
export type Received = BrokerMessage | 'alive';

/** One opened connection of a session. A failure anywhere rejects with `BrokkrError`, `CertificateError` or a socket error. */
export interface Wire {
  readonly tier: Tier;
  /** Number of the newest broker frame handed out such that none before it is missing: what every frame of ours acknowledges. */
  readonly ack: bigint;
  /** What the broker says, until it ends the session in order. To be read once. */
  received(signal: AbortSignal): AsyncIterable<Received>;
  /** Hands a frame over; resolves when there is room for the next one. */
  send(message: AgentMessage, signal: AbortSignal): Promise<void>;
  /** Content by digest, in chunks, on a call of its own. */
  fetch(request: FetchBlobsRequest, signal: AbortSignal): AsyncIterable<BlobChunk>;
  /** Names the session in calls of its own. */
  opened(token: string, epoch: bigint): void;
  /** Ends the connection and frees its sockets; what was sent has a second to leave. */
  close(): Promise<void>;
}

/** What a transport needs. */
export interface TransportDeps {
  /** Called for every connection, so that rotated files are seen. */
  readonly readEndpoint: () => Promise<Endpoint>;
  readonly clock: Clock;
}

/** A way to the broker. */
export interface Transport {
  readonly tier: Tier;
  /** Dials and sends `hello`. Resolves before the broker has answered. */
  open(hello: AgentMessage, signal: AbortSignal): Promise<Wire>;
}
