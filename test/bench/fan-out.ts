import { type ClientHttp2Session, connect, createServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { AgentMessageSchema, BrokerMessageSchema } from '../../proto/gen/brokkr/v1/sync_pb.js';
import type { MeasuredBroker } from './environment.ts';

/** A bare `node:http2` server that sends back what it gets: the physical limit on this machine. */
export interface BareServer extends Disposable {
  readonly port: number;
  /** One round trip of 4 KiB, in milliseconds. */
  echo(): Promise<number>;
}

/** Starts it in this process. */
export async function bareServer(): Promise<BareServer> {
  const server = createServer();
  server.on('stream', (stream) => {
    stream.respond({ ':status': 200 });
    stream.on('data', (chunk) => stream.write(chunk));
    stream.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const session = connect(`http://127.0.0.1:${port}`);
  const stream = session.request({ ':method': 'POST', ':path': '/' }, { endStream: false });
  const payload = Buffer.alloc(4096, 1);
  return {
    port,
    echo: () =>
      new Promise((resolve) => {
        const start = performance.now();
        let bytes = 0;
        const take = (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes < payload.length) return;
          stream.off('data', take);
          resolve(performance.now() - start);
        };
        stream.on('data', take);
        stream.write(payload);
      }),
    [Symbol.dispose]() {
      session.destroy();
      server.close();
    },
  };
}

/** Many scripted agents, each on its own connection, as separate clusters would be. */
export interface Fleet extends Disposable {
  /** Resolves when every agent has received this generation. */
  allAt(generation: number): Promise<void>;
}

interface Member {
  generation: number;
  readonly session: ClientHttp2Session;
}

/** Creates and connects `count` agents labelled `fleet`. */
export async function scriptedAgents(broker: MeasuredBroker, count: number): Promise<Fleet> {
  const members: Member[] = [];
  let wanted = { generation: 0, resolve: () => {} };
  const look = () => {
    if (members.every((member) => member.generation >= wanted.generation)) wanted.resolve();
  };
  for (let index = 0; index < count; index++) {
    const { initial_pak } = await broker.call<{ initial_pak: string }>('POST', '/api/v1/agents', {
      name: `agent-${index}`,
      cluster_name: `cluster-${index}`,
      labels: ['fleet'],
    });
    members.push(await join(broker.url, initial_pak, index, look));
  }
  return {
    allAt: (generation) =>
      new Promise((resolve) => {
        wanted = { generation, resolve };
        look();
      }),
    [Symbol.dispose]() {
      for (const { session } of members) session.destroy();
    },
  };
}

/** One agent: hand-framed gRPC, so that the client costs as little as it can. Resolves after Welcome. */
async function join(url: string, pak: string, index: number, changed: () => void): Promise<Member> {
  const session = connect(url);
  session.on('error', () => undefined);
  const stream = session.request(
    {
      ':method': 'POST',
      ':path': '/brokkr.v1.AgentSync/Session',
      'content-type': 'application/grpc',
      te: 'trailers',
      authorization: pak,
    },
    { endStream: false },
  );
  stream.on('error', () => undefined);
  const member: Member = { generation: 0, session };
  const welcomed = Promise.withResolvers<void>();
  let seq = 0n;
  let ack = 0n;
  const send = (body: Parameters<typeof create<typeof AgentMessageSchema>>[1]) => {
    const message = toBinary(AgentMessageSchema, create(AgentMessageSchema, { ...body, seq: ++seq, ack }));
    const frame = Buffer.alloc(5 + message.length);
    frame.writeUInt32BE(message.length, 1);
    frame.set(message, 5);
    stream.write(frame);
  };
  let pending: Buffer = Buffer.alloc(0);
  stream.on('data', (chunk: Buffer) => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    while (pending.length >= 5 && pending.length >= 5 + pending.readUInt32BE(1)) {
      const length = pending.readUInt32BE(1);
      const { seq: number, body } = fromBinary(BrokerMessageSchema, pending.subarray(5, 5 + length));
      pending = pending.subarray(5 + length);
      ack = number;
      if (body.case === 'welcome') welcomed.resolve();
      if (body.case !== 'upsert') continue;
      member.generation = Number(body.value.generation);
      send({
        body: {
          case: 'status',
          value: {
            items: [
              {
                stackId: body.value.stackId,
                receivedGeneration: body.value.generation,
                receivedManifestDigest: body.value.manifestDigest,
                phase: 2,
              },
            ],
          },
        },
      });
      changed();
    }
  });
  stream.on('end', () => welcomed.reject(new Error(`agent ${index}: the stream ended`)));
  stream.on('response', (headers) => {
    if (headers['grpc-status']) welcomed.reject(new Error(`agent ${index}: ${headers['grpc-message']}`));
  });
  send({
    body: { case: 'hello', value: { versions: [1], installId: `i-${index}`, clusterUid: `c-${index}`, processId: `p-${index}` } },
  });
  await welcomed.promise;
  return member;
}

/** A bare HTTP/2 server in a process of its own with `count` open streams, each on its own connection. */
export interface BareFleet {
  readonly bytesPerStream: number;
  /** Sends as many bytes to every stream; resolves with the milliseconds until the last has them. */
  broadcast(bytes: number): Promise<number>;
  close(): Promise<void>;
}

const BARE_SERVER = `
const { createServer } = require('node:http2');
const streams = new Set();
const server = createServer();
server.on('stream', (stream) => { stream.respond({ ':status': 200 }); streams.add(stream); stream.on('error', () => {}); stream.on('close', () => streams.delete(stream)); });
server.listen(0, '127.0.0.1', () => process.send({ port: server.address().port }));
process.on('message', ({ bytes }) => { const payload = Buffer.alloc(bytes, 1); for (const stream of streams) stream.write(payload); });
`;

/** Starts it and opens the streams. */
export async function bareFleet(count: number): Promise<BareFleet> {
  const { fork } = await import('node:child_process');
  const { mkdtemp, rm, writeFile } = await import('node:fs/promises');
  const { tmpdir } = await import('node:os');
  const { join: joinPath } = await import('node:path');
  const { residentBytes } = await import('./environment.ts');
  const dir = await mkdtemp(joinPath(tmpdir(), 'brokkr-bench-bare-'));
  const file = joinPath(dir, 'server.cjs');
  await writeFile(file, BARE_SERVER);
  const child = fork(file, { execArgv: [] });
  const { port } = await new Promise<{ port: number }>((resolve) =>
    child.once('message', (message) => resolve(message as { port: number })),
  );
  const before = await residentBytes(child.pid ?? 0);
  const received: number[] = [];
  let wanted = { bytes: Number.POSITIVE_INFINITY, resolve: () => {} };
  const sessions: ClientHttp2Session[] = [];
  for (let index = 0; index < count; index++) {
    const session = connect(`http://127.0.0.1:${port}`);
    session.on('error', () => undefined);
    const stream = session.request({ ':method': 'POST', ':path': '/' }, { endStream: false });
    stream.on('error', () => undefined);
    received.push(0);
    stream.on('data', (chunk: Buffer) => {
      received[index] = (received[index] ?? 0) + chunk.length;
      if (received.every((bytes) => bytes >= wanted.bytes)) wanted.resolve();
    });
    await new Promise((resolve) => stream.once('response', resolve));
    sessions.push(session);
  }
  const bytesPerStream = ((await residentBytes(child.pid ?? 0)) - before) / count;
  let total = 0;
  return {
    bytesPerStream,
    broadcast: (bytes) =>
      new Promise((resolve) => {
        total += bytes;
        const start = performance.now();
        wanted = { bytes: total, resolve: () => resolve(performance.now() - start) };
        child.send({ bytes });
      }),
    async close() {
      for (const session of sessions) session.destroy();
      const closed = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await closed;
      await rm(dir, { recursive: true, force: true });
    },
  };
}
