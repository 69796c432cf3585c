import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { create, toBinary } from '@bufbuild/protobuf';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { beforeAll, describe, expect, it } from 'vitest';
import { Phase } from '#proto/brokkr/v1/content_pb.js';
import { ApplyRequestSchema } from '#proto/brokkr/v1/stacks_pb.js';
import { SyncMode } from '#proto/brokkr/v1/sync_pb.js';
import { connectAgent, hello } from '../agent-client.ts';
import { type InProcessBroker, startInProcessBroker } from '../in-process-broker.ts';
import { storesNothing } from './rows.ts';

let broker: InProcessBroker;
let serial = 0;
const MiB = 1024 * 1024;
const INVALID_ARGUMENT = 3;
const RESOURCE_EXHAUSTED = 8;

beforeAll(async () => {
  broker = await startInProcessBroker();
});

/** Sends bytes and returns everything that comes back until the connection ends. */
async function exchange(bytes: Uint8Array | string): Promise<string> {
  const { hostname, port } = new URL(broker.url);
  const socket = connect(Number(port), hostname);
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1');
  });
  socket.on('error', () => undefined);
  socket.end(bytes);
  await once(socket, 'close');
  return text;
}

async function newAgent(): Promise<{ readonly id: string; readonly pak: string }> {
  return await broker.agent(`agent-${++serial}`);
}

describe('bytes that are no request', () => {
  it.each([
    ['random bytes', Buffer.concat([Buffer.from([0xff]), randomBytes(4096)])],
    ['a TLS handshake', Buffer.concat([Buffer.from([0x16, 3, 1, 2, 0]), randomBytes(512)])],
    ['another protocol', 'SSH-2.0-OpenSSH_9.6\r\n'],
    ['a start packet of PostgreSQL', Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])],
  ])('%s are answered with a clear 400', async (_what, bytes) => {
    const answer = await exchange(bytes);
    expect(answer).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/);
    expect(answer).toContain('this is not an HTTP request');
  });

  it('after the preface of HTTP/2 end the connection', async () => {
    await exchange(Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), randomBytes(1024)]));
    expect((await fetch(`${broker.url}/healthz`)).status).toBe(200);
  });

  it('as header lines without end are refused at 32 KiB', async () => {
    expect(await exchange(`GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: ${'x'.repeat(64 * 1024)}\r\n\r\n`)).toContain(
      '431 Request Header Fields Too Large',
    );
  });
});

describe('a client that sends one byte a second', () => {
  it('is cut off after ten seconds, on HTTP/1.1 with the reason, and holds up nobody', { timeout: 20_000 }, async () => {
    const trickle = async (text: string) => {
      const { hostname, port } = new URL(broker.url);
      const socket = connect(Number(port), hostname);
      let answer = '';
      socket.on('data', (chunk) => {
        answer += chunk.toString('latin1');
      });
      socket.on('error', () => undefined);
      const closed = once(socket, 'close').then(() => true);
      const sinceMs = performance.now();
      for (const byte of text) {
        socket.write(byte);
        if (await Promise.race([closed, delay(1000, false)])) break;
      }
      socket.destroy();
      return { answer, tookMs: performance.now() - sinceMs };
    };
    const slow = [trickle('GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n'), trickle('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')];
    expect((await fetch(`${broker.url}/healthz`)).status).toBe(200);
    const [http1, http2] = await Promise.all(slow);
    expect(http1?.answer).toContain('408 Request Timeout');
    for (const { tookMs } of [http1, http2].filter((item) => item !== undefined)) {
      expect(tookMs).toBeGreaterThan(9_000);
      expect(tookMs).toBeLessThan(15_000);
    }
  });
});

describe('an oversized gRPC message', () => {
  it('is refused on a publication with code and limit, and nothing is stored', async () => {
    const yaml = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: ${'x'.repeat(33 * MiB)}}\n`;
    const error = await storesNothing(broker.db, () => callApply(yaml));
    expect(error).toMatchObject({ code: RESOURCE_EXHAUSTED, details: expect.stringContaining(String(32 * MiB)) });
  });

  it('is refused on a session at 1 MiB before it is read', async () => {
    const agent = await newAgent();
    const session = connectHttp2(broker.url);
    session.on('error', () => undefined);
    const stream = session.request({
      ':method': 'POST',
      ':path': '/brokkr.v1.AgentSync/Session',
      'content-type': 'application/grpc',
      te: 'trailers',
      authorization: agent.pak,
    });
    stream.resume();
    const head = Buffer.alloc(5);
    head.writeUInt32BE(MiB + 1, 1);
    stream.write(head); // nothing follows: the claim is enough
    const [trailers] = (await once(stream, 'trailers')) as [Record<string, string>];
    expect(trailers['grpc-status']).toBe(String(RESOURCE_EXHAUSTED));
    expect(decodeURIComponent(trailers['grpc-message'] ?? '')).toBe('the message has 1048577 bytes, at most 1048576 are allowed');
    session.destroy();
  });
});

function callApply(yamlContent: string): Promise<ServiceError | null> {
  const client = new Client(broker.url.replace('http://', ''), credentials.createInsecure());
  const metadata = new Metadata();
  metadata.set('authorization', broker.adminPak);
  const message = create(ApplyRequestSchema, { name: 'big', yamlContent });
  return new Promise<ServiceError | null>((resolve) => {
    client.makeUnaryRequest(
      '/brokkr.v1.StackService/Apply',
      (value: typeof message) => Buffer.from(toBinary(ApplyRequestSchema, value)),
      (bytes) => bytes,
      message,
      metadata,
      (error) => {
        client.close();
        resolve(error);
      },
    );
  });
}

describe('a frame of a session that cannot be stored', () => {
  const stackId = randomUUID();
  const event = { seq: 1n, attemptId: 'attempt', eventType: 'APPLY', success: true };

  it.each<[string, Parameters<ReturnType<typeof connectAgent>['send']>[0], string]>([
    [
      'a status of no stack',
      { case: 'status', value: { items: [{ stackId: 'nonsense', phase: Phase.APPLIED }] } as never },
      'status.items[0].stack_id',
    ],
    [
      'a status of an impossible generation',
      { case: 'status', value: { items: [{ stackId, appliedGeneration: 2n ** 64n - 1n }] } as never },
      'status.items[0].applied_generation',
    ],
    [
      'an event of no stack',
      { case: 'events', value: { bootId: 'b', events: [{ ...event, stackId: '42' }] } as never },
      'events.events[0].stack_id',
    ],
    [
      'an event with a long type',
      { case: 'events', value: { bootId: 'b', events: [{ ...event, eventType: 'x'.repeat(51) }] } as never },
      'events.events[0].event_type',
    ],
    ['events of no boot', { case: 'events', value: { bootId: '', events: [event] } as never }, 'events.boot_id'],
    [
      'health of no stack',
      { case: 'health', value: { items: [{ stackId: '', deploymentObjectId: stackId }] } as never },
      'health.items[0].stack_id',
    ],
    [
      'an impossible latency',
      { case: 'ping', value: { kubernetesLatencyMs: 2 ** 32 - 1 } as never },
      'ping.kubernetes_latency_ms',
    ],
    ['a second hello', hello(), 'hello'],
  ])('%s ends that session with the place', async (_what, body, field) => {
    const agent = await newAgent();
    using client = connectAgent(broker.url, agent.pak);
    client.send(hello({ clusterUid: agent.id }));
    await client.take('welcome');
    client.send(body);
    const { code, details } = await client.ended;
    expect({ code, details }).toEqual({ code: INVALID_ARGUMENT, details: expect.stringContaining(field) });
  });

  it('is refused in hello', async () => {
    const agent = await newAgent();
    using client = connectAgent(broker.url, agent.pak);
    client.send(hello({ processId: 'a\0b' }));
    expect(await client.ended).toEqual({ code: INVALID_ARGUMENT, details: 'hello: a text has a null character' });
  });

  it('does not hold up the reports of other agents', async () => {
    const [bad, good] = [await newAgent(), await newAgent()];
    using poison = connectAgent(broker.url, bad.pak);
    using honest = connectAgent(broker.url, good.pak);
    for (const [client, { id }] of [
      [poison, bad],
      [honest, good],
    ] as const) {
      client.send(hello({ clusterUid: id, processId: id }));
      await client.take('welcome');
    }
    poison.send({ case: 'status', value: { items: [{ stackId: 'nonsense' }] } as never });
    poison.send({ case: 'events', value: { bootId: 'b', events: [{ ...event, deploymentObjectId: 'x' }] } as never });
    await poison.ended;
    const message = `out of the cluster: ${'m'.repeat(10)}\0 and on`;
    honest.send({ case: 'events', value: { bootId: 'b', events: [{ ...event, attemptId: randomUUID(), message }] } as never });
    expect((await honest.take('eventsAck')).through).toBe(1n);
    const stored = await broker.api<{ message: string }[]>('GET', `/api/v1/agents/${good.id}/events`);
    expect(stored.body.map((item) => item.message)).toEqual([message.replace('\0', '')]);
  });
});

describe('an agent that holds more than the broker knows', () => {
  it('is told of each stack that it is absent, however many they are', async () => {
    const agent = await newAgent();
    using client = connectAgent(broker.url, agent.pak);
    const entries = Array.from({ length: 300 }, () => ({
      stackId: randomUUID(),
      generation: 1n,
      digest: new Uint8Array(32).fill(1),
    }));
    client.send(hello({ clusterUid: agent.id, resume: { rootDigest: new Uint8Array(32).fill(7), entries: entries.length } }));
    expect((await client.take('welcome')).mode).toBe(SyncMode.BUCKETS);
    await client.take('buckets');
    client.send({
      case: 'bucketEntries',
      value: { buckets: Array.from({ length: 256 }, (_, index) => index), entries } as never,
    });
    const absent: string[] = [];
    while (absent.length < entries.length) {
      absent.push((await client.take('absent')).stackId);
      if (absent.length % 100 === 0) client.send({ case: 'ping', value: {} as never }); // acknowledges
    }
    await client.take('snapshotEnd');
    expect(absent.sort()).toEqual(entries.map(({ stackId }) => stackId).sort());
  });
});
