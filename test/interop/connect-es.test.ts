import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { createClient, type Transport } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { beforeAll, describe, expect, it } from 'vitest';
import { StackService } from '#proto/brokkr/v1/stacks_pb.js';
import {
  type AgentMessage,
  AgentMessageSchema,
  AgentSync,
  type BrokerMessage,
  BrokerMessageSchema,
  SyncMode,
} from '#proto/brokkr/v1/sync_pb.js';
import { ServerReflection } from '#proto/grpc/reflection/v1/reflection_pb.js';
import { ServerReflection as ServerReflectionAlpha } from '#proto/grpc/reflection/v1alpha/reflection_pb.js';
import { connectAgent, hello } from '../agent-client.ts';
import { configMap, type Endpoint, type Endpoints, startEndpoints } from './endpoints.ts';

let endpoints: Endpoints;
let ca: Buffer;
beforeAll(async () => {
  endpoints = await startEndpoints(new AbortController().signal);
  ca = await readFile(endpoints.caFile);
});

const makers = { Connect: createConnectTransport, gRPC: createGrpcTransport, 'gRPC-Web': createGrpcWebTransport } as const;
type Protocol = keyof typeof makers;

function transport(protocol: Protocol, { scheme, target }: Endpoint, httpVersion: '1.1' | '2' = '2'): Transport {
  return makers[protocol]({ baseUrl: `${scheme}://${target}`, httpVersion, nodeOptions: scheme === 'https' ? { ca } : {} });
}

/** Opens a session, reads up to the end of the snapshot, and cancels: leaving the loop alone would keep the stream open. */
async function readTargetState(
  session: (sent: AsyncIterable<AgentMessage>, signal: AbortSignal) => AsyncIterable<BrokerMessage>,
) {
  const over = new AbortController();
  const body = hello({ clusterUid: 'interop' });
  async function* sent() {
    yield create(AgentMessageSchema, { seq: 1n, body });
    await once(over.signal, 'abort'); // the stream stays open while we read
  }
  const frames: BrokerMessage['body'][] = [];
  for await (const frame of session(sent(), over.signal)) {
    frames.push(frame.body);
    if (frame.body.case === 'snapshotEnd') break;
  }
  over.abort();
  return frames;
}

async function published(name: string) {
  const agent = await endpoints.broker.agent(name, [name]);
  await endpoints.broker.publish(name, configMap(name), [name]);
  return agent;
}

function expectTargetState(frames: readonly BrokerMessage['body'][], name: string): void {
  expect(frames.map((body) => body.case)).toEqual(['welcome', 'snapshotBegin', 'upsert', 'snapshotEnd']);
  expect(frames[0]?.value).toMatchObject({ agentName: name, mode: SyncMode.SNAPSHOT });
  const upsert = frames[2];
  if (upsert?.case !== 'upsert') throw new Error('no upsert');
  expect(upsert.value).toMatchObject({ stackName: name, generation: 1n });
  expect(upsert.value.blobs.map(({ data }) => Buffer.from(data).toString())).toEqual([configMap(name)]);
}

describe.each(['plain', 'tls'] as const)('on the %s port', (which) => {
  it.each(Object.keys(makers) as Protocol[])(
    'a Connect-ES client opens a session over %s and reads its target state',
    async (protocol) => {
      const name = `es-${which}-${protocol.toLowerCase()}`;
      const { pak } = await published(name);
      const client = createClient(AgentSync, transport(protocol, endpoints[which]));
      expectTargetState(
        await readTargetState((sent, signal) =>
          client.session(sent, { signal, headers: { authorization: pak }, timeoutMs: 10_000 }),
        ),
        name,
      );
    },
  );

  it.each(Object.keys(makers) as Protocol[])(
    'a Connect-ES client makes a unary call over %s on HTTP/1.1 and HTTP/2',
    async (protocol) => {
      for (const httpVersion of protocol === 'gRPC' ? (['2'] as const) : (['1.1', '2'] as const)) {
        const client = createClient(StackService, transport(protocol, endpoints[which], httpVersion));
        const name = `es-unary-${which}-${protocol.toLowerCase()}-${httpVersion}`;
        const { stack } = await client.createStack(
          { name },
          { headers: { authorization: endpoints.broker.adminPak }, timeoutMs: 10_000 },
        );
        expect(stack).toMatchObject({ name });
        await expect(client.listStacks({}, { timeoutMs: 10_000 })).rejects.toThrow('[unauthenticated]');
      }
    },
  );

  it('a grpc-js client opens a session and reads its target state', async () => {
    const name = `grpc-js-${which}`;
    const { pak } = await published(name);
    const { target, caFile } = endpoints[which];
    const client = new Client(target, caFile === undefined ? credentials.createInsecure() : credentials.createSsl(ca));
    const metadata = new Metadata();
    metadata.set('authorization', pak);
    const stream = client.makeBidiStreamRequest<AgentMessage, BrokerMessage>(
      '/brokkr.v1.AgentSync/Session',
      (message) => Buffer.from(toBinary(AgentMessageSchema, message)),
      (bytes) => fromBinary(BrokerMessageSchema, bytes),
      metadata,
    );
    stream.on('error', () => undefined); // our own cancel; others end the loop below early
    stream.write(create(AgentMessageSchema, { seq: 1n, body: hello({ clusterUid: 'interop' }) }));
    expectTargetState(await readTargetState(() => stream), name);
    stream.cancel();
    client.close();
  });

  it.each([
    { version: 'v1', service: ServerReflection },
    { version: 'v1alpha', service: ServerReflectionAlpha },
  ])('reflection $version lists the services and gives their files', async ({ service }) => {
    const client = createClient(service, transport('gRPC', endpoints[which]));
    async function* asked(): AsyncIterable<MessageInitShape<(typeof service)['method']['serverReflectionInfo']['input']>> {
      yield { messageRequest: { case: 'listServices', value: '' } };
      yield { messageRequest: { case: 'fileContainingSymbol', value: 'brokkr.v1.AgentSync' } };
      yield { messageRequest: { case: 'fileContainingSymbol', value: 'brokkr.v1.Nothing' } };
    }
    const answers = await Array.fromAsync(
      client.serverReflectionInfo(asked(), { timeoutMs: 10_000 }),
      ({ messageResponse }) => messageResponse,
    );
    const [services, files, unknown] = answers;
    if (services?.case !== 'listServicesResponse' || files?.case !== 'fileDescriptorResponse')
      throw new Error('not what was asked for');
    expect(services.value.service.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['brokkr.v1.AgentSync', 'brokkr.v1.StackService']),
    );
    const names = files.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name);
    expect(names).toContain('brokkr/v1/sync.proto');
    expect(unknown).toMatchObject({ case: 'errorResponse', value: { errorCode: 5 } });
  });
});

it('the scripted agent of the other tests takes its target state, as a frame by frame gRPC client', async () => {
  const { pak } = await published('scripted');
  using agent = connectAgent(endpoints.broker.url, pak);
  agent.send(hello());
  expect((await agent.take('welcome')).agentName).toBe('scripted');
  expect((await agent.take('upsert')).stackName).toBe('scripted');
  expect(Buffer.from((await agent.take('snapshotEnd')).rootDigest)).toEqual(Buffer.from(agent.held.root()));
});
