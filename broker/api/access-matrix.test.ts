import { create, type DescMethod, getOption, type Message } from '@bufbuild/protobuf';
import { reflect } from '@bufbuild/protobuf/reflect';
import { Code, ConnectError, type Transport } from '@connectrpc/connect';
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Access, access } from '#proto/brokkr/v1/options_pb.js';
import { type InProcessBroker, startInProcessBroker } from '../../test/in-process-broker.ts';
import { SERVICES } from '../broker.ts';

// C-006, C-061, C-064, C-065, C-066: every method × every caller; what is allowed is read off the contract.

const CALLERS = ['no key', 'bad key', 'admin', 'agent itself', 'other agent', 'owning generator', 'other generator'] as const;
type Caller = (typeof CALLERS)[number];

const METHODS = SERVICES.flatMap((service) => service.methods.map((method) => ({ service, method })));
let broker: InProcessBroker;
let keys: Readonly<Record<Caller, string | undefined>>;
let transport: Transport;
let connections: Http2SessionManager;
const ids: Record<string, string> = {};

beforeAll(async () => {
  broker = await startInProcessBroker();
  connections = new Http2SessionManager(broker.url);
  transport = createGrpcTransport({ baseUrl: broker.url, sessionManager: connections });
  const self = await broker.agent('self', ['own']);
  const other = await broker.agent('other', ['else']);
  const generators = [];
  for (const name of ['owner', 'stranger']) {
    generators.push((await broker.api<{ generator: { id: string }; pak: string }>('POST', '/api/v1/generators', { name })).body);
  }
  const [owner, stranger] = generators;
  const yaml = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n';
  const applied = await broker.api<{ stack: { id: string }; deployment_object: { id: string } }>(
    'PUT',
    '/api/v1/stacks/by-name/mine/apply?label=own',
    yaml,
    {
      authorization: owner?.pak ?? '',
      'content-type': 'application/yaml',
    },
  );
  Object.assign(ids, {
    agent: self.id,
    generator: owner?.generator.id,
    stack: applied.body.stack.id,
    object: applied.body.deployment_object.id,
  });
  keys = {
    'no key': undefined,
    'bad key': 'brokkr_BRabcdef_1234567890123456789012ab',
    admin: broker.adminPak,
    'agent itself': self.pak,
    'other agent': other.pak,
    'owning generator': owner?.pak,
    'other generator': stranger?.pak,
  };
});

afterAll(() => connections.abort());

/** A request about the fixtures: ids by field name, everything else empty, and dry where that exists. */
function requestOf({ method, service }: (typeof METHODS)[number]): Message {
  const message = create(method.input);
  const view = reflect(method.input, message);
  const set = (name: string, value: string | boolean) => {
    const field = method.input.field[name];
    if (field?.fieldKind === 'scalar') view.set(field, value);
  };
  const subject =
    { AgentService: ids.agent, GeneratorService: ids.generator, StackService: ids.stack }[service.typeName.slice(10)] ?? '';
  set(
    'id',
    /DeploymentObject/.test(method.name) ? (ids.object ?? '') : /AgentEvent/.test(method.name) ? (ids.object ?? '') : subject,
  );
  const aboutCaller = getOption(method, access).allow.includes(Access.AGENT); // an agent need not name itself there
  if (!aboutCaller) set('agentId', ids.agent ?? '');
  for (const [field, value] of [
    ['label', 'x'],
    ['key', 'x'],
    ['value', 'x'],
    ['name', 'x'],
    ['clusterName', 'x'],
    ['eventType', 'x'],
  ] as const)
    set(field, value);
  for (const field of ['stack', 'generator'])
    if (method.input.field[field]?.fieldKind === 'message')
      Object.assign(message, { [field]: create(method.input.field[field].message, { id: subject } as never) });
  if (method.input.field.deploymentObjectId) set('deploymentObjectId', ids.object ?? '');
  if (method.name === 'CreateAgentEvent') Object.assign(message, { status: 1 });
  if (method.name === 'CreateKey') Object.assign(message, { role: 1 });
  if (method.name !== 'ExplainTargets') set('stackId', ids.stack ?? '');
  set('dryRun', true);
  if (method.name === 'FindAgent') {
    set('name', 'self');
    set('clusterName', 'test');
  }
  if (method.name === 'FindStack') set('name', 'mine');
  return message;
}

function allowed(method: DescMethod, caller: Caller): boolean {
  const rules = getOption(method, access).allow;
  const any = (...wanted: Access[]) => wanted.some((item) => rules.includes(item));
  if (any(Access.PUBLIC)) return true;
  switch (caller) {
    case 'no key':
    case 'bad key':
      return false;
    case 'admin':
      return any(Access.ANY_KEY, Access.ADMIN);
    case 'agent itself':
      return any(Access.ANY_KEY, Access.AGENT, Access.AGENT_SELF, Access.AGENT_ASSOCIATED);
    case 'other agent':
      return any(Access.ANY_KEY, Access.AGENT);
    case 'owning generator':
      return any(Access.ANY_KEY, Access.GENERATOR, Access.GENERATOR_OWNER);
    case 'other generator':
      return any(Access.ANY_KEY, Access.GENERATOR);
  }
}

/** The gRPC code a caller gets; undefined for success. */
async function call(entry: (typeof METHODS)[number], caller: Caller): Promise<Code | undefined> {
  const key = keys[caller];
  const headers = new Headers(key === undefined ? {} : { authorization: key });
  const { method } = entry;
  const signal = AbortSignal.timeout(20_000);
  try {
    if (method.methodKind === 'unary') {
      await transport.unary(method as never, signal, undefined, headers, requestOf(entry) as never);
      return undefined;
    }
    const message = requestOf(entry);
    const response = await transport.stream(
      method as never,
      signal,
      undefined,
      headers,
      (async function* () {
        yield message as never;
      })(),
    );
    for await (const _first of response.message) return undefined;
    return undefined;
  } catch (error) {
    return ConnectError.from(error).code;
  }
}

describe('access', () => {
  for (const entry of METHODS) {
    const name = `${entry.service.typeName.slice(10)}.${entry.method.name}`;
    it(`of ${name} is what the contract says for every caller`, async () => {
      for (const caller of CALLERS) {
        const code = await call(entry, caller);
        if (allowed(entry.method, caller)) {
          expect([Code.Unauthenticated, Code.PermissionDenied], `${caller} may call ${name}`).not.toContain(code);
        } else if (caller === 'no key' || caller === 'bad key')
          expect(code, `${caller} is not known to ${name}`).toBe(Code.Unauthenticated);
        else expect([Code.PermissionDenied, Code.NotFound], `${caller} may not call ${name}`).toContain(code);
      }
    });
  }

  it('covers every method of every service', () => {
    for (const { method } of METHODS) expect(getOption(method, access).allow.length, method.name).toBeGreaterThan(0);
  });
});
