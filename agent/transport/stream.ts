import { createSecureContext } from 'node:tls';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import type { Clock } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import { abortable } from '#lib/signal.ts';
import {
  type AgentMessage,
  AgentMessageSchema,
  type BrokerMessage,
  BrokerMessageSchema,
  type FetchBlobsRequest,
  FetchBlobsRequestSchema,
  type FetchBlobsResponse,
  FetchBlobsResponseSchema,
} from '#proto/brokkr/v1/sync_pb.js';
import { type Endpoint, hostPort } from './endpoint.ts';
import { detailOfStatus, refusalError } from './failure.ts';
import { findConnectError } from './http.ts';
import { MAX_MESSAGE_BYTES, type Received, type Transport, type TransportDeps, type Wire } from './wire.ts';

const SERVICE = '/brokkr.v1.AgentSync';
/** Finds a dead TCP connection; what lives but lost the broker behind it is found by the session's own heartbeat. */
const KEEPALIVE_MS = 30_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;
/** Time for the last frames to leave. */
const CLOSE_MS = 1_000;

/** The stream tier: gRPC over HTTP/2, one TCP connection of its own for every session. */
export function createStreamTransport({ readEndpoint, clock }: TransportDeps): Transport {
  return {
    tier: 'stream',
    async open(hello, signal) {
      const endpoint = await readEndpoint();
      signal.throwIfAborted();
      return openWire(endpoint, hello, clock);
    },
  };
}

/**
 * Whether the way to the broker carries streams: opens a health watch, which answers at once and stays open, and waits
 * for its first message. Leaves no trace in any session. A server without the health service carries streams too.
 */
export async function carriesStreams(endpoint: Endpoint, signal: AbortSignal): Promise<boolean> {
  const client = connect(endpoint);
  try {
    const raw = (bytes: Buffer) => bytes;
    const path = `${endpoint.url.pathname.replace(/\/$/, '')}/grpc.health.v1.Health/Watch`;
    const call = client.makeServerStreamRequest(path, raw, raw, Buffer.alloc(0), metadata(endpoint));
    for await (const _ of messages(call, endpoint, signal)) return true;
    return false;
  } catch (error) {
    return error instanceof BrokkrError && error.code === 'unimplemented';
  } finally {
    client.close();
  }
}

function openWire(endpoint: Endpoint, hello: AgentMessage, clock: Clock): Wire {
  const client = connect(endpoint);
  const base = endpoint.url.pathname.replace(/\/$/, '') + SERVICE;
  const call: ClientDuplexStream<AgentMessage, BrokerMessage> = client.makeBidiStreamRequest(
    `${base}/Session`,
    (message: AgentMessage) => Buffer.from(toBinary(AgentMessageSchema, message)),
    (bytes: Buffer) => fromBinary(BrokerMessageSchema, bytes),
    metadata(endpoint),
  );
  call.on('error', () => undefined); // the reader reports it; this keeps a late one from ending the process
  call.write(hello);
  let ack = 0n;
  let session = { sessionToken: '', epoch: 0n };
  return {
    tier: 'stream',
    get ack() {
      return ack;
    },
    async *received(signal): AsyncIterable<Received> {
      for await (const message of messages(call, endpoint, signal)) {
        ack = message.seq;
        yield message;
      }
    },
    async send(message, signal) {
      signal.throwIfAborted();
      if (call.destroyed) return; // the reader says why
      if (!call.write(message)) await drained(call, signal);
    },
    async *fetch(request, signal) {
      const stream = client.makeServerStreamRequest(
        `${base}/FetchBlobs`,
        (message: FetchBlobsRequest) => Buffer.from(toBinary(FetchBlobsRequestSchema, message)),
        (bytes: Buffer): FetchBlobsResponse => fromBinary(FetchBlobsResponseSchema, bytes),
        { ...request, ...session },
        metadata(endpoint),
      );
      for await (const { chunks } of messages(stream, endpoint, signal)) yield* chunks;
    },
    opened(sessionToken, epoch) {
      session = { sessionToken, epoch };
    },
    async close() {
      if (!call.closed) {
        const ended = Promise.withResolvers<void>();
        call.once('status', () => ended.resolve());
        call.once('close', () => ended.resolve());
        call.end();
        using deadline = clock.deadline(CLOSE_MS, new AbortController().signal);
        await abortable(ended.promise, deadline.signal).catch(() => call.cancel());
      }
      client.close();
    },
  };
}

function connect(endpoint: Endpoint): Client {
  const { url, ca, proxy } = endpoint;
  const via = proxy ? new URL(proxy) : undefined;
  const secure = ca ? credentials.createFromSecureContext(createSecureContext({ ca: [...ca] })) : credentials.createInsecure();
  return new Client(`dns:${hostPort(via ?? url)}`, secure, {
    'grpc.default_authority': hostPort(url),
    'grpc.enable_http_proxy': 0, // it reads other variables than the rest of the agent
    ...(via && { 'grpc.http_connect_target': `dns:${hostPort(url)}` }),
    ...(via?.username && { 'grpc.http_connect_creds': decodeURIComponent(`${via.username}:${via.password}`) }),
    'grpc.use_local_subchannel_pool': 1, // closing this client closes its connection
    'grpc.service_config_disable_resolution': 1,
    'grpc.enable_retries': 0,
    'grpc.keepalive_time_ms': KEEPALIVE_MS,
    'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
    'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
    'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
  });
}

function metadata({ pak }: Endpoint): Metadata {
  const result = new Metadata();
  result.set('authorization', pak);
  return result;
}

/** Reads a call to its end; cancels it when the reader leaves or `signal` aborts. */
async function* messages<T>(
  call: ClientDuplexStream<AgentMessage, T> | ClientReadableStream<T>,
  endpoint: Endpoint,
  signal: AbortSignal,
): AsyncGenerator<T> {
  const cancel = () => call.cancel();
  signal.throwIfAborted();
  signal.addEventListener('abort', cancel, { once: true });
  let isOpen = false;
  try {
    for await (const message of call) {
      isOpen = true;
      yield message as T;
    }
  } catch (error) {
    signal.throwIfAborted();
    const { code, details, metadata: trailers } = error as Partial<ServiceError>;
    if (code === undefined) throw error;
    const refused = refusal(code, details, trailers);
    const isAnswer = isOpen || code !== status.UNAVAILABLE || refused.code !== 'unavailable';
    throw isAnswer ? refused : ((await findConnectError(endpoint, signal)) ?? refused);
  } finally {
    signal.removeEventListener('abort', cancel);
    call.cancel();
  }
}

function refusal(code: number, details: string | undefined, trailers: Metadata | undefined): BrokkrError {
  const bytes = trailers?.get('grpc-status-details-bin')[0];
  return refusalError({
    status: code,
    message: details ?? '',
    detail: bytes instanceof Buffer ? detailOfStatus(bytes) : undefined,
    retryAfter: trailers?.get('retry-after')[0]?.toString(),
  });
}

function drained(call: ClientDuplexStream<AgentMessage, BrokerMessage>, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  for (const event of ['drain', 'close', 'status']) call.once(event, () => resolve());
  return abortable(promise, signal);
}
