import { randomUUID } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { type InProcessBroker, startInProcessBroker } from '../in-process-broker.ts';
import { storesNothing } from './rows.ts';

let broker: InProcessBroker;
let ids: Readonly<Record<'stack' | 'foreign' | 'agent' | 'other' | 'generator', string>>;
let paks: Readonly<Record<'agent' | 'generator' | 'reader' | 'revoked', string>>;

interface Refusal {
  readonly code: string;
  readonly message: string;
  readonly details?: Record<string, unknown>;
}

beforeAll(async () => {
  broker = await startInProcessBroker();
  const post = async <T>(path: string, body: unknown) => {
    const answer = await broker.api<T>('POST', `/api/v1${path}`, body);
    expect(answer.status, JSON.stringify(answer.body)).toBe(201);
    return answer.body;
  };
  const generator = await post<{ generator: { id: string }; pak: string }>('/generators', { name: 'tenant' });
  const stranger = await post<{ generator: { id: string } }>('/generators', { name: 'stranger' });
  const stack = await post<{ id: string }>('/stacks', { name: 'mine', generator_id: generator.generator.id });
  const foreign = await post<{ id: string }>('/stacks', { name: 'theirs', generator_id: stranger.generator.id });
  const agent = await broker.agent('agent');
  const other = await broker.agent('other');
  const reader = await post<{ pak: string }>('/keys', { role: 'admin', name: 'reader', read_only: true });
  const revoked = await post<{ key: { id: string }; pak: string }>('/keys', { role: 'admin', name: 'gone' });
  expect((await broker.api('DELETE', `/api/v1/keys/${revoked.key.id}`)).status).toBe(204);
  ids = { stack: stack.id, foreign: foreign.id, agent: agent.id, other: other.id, generator: generator.generator.id };
  paks = { agent: agent.pak, generator: generator.pak, reader: reader.pak, revoked: revoked.pak };
});

async function refused(method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
  return await storesNothing(broker.db, async () => {
    const { status, body: answer } = await broker.api<Refusal>(method, `/api/v1${path}`, body, headers);
    expect(Object.keys(answer).every((key) => ['code', 'message', 'details'].includes(key))).toBe(true);
    return { status, ...answer };
  });
}

// C-060, C-063, C-068: 401 without a working key, 403 with a key that may not, 404 for what is not there
describe('a key', () => {
  it('is missing', async () => {
    const response = await fetch(`${broker.url}/api/v1/stacks`);
    expect(response.status).toBe(401);
    expect(response.headers.get('www-authenticate')).toBe('Bearer realm="brokkr"');
    expect(await response.json()).toMatchObject({
      code: 'unauthorized',
      message: expect.stringContaining('authorization header'),
    });
  });

  it.each([
    ['malformed', () => 'nonsense'],
    ['of a foreign broker', () => `brokkr_BRabcdef_${'x'.repeat(24)}`],
    ['revoked', () => paks.revoked],
    ['behind another scheme', () => `Basic ${Buffer.from('a:b').toString('base64')}`],
  ])('is %s', async (_what, pak) => {
    expect(await refused('POST', '/stacks', { name: 'x' }, { authorization: pak() })).toMatchObject({
      status: 401,
      code: 'unauthorized',
    });
  });

  it.each<[string, () => [string, string, unknown?], () => string, string]>([
    ['a generator reads a stack of another', () => ['GET', `/stacks/${ids.foreign}`], () => paks.generator, 'stack_not_owned'],
    [
      'a generator publishes to a stack of another',
      () => [
        'POST',
        `/stacks/${ids.foreign}/deployment-objects`,
        { yaml_content: 'apiVersion: v1\nkind: A\nmetadata: {name: a}\n' },
      ],
      () => paks.generator,
      'stack_not_owned',
    ],
    [
      'a generator deletes a stack of another',
      () => ['DELETE', `/stacks/${ids.foreign}`],
      () => paks.generator,
      'stack_not_owned',
    ],
    [
      'a generator assigns a stack of another',
      () => ['POST', `/agents/${ids.agent}/targets`, { agent_id: ids.agent, stack_id: ids.foreign }],
      () => paks.generator,
      'target_generator_mismatch',
    ],
    [
      'a generator creates an agent',
      () => ['POST', '/agents', { name: 'x', cluster_name: 'y' }],
      () => paks.generator,
      'admin_required',
    ],
    ['an agent reads another agent', () => ['GET', `/agents/${ids.other}/target-state`], () => paks.agent, 'agent_pak_mismatch'],
    [
      'an agent reports for another agent',
      () => [
        'POST',
        `/agents/${ids.other}/events`,
        { agent_id: ids.other, deployment_object_id: ids.stack, event_type: 'APPLY', status: 'SUCCESS' },
      ],
      () => paks.agent,
      'agent_pak_mismatch',
    ],
    ['a read-only key creates a stack', () => ['POST', '/stacks', { name: 'x' }], () => paks.reader, 'read_only_key'],
    ['a read-only key deletes a stack', () => ['DELETE', `/stacks/${ids.stack}`], () => paks.reader, 'read_only_key'],
  ])('may not: %s', async (_what, request, pak, code) => {
    const [method, path, body] = request();
    expect(await refused(method, path, body, { authorization: pak() })).toMatchObject({ status: 403, code });
  });

  it('that may only read, reads', async () => {
    expect((await broker.api('GET', '/api/v1/stacks', undefined, { authorization: paks.reader })).status).toBe(200);
    expect((await broker.api('POST', '/api/v1/auth/pak', undefined, { authorization: paks.reader })).body).toMatchObject({
      admin: true,
      readonly: true,
    });
  });

  it('of an owner gets 404 for what does not exist', async () => {
    expect(await refused('GET', `/stacks/${randomUUID()}`, undefined, { authorization: paks.generator })).toMatchObject({
      status: 404,
      code: 'stack_not_found',
    });
  });
});

describe('a request', () => {
  it.each<[string, () => [string, string, unknown?, Record<string, string>?], number, string, string]>([
    [
      'has an unknown field',
      () => ['POST', '/stacks', { name: 'x', colour: 'red' }],
      400,
      'invalid_request',
      'unknown field colour',
    ],
    [
      'has an unknown query parameter',
      () => ['GET', '/stacks?colour=red'],
      400,
      'invalid_request',
      'unknown query parameter colour',
    ],
    [
      'is a form',
      () => ['POST', '/stacks', 'name=x', { 'content-type': 'application/x-www-form-urlencoded' }],
      415,
      'unsupported_content_type',
      'application/json',
    ],
    [
      'is YAML where JSON is asked for',
      () => ['POST', '/stacks', 'name: x', { 'content-type': 'text/yaml' }],
      415,
      'unsupported_content_type',
      'application/json',
    ],
    [
      'is broken JSON',
      () => ['POST', '/stacks', '{"name":\n"x",}', { 'content-type': 'application/json' }],
      400,
      'invalid_request_body',
      'line 2, column 5',
    ],
    ['has no name', () => ['POST', '/stacks', {}], 400, 'invalid_stack', 'name'],
    ['has a blank name', () => ['POST', '/agents', { name: '  ', cluster_name: 'c' }], 400, 'invalid_agent', 'name'],
    ['has a name of 256 characters', () => ['POST', '/generators', { name: 'x'.repeat(256) }], 400, 'invalid_generator', '255'],
    [
      'has a label with a space',
      () => ['POST', `/stacks/${ids.stack}/labels`, '"a b"', { 'content-type': 'application/json' }],
      400,
      'invalid_label',
      'label',
    ],
    [
      'has a label of 65 characters',
      () => ['POST', `/agents/${ids.agent}/labels`, { agent_id: ids.agent, label: 'x'.repeat(65) }],
      400,
      'invalid_label',
      '64',
    ],
    [
      'has an empty annotation',
      () => ['POST', `/stacks/${ids.stack}/annotations`, { key: 'k', value: '' }],
      400,
      'invalid_annotation',
      'value',
    ],
    [
      'has a null character in a name',
      () => ['POST', '/stacks', { name: 'a\0b' }],
      400,
      'invalid_stack',
      'name: line 1, column 2',
    ],
    [
      'has a null character in a parameter',
      () => ['GET', '/stacks?label=a%00'],
      400,
      'invalid_request',
      'label: line 1, column 2',
    ],
    [
      'has a null character in a map',
      () => ['POST', '/agents', { name: 'n', cluster_name: 'c', annotations: { k: 'v\0' } }],
      400,
      'invalid_agent',
      'annotations.k',
    ],
    ['names no UUID', () => ['GET', '/stacks/not-a-uuid'], 400, 'invalid_request', 'id: must be a valid UUID'],
    [
      'names no UUID in its body',
      () => ['POST', '/stacks', { name: 'x', generator_id: '42' }],
      400,
      'invalid_stack',
      'generator_id',
    ],
    ['asks for too many rows', () => ['GET', '/stacks?limit=1001'], 400, 'invalid_request', '1000'],
    ['asks for fewer rows than none', () => ['GET', '/agent-events?limit=-1'], 400, 'invalid_request', '1000'],
    ['asks for more rows than fit an integer', () => ['GET', '/agents?limit=99999999999'], 400, 'invalid_request', 'limit'],
    ['asks for a limit that is no number', () => ['GET', '/keys?limit=many'], 400, 'invalid_request', 'expected a number'],
    ['has a page token nobody gave out', () => ['GET', '/stacks?page_token=xyz'], 400, 'invalid_page_token', 'page_token'],
    [
      'has a page token with an impossible day',
      () => ['GET', `/stacks?page_token=${token('2020-99-99 00:00:00+00', randomUUID())}`],
      400,
      'invalid_page_token',
      'page_token',
    ],
    [
      'has a page token with an impossible id',
      () => ['GET', `/agents?page_token=${token('2020-01-01 00:00:00+00', '-'.repeat(36))}`],
      400,
      'invalid_page_token',
      'page_token',
    ],
    [
      'has an unknown status',
      () => ['PUT', `/agents/${ids.agent}`, { status: 'SLEEPING' }],
      400,
      'invalid_request',
      'allowed are ACTIVE, INACTIVE',
    ],
    [
      'has a malformed if-match',
      () => ['PUT', `/stacks/${ids.stack}`, { description: 'x' }, { 'if-match': 'latest' }],
      412,
      'precondition_failed',
      'expected an etag',
    ],
    [
      'has an if-match of the past',
      () => ['DELETE', `/stacks/${ids.stack}`, undefined, { 'if-match': '"77"' }],
      412,
      'precondition_failed',
      '77',
    ],
    [
      'has an endless idempotency key',
      () => ['POST', '/stacks', { name: 'x' }, { 'idempotency-key': 'k'.repeat(256) }],
      400,
      'invalid_request',
      '1 to 255',
    ],
    [
      'has a key that ends before it begins',
      () => ['POST', '/keys', { role: 'admin', name: 'k', expires_at: '2001-01-01T00:00:00Z' }],
      400,
      'invalid_key',
      'not in the future',
    ],
    [
      'has an id in the body that is not that of the path',
      () => ['POST', `/agents/${ids.agent}/labels`, { agent_id: ids.other, label: 'x' }],
      400,
      'agent_id_mismatch',
      'in the path',
    ],
    ['uses the wrong verb', () => ['PATCH', `/stacks/${ids.stack}`, {}], 405, 'method_not_allowed', ''],
    ['leads nowhere', () => ['GET', '/nothing'], 404, 'not_found', ''],
  ])('%s', async (_what, request, status, code, words) => {
    const [method, path, body, headers] = request();
    const answer = await refused(method, path, body, headers);
    expect(answer).toMatchObject({ status, code });
    expect(answer.message).toContain(words);
  });

  it('repeats an idempotency key for something else', async () => {
    expect((await broker.api('POST', '/api/v1/stacks', { name: 'once' }, { 'idempotency-key': 'k' })).status).toBe(201);
    expect(await refused('POST', '/stacks', { name: 'twice' }, { 'idempotency-key': 'k' })).toMatchObject({
      status: 422,
      code: 'idempotency_key_reused',
    });
    expect(await refused('POST', '/generators', { name: 'once' }, { 'idempotency-key': 'k' })).toMatchObject({
      status: 422,
      code: 'idempotency_key_reused',
    });
  });

  it('has an unknown field, over Connect', async () => {
    const answer = await storesNothing(broker.db, async () => {
      const response = await fetch(`${broker.url}/brokkr.v1.StackService/CreateStack`, {
        method: 'POST',
        headers: { authorization: broker.adminPak, 'content-type': 'application/json' },
        body: JSON.stringify({ name: 'x', colour: 'red' }),
      });
      return { status: response.status, body: (await response.json()) as { code: string; message: string } };
    });
    expect(answer).toMatchObject({
      status: 400,
      body: { code: 'invalid_argument', message: expect.stringContaining('"colour"') },
    });
  });
});

function token(createdAt: string, id: string): string {
  return Buffer.from(JSON.stringify([createdAt, id])).toString('base64url');
}
