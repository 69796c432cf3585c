import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import * as grpc from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import { BrokkrError } from '#lib/errors.ts';
import { createLog } from '#lib/log.ts';
import { ErrorSchema } from '#proto/brokkr/v1/errors_pb.js';
import { AgentMessageSchema, AgentSync, BrokerMessageSchema } from '#proto/brokkr/v1/sync_pb.js';
import { startTestServer, TEST_KEY, type TestServer } from '../../test/broker-http.ts';
import type { HotMethod, HotStream } from './grpc-stream.ts';

const PATH = '/brokkr.v1.AgentSync/Session';

/** A hot Session that echoes the seq, with ack 1; the slow path of the test server answers with ack 77. */
function echo(opened: (stream: HotStream) => void = () => undefined): HotMethod {
  return {
    path: PATH,
    maxMessageBytes: 1000,
    open(stream) {
      opened(stream);
      stream.receive({
        message(payload) {
          const { seq } = fromBinary(AgentMessageSchema, payload);
          if (seq === 13n) throw new BrokkrError('superseded', 'a newer process 100% “took over”', { details: { epoch: 5 } });
          if (seq === 14n) throw new Error('secret internals');
          stream.write(toBinary(BrokerMessageSchema, create(BrokerMessageSchema, { seq, ack: 1n })));
        },
        end: () => stream.end(),
      });
    },
  };
}

/** A grpc-js call to the Session of a server. */
function call(port: TestServer, metadata: Record<string, string> = { authorization: TEST_KEY }, options: grpc.CallOptions = {}) {
  const client = new grpc.Client(port.address, grpc.credentials.createInsecure());
  const given = new grpc.Metadata();
  for (const [key, value] of Object.entries(metadata)) given.set(key, value);
  const stream = client.makeBidiStreamRequest(
    PATH,
    (bytes: Buffer) => bytes,
    (bytes: Buffer) => bytes,
    given,
    options,
  );
  const received: bigint[] = [];
  stream.on('data', (bytes: Buffer) => received.push(fromBinary(BrokerMessageSchema, bytes).seq));
  stream.on('error', () => undefined);
  const status = new Promise<grpc.StatusObject>((resolve) => stream.once('status', resolve));
  void status.then(() => client.close());
  const send = (seq: bigint) => stream.write(Buffer.from(toBinary(AgentMessageSchema, create(AgentMessageSchema, { seq }))));
  return { stream, received, status, send };
}

describe('a hot stream with grpc-js', () => {
  it('carries messages both ways and ends in order', async () => {
    const opened: HotStream[] = [];
    await using port = await startTestServer({ hot: [echo((stream) => opened.push(stream))] });
    const session = call(port);
    for (let seq = 1n; seq <= 100n; seq += 1n) if (seq !== 13n && seq !== 14n) session.send(seq);
    await expect.poll(() => session.received.length).toBe(98);
    expect(port.server.counts().hotStreams).toBe(1);
    expect(opened[0]).toMatchObject({
      principal: 'tester',
      call: { ipAddress: '127.0.0.1', userAgent: expect.stringContaining('grpc-node') },
    });
    session.stream.end();
    expect((await session.status).code).toBe(grpc.status.OK);
    await expect.poll(() => port.server.counts().hotStreams).toBe(0);
  });

  it('sends its headers before any message', async () => {
    await using port = await startTestServer({ hot: [echo()] });
    const session = call(port);
    await new Promise((resolve) => session.stream.once('metadata', resolve));
    session.stream.cancel();
  });

  it('tells the error of a handler with our detail, and logs and hides what nobody expected', async () => {
    const lines: object[] = [];
    const log = createLog('test', { level: 'fatal' });
    log.error = ((fields: object) => void lines.push(fields)) as typeof log.error;
    await using port = await startTestServer({ hot: [echo()], log });
    const session = call(port);
    session.send(13n);
    const failed = await session.status;
    expect(failed).toMatchObject({ code: grpc.status.ABORTED, details: 'a newer process 100% “took over”' });
    const [bytes] = failed.metadata.get('grpc-status-details-bin');
    expect((bytes as Buffer).toString('latin1')).toContain('type.googleapis.com/brokkr.v1.Error');
    const bug = call(port);
    bug.send(14n);
    expect(await bug.status).toMatchObject({ code: grpc.status.INTERNAL, details: 'something went wrong in the broker' });
    expect(lines).toMatchObject([{ method: 'brokkr.v1.AgentSync/Session', error: 'secret internals' }]);
  });

  it.each([
    ['without a key', {}, grpc.status.UNAUTHENTICATED],
    ['with a wrong key', { authorization: 'wrong' }, grpc.status.UNAUTHENTICATED],
    ['with a malformed timeout', { authorization: TEST_KEY, 'grpc-timeout': '5x' }, grpc.status.INVALID_ARGUMENT],
  ])('is refused %s', async (_name, metadata, code) => {
    await using port = await startTestServer({ hot: [echo(() => expect.unreachable())] });
    expect((await call(port, metadata as Record<string, string>).status).code).toBe(code);
  });

  it('refuses messages over its limit, naming it', async () => {
    await using port = await startTestServer({ hot: [echo()] });
    const session = call(port);
    session.stream.write(Buffer.alloc(1001));
    expect(await session.status).toMatchObject({
      code: grpc.status.RESOURCE_EXHAUSTED,
      details: expect.stringContaining('at most 1000'),
    });
  });

  it('refuses compressed messages', async () => {
    await using port = await startTestServer({ hot: [echo()] });
    const client = new grpc.Client(port.address, grpc.credentials.createInsecure(), { 'grpc.default_compression_algorithm': 2 });
    const metadata = new grpc.Metadata();
    metadata.set('authorization', TEST_KEY);
    const stream = client.makeBidiStreamRequest(
      PATH,
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      metadata,
    );
    const status = new Promise<grpc.StatusObject>((resolve) => stream.once('status', resolve));
    stream.on('error', () => undefined).on('data', () => undefined);
    stream.write(Buffer.alloc(500));
    expect((await status).code).toBe(grpc.status.UNIMPLEMENTED);
    client.close();
  });

  it('ends at the deadline of the client', async () => {
    const opened: HotStream[] = [];
    await using port = await startTestServer({ hot: [echo((stream) => opened.push(stream))] });
    const { status } = call(port, undefined, { deadline: Date.now() + 200 });
    expect((await status).code).toBe(grpc.status.DEADLINE_EXCEEDED);
    await expect.poll(() => opened[0]?.signal.aborted).toBe(true);
  });

  it('aborts its signal when the client cancels', async () => {
    const opened: HotStream[] = [];
    await using port = await startTestServer({ hot: [echo((stream) => opened.push(stream))] });
    const session = call(port);
    await expect.poll(() => opened.length).toBe(1);
    session.stream.cancel();
    await expect.poll(() => opened[0]?.signal.aborted).toBe(true);
  });

  it('says when a slow reader has too much waiting, and when it has caught up', async () => {
    const { promise: opened, resolve } = Promise.withResolvers<HotStream>();
    await using port = await startTestServer({ hot: [echo(resolve)] });
    const session = call(port);
    session.stream.pause();
    const stream = await opened;
    const frame = toBinary(
      BrokerMessageSchema,
      create(BrokerMessageSchema, { body: { case: 'upsert', value: { stackName: 'x'.repeat(50_000) } } }),
    );
    let written = 1;
    while (stream.write(frame)) written += 1;
    expect(stream.writableLength).toBeGreaterThan(200_000);
    session.stream.resume();
    await stream.drain(AbortSignal.timeout(10_000));
    expect(stream.writableLength).toBe(0);
    await expect.poll(() => session.received.length).toBe(written);
    session.stream.cancel();
    await expect.poll(() => stream.signal.aborted).toBe(true);
    await expect(stream.drain(AbortSignal.timeout(10_000))).rejects.toThrow();
    expect(stream.write(frame)).toBe(false);
  });

  it('is told that the broker drains', async () => {
    const port = await startTestServer({ hot: [echo()] }, { drainMs: 200 });
    const session = call(port);
    session.send(1n);
    await expect.poll(() => session.received.length).toBe(1);
    await port.stop();
    expect(await session.status).toMatchObject({ code: grpc.status.UNAVAILABLE, details: expect.stringContaining('stopping') });
  });
});

describe('a hot method with clients of Connect', () => {
  it.each([
    ['gRPC', createGrpcTransport, 1n],
    ['gRPC-Web', createGrpcWebTransport, 77n],
    ['Connect', createConnectTransport, 77n],
  ])('is served to %s', async (_name, createTransport, ack) => {
    await using port = await startTestServer({ hot: [echo()] });
    const client = createClient(AgentSync, createTransport({ baseUrl: `http://${port.address}`, httpVersion: '2' }));
    async function* messages() {
      yield create(AgentMessageSchema, { seq: 1n });
      yield create(AgentMessageSchema, { seq: 2n });
    }
    const answers: bigint[][] = [];
    for await (const { seq, ack } of client.session(messages(), { headers: { authorization: TEST_KEY } }))
      answers.push([seq, ack]);
    expect(answers).toEqual([
      [1n, ack],
      [2n, ack],
    ]);
  });

  it('fails with our detail', async () => {
    await using port = await startTestServer({ hot: [echo()] });
    const client = createClient(AgentSync, createGrpcTransport({ baseUrl: `http://${port.address}` }));
    async function* messages() {
      yield create(AgentMessageSchema, { seq: 13n });
    }
    const session = client.session(messages(), { headers: { authorization: TEST_KEY } })[Symbol.asyncIterator]();
    const error = ConnectError.from(await session.next().catch((reason: unknown) => reason));
    expect(error.code).toBe(Code.Aborted);
    expect(error.findDetails(ErrorSchema)).toMatchObject([{ code: 'superseded', details: { epoch: 5 } }]);
  });
});
