import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, createServer, type Server as NetServer, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { create, fromBinary, fromJsonString, type MessageInitShape, toBinary, toJsonString } from '@bufbuild/protobuf';
import { Metadata, Server, ServerCredentials, type ServerDuplexStream, type ServerWritableStream, status } from '@grpc/grpc-js';
import { ErrorSchema } from '#proto/brokkr/v1/errors_pb.js';
import {
  type AgentMessage,
  AgentMessageSchema,
  type BlobChunk,
  BlobChunkSchema,
  type BrokerMessage,
  BrokerMessageSchema,
  type FetchBlobsRequest,
  FetchBlobsRequestSchema,
  type FetchBlobsResponse,
  FetchBlobsResponseSchema,
  type Hello,
  PollRequestSchema,
  PollResponseSchema,
  ReadBlobsRequestSchema,
  ReadBlobsResponseSchema,
  ReportRequestSchema,
  ReportResponseSchema,
  SyncMode,
  WelcomeSchema,
} from '#proto/brokkr/v1/sync_pb.js';

/** What a frame of the broker says. */
export type BrokerBody = NonNullable<MessageInitShape<typeof BrokerMessageSchema>['body']>;

/** What the network between agent and broker lets through. */
export type Network = 'open' | 'http1' | 'buffering' | 'cut';

/** A refusal with our Error detail. */
export class ScriptedError extends Error {
  readonly code: string;
  readonly status: number;
  readonly retryAfterS: number | undefined;

  constructor(code: string, grpcStatus: number, message: string, retryAfterS?: number) {
    super(message);
    this.code = code;
    this.status = grpcStatus;
    this.retryAfterS = retryAfterS;
  }
}

/** One session as the broker sees it. */
export class ScriptedSession {
  readonly tier: 'stream' | 'poll';
  readonly token = randomUUID();
  readonly hello: Hello;
  readonly authorization: string;
  /** Frames of the agent, in order. */
  readonly heard: AgentMessage[] = [];
  /** Highest frame the agent has acknowledged. */
  acked = 0n;
  ended = false;
  readonly frames: BrokerMessage[] = [];
  #seq = 0n;
  deliver: () => void = () => undefined;
  end: (error?: ScriptedError) => void = () => undefined;

  constructor(tier: 'stream' | 'poll', hello: Hello, authorization: string) {
    this.tier = tier;
    this.hello = hello;
    this.authorization = authorization;
  }

  say(...bodies: BrokerBody[]): void {
    for (const body of bodies) {
      if (body.case === 'welcome') body.value.sessionToken = this.token;
      this.#seq += 1n;
      this.frames.push(create(BrokerMessageSchema, { seq: this.#seq, ack: this.heard.at(-1)?.seq ?? 1n, body }));
    }
    this.deliver();
  }

  /** What the agent said in frames of one kind. */
  said<C extends string>(kind: C) {
    type Value = Extract<AgentMessage['body'], { case: C }> extends { value: infer V } ? V : never;
    return this.heard.filter(({ body }) => body.case === kind).map(({ body }) => body.value as Value);
  }
}

/** The broker's end of the wire, written by a test: real gRPC and real HTTP/1.1 on one loopback port. */
export interface ScriptedBroker extends AsyncDisposable {
  readonly url: string;
  readonly sessions: ScriptedSession[];
  readonly polls: { count: number };
  network: Network;
  /** Decides about a Hello; the default opens the session as up to date. */
  onHello: (session: ScriptedSession) => void;
  /** Called for every later frame; the default answers heartbeats and acknowledges events. */
  onFrame: (session: ScriptedSession, message: AgentMessage) => void;
  /** Content by digest (hex). `breakAfter` ends a transfer after so many chunks. */
  readonly blobs: Map<string, Buffer>;
  breakAfter: number;
  fetches: number;
  /** Cuts every connection. */
  drop(): void;
  /** Resolves with the session once there are so many. */
  session(number: number): Promise<ScriptedSession>;
}

const CHUNK_BYTES = 64 * 1024;

/** A Welcome in mode UP_TO_DATE, with what `rest` says otherwise. */
export const welcome = (rest: MessageInitShape<typeof WelcomeSchema> = {}): BrokerBody => ({
  case: 'welcome',
  value: create(WelcomeSchema, {
    version: 1,
    epoch: 1n,
    sessionToken: 'token',
    mode: SyncMode.UP_TO_DATE,
    incarnation: 'inc-1',
    revision: { xid: 1n, seq: 1n, nonce: 1n },
    agentId: '00000000-0000-4000-8000-0000000000aa',
    agentName: 'test',
    config: { heartbeatIntervalMs: 20_000, healthIntervalMs: 60_000, windowFrames: 64, maxFrameBytes: 262_144 },
    ...rest,
  } as MessageInitShape<typeof WelcomeSchema>),
});

/** Starts one; with `tls` gRPC only, on TLS. */
export async function startScriptedBroker(tls?: { readonly key: Buffer; readonly cert: Buffer }): Promise<ScriptedBroker> {
  const grpc = new Server();
  const sockets = new Set<Socket>();
  const http = createHttpServer((request, response) => {
    answer(broker, request, response).catch((error: unknown) => response.destroy(error as Error));
  });
  const raw = (bytes: Buffer) => bytes;
  grpc.addService(serviceOf(), handlersOf(() => broker) as never);
  grpc.addService(
    {
      watch: {
        path: '/grpc.health.v1.Health/Watch',
        requestStream: false,
        responseStream: true,
        requestSerialize: raw,
        requestDeserialize: raw,
        responseSerialize: raw,
        responseDeserialize: raw,
      },
    } as never,
    { watch: (call: ServerWritableStream<Buffer, Buffer>) => call.write(Buffer.from([8, 1])) } as never,
  );
  const credentials = tls
    ? ServerCredentials.createSsl(null, [{ private_key: tls.key, cert_chain: tls.cert }])
    : ServerCredentials.createInsecure();
  const grpcPort = await new Promise<number>((resolve, reject) => {
    grpc.bindAsync('127.0.0.1:0', credentials, (error, port) => (error ? reject(error) : resolve(port)));
  });
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  const front = tls ? undefined : await startFront(() => broker.network, grpcPort, (http.address() as AddressInfo).port, sockets);
  const broker: ScriptedBroker = {
    url: front ? `http://127.0.0.1:${(front.address() as AddressInfo).port}` : `https://localhost:${grpcPort}`,
    sessions: [],
    polls: { count: 0 },
    network: 'open',
    onHello: (session) => session.say(welcome()),
    onFrame: answerUsually,
    blobs: new Map(),
    breakAfter: Number.POSITIVE_INFINITY,
    fetches: 0,
    drop: () => {
      for (const socket of sockets) socket.resetAndDestroy();
    },
    async session(number) {
      while (!broker.sessions[number]) await new Promise<void>((resolve) => setTimeout(resolve, 5));
      return broker.sessions[number];
    },
    async [Symbol.asyncDispose]() {
      for (const session of broker.sessions) session.ended = true;
      for (const socket of sockets) socket.destroy();
      front?.close();
      http.closeAllConnections();
      http.close();
      grpc.forceShutdown();
    },
  };
  return broker;
}

/** Answers heartbeats and acknowledges events. */
export function answerUsually(session: ScriptedSession, { body }: AgentMessage): void {
  if (body.case === 'ping') session.say({ case: 'pong', value: {} });
  if (body.case !== 'events') return;
  const { bootId, events } = body.value;
  session.say({ case: 'eventsAck', value: { bootId, through: events.at(-1)?.seq ?? 0n } });
}

function take(broker: ScriptedBroker, session: ScriptedSession, message: AgentMessage): void {
  session.heard.push(message);
  if (message.ack > session.acked) session.acked = message.ack;
  broker.onFrame(session, message);
}

function serviceOf() {
  const method = (
    name: string,
    requestStream: boolean,
    decode: (bytes: Buffer) => unknown,
    encode: (value: never) => Uint8Array,
  ) => ({
    path: `/brokkr.v1.AgentSync/${name}`,
    requestStream,
    responseStream: true,
    requestDeserialize: decode,
    responseSerialize: (value: never) => Buffer.from(encode(value)),
    requestSerialize: () => Buffer.alloc(0),
    responseDeserialize: () => undefined,
  });
  return {
    session: method(
      'Session',
      true,
      (bytes) => fromBinary(AgentMessageSchema, bytes),
      (value) => toBinary(BrokerMessageSchema, value),
    ),
    fetchBlobs: method(
      'FetchBlobs',
      false,
      (bytes) => fromBinary(FetchBlobsRequestSchema, bytes),
      (value) => toBinary(FetchBlobsResponseSchema, value),
    ),
  } as never;
}

function handlersOf(broker: () => ScriptedBroker) {
  return {
    session(call: ServerDuplexStream<AgentMessage, BrokerMessage>) {
      let session: ScriptedSession | undefined;
      call.on('data', (message: AgentMessage) => {
        if (session) return take(broker(), session, message);
        if (message.body.case !== 'hello') return;
        const opened = new ScriptedSession('stream', message.body.value, String(call.metadata.get('authorization')[0]));
        session = opened;
        let sent = 0;
        opened.deliver = () => {
          for (; sent < opened.frames.length; sent++) if (!opened.ended) call.write(opened.frames[sent]!);
        };
        opened.end = (error) => {
          opened.ended = true;
          if (error) call.emit('error', grpcError(error));
          else call.end();
        };
        broker().sessions.push(opened);
        broker().onHello(opened);
        return undefined;
      });
      call.on('end', () => {
        if (session) session.ended = true;
        call.end();
      });
      call.on('cancelled', () => {
        if (session) session.ended = true;
      });
      call.on('error', () => undefined);
    },
    fetchBlobs(call: ServerWritableStream<FetchBlobsRequest, FetchBlobsResponse>) {
      broker().fetches++;
      let count = 0;
      for (const chunk of chunksOf(broker(), call.request)) {
        if (count++ >= broker().breakAfter) {
          call.emit('error', { code: status.UNAVAILABLE, details: 'cut by the test' });
          return;
        }
        call.write(create(FetchBlobsResponseSchema, { chunks: [chunk] }));
      }
      call.end();
    },
  };
}

function* chunksOf(broker: ScriptedBroker, { digests, offset }: FetchBlobsRequest): Generator<BlobChunk> {
  let start = Number(offset);
  for (const digest of digests) {
    const blob = broker.blobs.get(Buffer.from(digest).toString('hex'));
    if (!blob) return;
    for (; start < blob.length; start += CHUNK_BYTES) {
      const data = Uint8Array.from(blob.subarray(start, start + CHUNK_BYTES));
      yield create(BlobChunkSchema, { digest, offset: BigInt(start), total: BigInt(blob.length), data });
    }
    start = 0;
  }
}

function errorBytes({ code, message }: ScriptedError): Uint8Array {
  return toBinary(ErrorSchema, create(ErrorSchema, { code, message }));
}

function grpcError(error: ScriptedError) {
  const metadata = new Metadata();
  const field = (number: number, bytes: Uint8Array) => Buffer.concat([Buffer.from([(number << 3) | 2, bytes.length]), bytes]);
  const any = Buffer.concat([field(1, Buffer.from('type.googleapis.com/brokkr.v1.Error')), field(2, errorBytes(error))]);
  metadata.set('grpc-status-details-bin', field(3, any));
  if (error.retryAfterS !== undefined) metadata.set('retry-after', String(error.retryAfterS));
  return { code: error.status, details: error.message, metadata };
}

async function answer(broker: ScriptedBroker, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await text(request);
  const json = (value: string) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(value);
  };
  const named = (token: string) => broker.sessions.find((session) => session.token === token);
  const refuse = (error: ScriptedError) => {
    const detail = { type: 'brokkr.v1.Error', value: Buffer.from(errorBytes(error)).toString('base64') };
    response.writeHead(400, { 'content-type': 'application/json', 'retry-after': String(error.retryAfterS ?? 0) });
    response.end(JSON.stringify({ code: 'failed_precondition', message: error.message, details: [detail] }));
  };
  switch (request.url?.split('/').at(-1)) {
    case 'Poll': {
      broker.polls.count++;
      const poll = fromJsonString(PollRequestSchema, body);
      let session = named(poll.sessionToken);
      if (poll.hello) {
        session = new ScriptedSession('poll', poll.hello, request.headers.authorization ?? '');
        broker.sessions.push(session);
        let failed: ScriptedError | undefined;
        session.end = (error) => {
          failed = error;
        };
        broker.onHello(session);
        if (failed) return refuse(failed);
      }
      if (!session || session.ended) return refuse(new ScriptedError('session_unknown', 9, 'say hello again'));
      if (poll.ack > session.acked) session.acked = poll.ack;
      for (const message of poll.messages) take(broker, session, message);
      await waitForFrames(session, poll.holdMs, response);
      const messages = session.frames.filter(({ seq }) => seq > session.acked);
      return json(toJsonString(PollResponseSchema, create(PollResponseSchema, { messages, more: messages.length > 0 })));
    }
    case 'Report': {
      const report = fromJsonString(ReportRequestSchema, body);
      const current = named(report.sessionToken);
      if (!current || current.ended) return refuse(new ScriptedError('session_unknown', 9, 'say hello again'));
      for (const message of report.messages) take(broker, current, message);
      return json(toJsonString(ReportResponseSchema, create(ReportResponseSchema, { ack: report.messages.at(-1)?.seq ?? 0n })));
    }
    case 'ReadBlobs': {
      broker.fetches++;
      const { fetch } = fromJsonString(ReadBlobsRequestSchema, body);
      const chunks = fetch ? [...chunksOf(broker, fetch)].slice(0, 4) : [];
      return json(toJsonString(ReadBlobsResponseSchema, create(ReadBlobsResponseSchema, { chunks })));
    }
    default:
      response.writeHead(404);
      response.end();
  }
}

async function waitForFrames(session: ScriptedSession, holdMs: number, response: ServerResponse): Promise<void> {
  const hasFrames = () => session.frames.some(({ seq }) => seq > session.acked);
  if (hasFrames() || response.destroyed) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, Math.min(holdMs, 500));
    session.deliver = () => {
      clearTimeout(timer);
      resolve();
    };
    response.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** One port: HTTP/2 with prior knowledge goes to the gRPC server, everything else to the HTTP/1.1 server, as the network allows. */
async function startFront(network: () => Network, grpcPort: number, httpPort: number, sockets: Set<Socket>): Promise<NetServer> {
  const server = createServer((client) => {
    sockets.add(client);
    client.on('close', () => sockets.delete(client));
    client.on('error', () => undefined);
    if (network() === 'cut') return client.resetAndDestroy();
    client.once('data', (first) => {
      const http2 = first.subarray(0, 3).toString() === 'PRI';
      if (http2 && network() === 'http1')
        return client.end('HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\n\r\n');
      const upstream = connect(http2 ? grpcPort : httpPort, '127.0.0.1');
      upstream.on('error', () => client.destroy());
      upstream.on('close', () => client.destroy());
      client.on('close', () => upstream.destroy());
      upstream.write(first);
      client.pipe(upstream);
      // a buffering proxy passes on what it has once the answer is complete, which a stream never is
      if (!(http2 && network() === 'buffering')) upstream.pipe(client);
      else upstream.resume();
      return undefined;
    });
    return undefined;
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}
