import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { fromBinary } from '@bufbuild/protobuf';
import { type FileDescriptorProto, FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError, createClient, type Transport } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import { describe, expect, it } from 'vitest';
import { BrokkrError } from '#lib/errors.ts';
import { createLog } from '#lib/log.ts';
import { ErrorSchema } from '#proto/brokkr/v1/errors_pb.js';
import { KeyService } from '#proto/brokkr/v1/keys_pb.js';
import { StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { AgentSync } from '#proto/brokkr/v1/sync_pb.js';
import { Health, HealthCheckResponse_ServingStatus as Status } from '#proto/grpc/health/v1/health_pb.js';
import { ServerReflection } from '#proto/grpc/reflection/v1/reflection_pb.js';
import { ServerReflection as ServerReflectionAlpha } from '#proto/grpc/reflection/v1alpha/reflection_pb.js';
import { STACK_ID, startTestServer, TEST_KEY, type TestServer } from '../../test/broker-http.ts';
import { COMPRESSIONS } from './compression.ts';

type MakeTransport = (port: TestServer) => Transport;
const url = (port: TestServer) => `http://${port.address}`;
const TRANSPORTS: [string, MakeTransport][] = [
  ['Connect, binary', (port) => createConnectTransport({ baseUrl: url(port), httpVersion: '2' })],
  [
    'Connect, JSON over HTTP/1.1',
    (port) => createConnectTransport({ baseUrl: url(port), httpVersion: '1.1', useBinaryFormat: false }),
  ],
  ['gRPC', (port) => createGrpcTransport({ baseUrl: url(port) })],
  ['gRPC-Web', (port) => createGrpcWebTransport({ baseUrl: url(port), httpVersion: '1.1' })],
];
const headers = { authorization: TEST_KEY };

/** The error that a call fails with. */
async function failure(call: Promise<unknown>): Promise<ConnectError> {
  try {
    await call;
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error('the call succeeded');
}

describe.each(TRANSPORTS)('an error over %s', (_name, makeTransport) => {
  it('carries the stable name and the details', async () => {
    await using port = await startTestServer();
    const stacks = createClient(StackService, makeTransport(port));
    const taken = await failure(stacks.createStack({ name: 'taken' }, { headers }));
    expect(taken.code).toBe(Code.AlreadyExists);
    expect(taken.findDetails(ErrorSchema)).toMatchObject([
      { code: 'unique_violation', message: 'the name is taken', details: { constraint: 'stack_name_key' } },
    ]);
    const invalid = await failure(stacks.createStack({ name: '' }, { headers }));
    expect(invalid.code).toBe(Code.InvalidArgument);
    expect(invalid.findDetails(ErrorSchema)).toMatchObject([
      { code: 'invalid_stack', details: { violations: [{ field: 'name' }, {}] } },
    ]);
  });

  it('says who may not call, and what is not there', async () => {
    await using port = await startTestServer();
    const denied = await failure(createClient(StackService, makeTransport(port)).getStack({ id: STACK_ID }));
    expect(denied.code).toBe(Code.Unauthenticated);
    expect(denied.findDetails(ErrorSchema)).toMatchObject([{ code: 'unauthorized' }]);
    expect(denied.metadata.get('www-authenticate')).toBe('Bearer realm="brokkr"');
    const missing = await failure(createClient(KeyService, makeTransport(port)).listKeys({}, { headers }));
    expect(missing.code).toBe(Code.Unimplemented);
    expect(missing.findDetails(ErrorSchema)).toMatchObject([{ code: 'unimplemented' }]);
  });

  it('that nobody expected is logged once and not told', async () => {
    const lines: object[] = [];
    const log = createLog('test', { level: 'fatal' });
    log.error = ((fields: object) => void lines.push(fields)) as typeof log.error;
    await using port = await startTestServer({ log });
    const bug = await failure(createClient(StackService, makeTransport(port)).createStack({ name: 'bug' }, { headers }));
    expect(bug).toMatchObject({ code: Code.Internal, rawMessage: 'something went wrong in the broker' });
    expect(lines).toMatchObject([{ method: 'brokkr.v1.StackService/CreateStack', error: 'secret internals' }]);
  });

  it('within a stream carries the stable name too', async () => {
    const router = (connect: Parameters<NonNullable<Parameters<typeof startTestServer>[0]>['router'] & object>[0]) =>
      connect.service(AgentSync, {
        async *fetchBlobs() {
          yield {};
          throw new BrokkrError('blob_not_found', 'no such blob');
        },
      });
    await using port = await startTestServer({ router, services: [], interceptors: [] });
    const blobs = createClient(AgentSync, makeTransport(port)).fetchBlobs({}, { headers });
    const read = async () => {
      for await (const _ of blobs);
    };
    const error = await failure(read());
    expect(error.code).toBe(Code.NotFound);
    expect(error.findDetails(ErrorSchema)).toMatchObject([{ code: 'blob_not_found' }]);
  });
});

describe('RPCs', () => {
  it('refuse unknown JSON fields of users and ignore those of agents', async () => {
    await using port = await startTestServer();
    const post = (path: string) =>
      fetch(`${url(port)}/${path}`, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json' },
        body: '{"typo":1}',
      });
    const refused = await post('brokkr.v1.StackService/ListStacks');
    expect(refused.status).toBe(400);
    expect(await refused.text()).toContain('typo');
    expect((await post('brokkr.v1.AgentSync/Poll')).status).toBe(200);
  });

  it('say what is wrong with a method, a content type, or a stream over HTTP/1.1', async () => {
    await using port = await startTestServer();
    const call = async (path: string, init: RequestInit) => {
      const response = await fetch(`${url(port)}/${path}`, { ...init, headers: { ...headers, ...init.headers } });
      return { status: response.status, ...((await response.json()) as { message: string }) };
    };
    const get = 'brokkr.v1.StackService/GetStack';
    expect(await call(get, { method: 'PUT' })).toMatchObject({ status: 405, message: expect.stringContaining('POST') });
    const text = { method: 'POST', body: 'x', headers: { 'content-type': 'text/plain' } };
    expect(await call(get, text)).toMatchObject({ status: 415, message: expect.stringContaining('application/json') });
    const session = { method: 'POST', body: 'x', headers: { 'content-type': 'application/connect+json' } };
    expect(await call('brokkr.v1.AgentSync/Session', session)).toMatchObject({
      status: 505,
      message: expect.stringContaining('HTTP/2'),
    });
  });

  it.each(COMPRESSIONS.map((compression) => [compression.name, compression] as const))(
    'understand %s',
    async (_name, compression) => {
      await using port = await startTestServer();
      const options = { sendCompression: compression, acceptCompression: [compression], compressMinBytes: 1 };
      const stacks = createClient(StackService, createGrpcTransport({ baseUrl: url(port), ...options }));
      const { stack } = await stacks.createStack({ name: 'packed', description: 'x'.repeat(3000) }, { headers });
      expect(stack).toMatchObject({ name: 'packed', description: 'x'.repeat(3000) });
    },
  );

  it('ask the request gate after authentication', async () => {
    const refuse = () => {
      throw new BrokkrError('admin_required', 'only admins');
    };
    await using port = await startTestServer({ requestGate: refuse });
    const stacks = createClient(StackService, createGrpcTransport({ baseUrl: url(port) }));
    expect((await failure(stacks.listStacks({}, { headers }))).findDetails(ErrorSchema)).toMatchObject([
      { code: 'admin_required' },
    ]);
    expect(await failure(stacks.listStacks({}))).toMatchObject({ code: Code.Unauthenticated });
    const rest = await fetch(`${url(port)}/api/v1/stacks`, { headers });
    expect([rest.status, await rest.json()]).toEqual([403, { code: 'admin_required', message: 'only admins' }]);
  });
});

describe('reflection', () => {
  it.each([
    ['v1', ServerReflection],
    ['v1alpha', ServerReflectionAlpha],
  ] as const)('%s lists and describes every service', async (_name, service) => {
    await using port = await startTestServer();
    const client = createClient(service as typeof ServerReflection, createGrpcTransport({ baseUrl: url(port) }));
    const ask = async (messageRequest: { case: string; value: unknown }) => {
      for await (const { messageResponse } of client.serverReflectionInfo(one({ messageRequest } as never)))
        return messageResponse as never;
      throw new Error('no answer');
    };
    const list: { value: { service: { name: string }[] } } = await ask({ case: 'listServices', value: '' });
    const names = list.value.service.map(({ name }) => name);
    expect(names).toEqual(
      expect.arrayContaining(['brokkr.v1.StackService', 'brokkr.v1.AgentSync', 'grpc.health.v1.Health', service.typeName]),
    );
    for (const symbol of [...names, 'brokkr.v1.Stack', 'brokkr.v1.StackService.GetStack', 'brokkr.v1.Stack.name']) {
      const found: { case: string; value: { fileDescriptorProto: Uint8Array[] } } = await ask({
        case: 'fileContainingSymbol',
        value: symbol,
      });
      expect(found.case, symbol).toBe('fileDescriptorResponse');
      const files: FileDescriptorProto[] = found.value.fileDescriptorProto.map((bytes) =>
        fromBinary(FileDescriptorProtoSchema, bytes),
      );
      const known = new Set(files.map(({ name }) => name));
      expect(files.flatMap(({ dependency }) => dependency).filter((name) => !known.has(name))).toEqual([]);
    }
    expect(await ask({ case: 'fileByFilename', value: 'brokkr/v1/stacks.proto' })).toMatchObject({
      case: 'fileDescriptorResponse',
    });
    expect(await ask({ case: 'fileContainingSymbol', value: 'brokkr.v1.Nothing' })).toMatchObject({
      case: 'errorResponse',
      value: { errorCode: Code.NotFound },
    });
    const extensions = { case: 'allExtensionNumbersOfType', value: 'google.protobuf.MethodOptions' };
    expect(await ask(extensions)).toMatchObject({ value: { extensionNumber: expect.arrayContaining([51001, 51002, 72295728]) } });
    const rule = {
      case: 'fileContainingExtension',
      value: { containingType: 'google.protobuf.MethodOptions', extensionNumber: 51001 },
    };
    expect(await ask(rule)).toMatchObject({ case: 'fileDescriptorResponse' });
  });

  it('serves buf curl', async () => {
    await using port = await startTestServer();
    const buf = (...args: string[]) =>
      promisify(execFile)('buf', ['curl', '--http2-prior-knowledge', '--protocol', 'grpc', ...args]);
    const { stdout: methods } = await buf('--list-methods', url(port));
    expect(methods).toContain('brokkr.v1.StackService/GetStack');
    const data = ['-H', `authorization: ${TEST_KEY}`, '-d', JSON.stringify({ id: STACK_ID })];
    const { stdout } = await buf(...data, `${url(port)}/brokkr.v1.StackService/GetStack`);
    expect(JSON.parse(stdout)).toMatchObject({ stack: { name: 'hello' } });
  });

  it('can be closed', async () => {
    await using port = await startTestServer({}, { reflection: false });
    const client = createClient(ServerReflection, createGrpcTransport({ baseUrl: url(port) }));
    const ask = client.serverReflectionInfo(one({}))[Symbol.asyncIterator]().next();
    expect(await failure(ask)).toMatchObject({ code: Code.Unimplemented });
  });
});

describe('gRPC health', () => {
  it('tells the state without a key and follows it', async () => {
    await using port = await startTestServer();
    const client = createClient(Health, createGrpcTransport({ baseUrl: url(port) }));
    expect(await client.check({})).toMatchObject({ status: Status.SERVING });
    expect(await client.check({ service: 'brokkr.v1.StackService' })).toMatchObject({ status: Status.SERVING });
    expect(await failure(client.check({ service: 'nothing' }))).toMatchObject({ code: Code.NotFound });
    expect(Object.keys((await client.list({})).statuses)).toContain('brokkr.v1.AgentSync');
    const stop = new AbortController();
    const watch = client.watch({}, { signal: stop.signal })[Symbol.asyncIterator]();
    expect(await watch.next()).toMatchObject({ value: { status: Status.SERVING } });
    port.server.setServing(false);
    expect(await watch.next()).toMatchObject({ value: { status: Status.NOT_SERVING } });
    port.server.setServing(true);
    expect(await watch.next()).toMatchObject({ value: { status: Status.SERVING } });
    stop.abort();
  });
});

async function* one<T>(message: T): AsyncGenerator<T> {
  yield message;
}
