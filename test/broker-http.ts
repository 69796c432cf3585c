import { randomUUID } from 'node:crypto';
import type { Message } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import type { ConnectRouter, ServiceImpl } from '@connectrpc/connect';
import { createValidateInterceptor } from '@connectrpc/validate';
import { systemClock } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import { createLog } from '#lib/log.ts';
import { AgentService, AgentStatus } from '#proto/brokkr/v1/agents_pb.js';
import { GeneratorService } from '#proto/brokkr/v1/generators_pb.js';
import { KeyService } from '#proto/brokkr/v1/keys_pb.js';
import { StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { AgentSync } from '#proto/brokkr/v1/sync_pb.js';
import { principalKey } from '../broker/http/context.ts';
import { createServer, type Server, type ServerConfig, type ServerDeps } from '../broker/http/server.ts';

/** For tests: a running server and what its handlers were asked. */
export interface TestServer extends AsyncDisposable {
  readonly server: Server;
  /** `host:port`. */
  readonly address: string;
  /** Requests that reached a handler, oldest first. */
  readonly seen: { readonly method: string; readonly message: Message; readonly principal: unknown; readonly headers: Headers }[];
  /** Aborts and waits for the drain. */
  stop(): Promise<void>;
}

/** The key that the server of tests accepts. */
export const TEST_KEY = 'Bearer test-key';
/** Ids in answers of the server of tests. */
export const STACK_ID = '11111111-1111-4111-8111-111111111111';
export const AGENT_ID = '22222222-2222-4222-8222-222222222222';

const CREATED = timestampFromDate(new Date('2026-01-02T03:04:05.678Z'));
const STACK = { id: STACK_ID, name: 'hello', generatorId: AGENT_ID, createdAt: CREATED, updatedAt: CREATED, generation: 7n };
const AGENT = {
  id: AGENT_ID,
  name: 'edge',
  clusterName: 'berlin',
  status: AgentStatus.ACTIVE,
  createdAt: CREATED,
  updatedAt: CREATED,
};
const OBJECT = { id: STACK_ID, sequenceId: 9_007_199_254_740_993n, stackId: STACK_ID, yamlContent: 'a: 1\n', revision: 2n };

/** Starts a server with a few real services that answer fixed messages. */
export async function startTestServer(deps: Partial<ServerDeps> = {}, config: Partial<ServerConfig> = {}): Promise<TestServer> {
  const seen: TestServer['seen'] = [];
  const server = createServer(
    {
      router: testRouter,
      interceptors: [
        createValidateInterceptor(),
        (next) => (request) => {
          if (!request.stream) {
            const { method, message, header, contextValues } = request;
            seen.push({ method: method.name, message, headers: header, principal: contextValues.get(principalKey) });
          }
          return next(request);
        },
      ],
      authenticate: (headers) => {
        if (headers.get('authorization') !== TEST_KEY)
          return Promise.reject(new BrokkrError('unauthorized', 'the key is not known'));
        return Promise.resolve('tester');
      },
      services: [StackService, AgentService, GeneratorService, KeyService, AgentSync],
      plain: { '/healthz': (_request, response) => void response.end('OK') },
      log: createLog('test', { level: 'fatal' }),
      clock: systemClock,
      newId: randomUUID,
      ...deps,
    },
    { listen: '127.0.0.1:0', drainMs: 500, ...config },
  );
  const stopping = new AbortController();
  const running = server.run(stopping.signal);
  running.catch(() => undefined);
  const address = await server.ready;
  const stop = async () => {
    stopping.abort(new Error('test over'));
    await running;
  };
  return { server, address, seen, stop, [Symbol.asyncDispose]: stop };
}

function testRouter(router: ConnectRouter): void {
  router.service(StackService, stackService);
  router.service(AgentService, agentService);
  router.service(GeneratorService, { updateGenerator: () => ({ generator: { id: AGENT_ID } }), deregisterAgent: () => ({}) });
  router.service(KeyService, {});
  router.service(AgentSync, {
    poll: () => ({ more: true }),
    async *session(messages) {
      for await (const message of messages) yield { seq: message.seq, ack: 77n };
    },
  });
}

const stackService: Partial<ServiceImpl<typeof StackService>> = {
  listStacks: ({ limit }) => ({ stacks: [STACK], nextPageToken: limit === 1 ? 'next one' : '' }),
  createStack: ({ name, description }) => {
    if (name === 'taken')
      throw new BrokkrError('unique_violation', 'the name is taken', { details: { constraint: 'stack_name_key' } });
    if (name === 'bug') throw new Error('secret internals');
    return { stack: { ...STACK, name, ...(description !== undefined && { description }) } };
  },
  getStack: (_request, { responseHeader }) => {
    responseHeader.set('etag', '"3"');
    return { stack: STACK };
  },
  findStack: ({ name }) => ({ stack: { ...STACK, name } }),
  updateStack: ({ stack }) => ({ stack: { ...STACK, ...stack } }),
  deleteStack: () => ({}),
  apply: ({ name }) => ({ stack: { ...STACK, name }, result: 'created' }),
  createDeploymentObject: ({ yamlContent }) => ({ deploymentObject: { ...OBJECT, yamlContent } }),
  getDeploymentObject: () => ({ deploymentObject: OBJECT }),
  addStackLabel: ({ label }) => ({ label: { id: STACK_ID, stackId: STACK_ID, label } }),
  addStackAnnotation: ({ key, value }) => ({ annotation: { id: STACK_ID, stackId: STACK_ID, key, value } }),
};

const agentService: Partial<ServiceImpl<typeof AgentService>> = {
  listAgents: () => ({ agents: [AGENT] }),
  findAgent: () => ({ agent: AGENT }),
  createAgent: () => ({ agent: AGENT, initialPak: 'shown-once' }),
  updateAgent: () => ({ agent: AGENT }),
  deleteAgent: () => ({}),
  addAgentLabel: ({ label }) => ({ label: { id: AGENT_ID, agentId: AGENT_ID, label } }),
  sendHeartbeat: () => ({}),
  listAgentEvents: () => ({ events: [] }),
};
