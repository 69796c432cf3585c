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
