import { randomUUID } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { type InProcessBroker, startInProcessBroker } from '../in-process-broker.ts';
import { storesNothing } from './rows.ts';

let broker: InProcessBroker;
let ids: Readonly<Record<'stack' | 'agent' | 'other', string>>;

interface Refusal {
  readonly code: string;
  readonly message: string;
  readonly details?: Record<string, unknown>;
}

beforeAll(async () => {
  broker = await startInProcessBroker();
  const [agent, other] = [await broker.agent('agent'), await broker.agent('other')];
  const stack = await broker.api<{ id: string }>('POST', '/api/v1/stacks', { name: 'mine' });
  ids = { stack: stack.body.id, agent: agent.id, other: other.id };
});

async function refused(method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
  return await storesNothing(broker.db, async () => {
    const { status, body: answer } = await broker.api<Refusal>(method, `/api/v1${path}`, body, headers);
    expect(Object.keys(answer).every((key) => ['code', 'message', 'details'].includes(key))).toBe(true);
    return { status, ...answer };
  });
}

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
