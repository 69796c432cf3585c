import { randomUUID } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { type InProcessBroker, startInProcessBroker } from '../in-process-broker.ts';
import { rowCounts, storesNothing } from './rows.ts';

type Json = Record<string, unknown> & { readonly id: string };

let broker: InProcessBroker;
let tenant: { readonly id: string; readonly pak: string };
let serial = 0;
const unique = (prefix: string) => `${prefix}-${++serial}`;
const YAML = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n';

beforeAll(async () => {
  broker = await startInProcessBroker();
  const { body } = await broker.api<{ generator: Json; pak: string }>('POST', '/api/v1/generators', { name: 'tenant' });
  tenant = { id: body.generator.id, pak: body.pak };
});

async function call<T = Json>(method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
  return await broker.api<T>(method, `/api/v1${path}`, body, headers);
}

async function newStack(): Promise<Json> {
  return (await call('POST', '/stacks', { name: unique('stack'), description: 'before' })).body;
}

describe('PUT', () => {
  it('clears what is null, leaves what is absent, and takes back a whole object as it was read', async () => {
    const stack = await newStack();
    expect((await call('PUT', `/stacks/${stack.id}`, { name: 'renamed' })).body).toMatchObject({
      name: 'renamed',
      description: 'before',
    });
    const cleared = (await call('PUT', `/stacks/${stack.id}`, { description: null })).body;
    expect(cleared).toMatchObject({ name: 'renamed', description: null });
    const whole = await call('PUT', `/stacks/${stack.id}`, { ...cleared, description: 'whole' });
    expect(whole).toMatchObject({ status: 200, body: { ...cleared, description: 'whole', updated_at: expect.any(String) } });
  });

  it.each([
    ['generator_id', randomUUID()],
    ['created_at', '2001-01-01T00:00:00Z'],
    ['deleted_at', '2001-01-01T00:00:00Z'],
    ['generation', 7],
  ])('refuses to change %s of a stack', async (field, value) => {
    const stack = await newStack();
    const refusal = await storesNothing(broker.db, () => call('PUT', `/stacks/${stack.id}`, { ...stack, [field]: value }));
    expect(refusal).toMatchObject({ status: 400, body: { code: 'immutable_field', details: { field } } });
  });

  it('lets no tenant make itself a system generator', async () => {
    const refusal = await call('PUT', `/generators/${tenant.id}`, { is_system: true }, { authorization: tenant.pak });
    expect(refusal).toMatchObject({ status: 400, body: { code: 'immutable_field', details: { field: 'is_system' } } });
  });
});

describe('If-Match', () => {
  it('lets one of two writers win and tells the other', async () => {
    const stack = await newStack();
    const etag = (await call('GET', `/stacks/${stack.id}`)).headers.get('etag') ?? '';
    expect(etag).toMatch(/^"\d+"$/);
    const edits = ['one', 'two'].map((description) => call('PUT', `/stacks/${stack.id}`, { description }, { 'if-match': etag }));
    const answers = await Promise.all(edits);
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 412]);
    const next = answers.find(({ status }) => status === 200)?.headers.get('etag') ?? '';
    expect(next).not.toBe(etag);
    expect((await call('DELETE', `/stacks/${stack.id}`, undefined, { 'if-match': etag })).body).toMatchObject({
      code: 'precondition_failed',
    });
    expect((await call('DELETE', `/stacks/${stack.id}`, undefined, { 'if-match': next })).status).toBe(204);
  });
});

describe('Idempotency-Key', () => {
  it('makes a repetition answer what the first call answered, and do nothing', async () => {
    const stack = await newStack();
    const publish = () =>
      call('POST', `/stacks/${stack.id}/deployment-objects`, { yaml_content: YAML }, { 'idempotency-key': 'publish-1' });
    const first = await publish();
    const again = await storesNothing(broker.db, publish);
    expect(again).toMatchObject({ status: 201, body: first.body });
    expect([first, again].map(({ headers }) => headers.get('idempotency-replayed'))).toEqual([null, 'true']);
  });

  it('repeats the etag, too, and so the next step of a client works', async () => {
    const create = () => call('POST', '/stacks', { name: 'with-etag' }, { 'idempotency-key': 'with-etag' });
    const [first, again] = [await create(), await create()];
    expect(again.headers.get('etag')).toBe(first.headers.get('etag'));
    const etag = again.headers.get('etag') ?? '';
    expect((await call('PUT', `/stacks/${again.body.id}`, { description: 'x' }, { 'if-match': etag })).status).toBe(200);
  });

  it('is the caller’s own: another tenant may use the same', async () => {
    const name = unique('same');
    const headers = { 'idempotency-key': 'shared' };
    const [one, two] = [
      await call('POST', '/stacks', { name }, headers),
      await call('POST', '/stacks', { name }, { ...headers, authorization: tenant.pak }),
    ];
    expect([one.status, two.status]).toEqual([201, 201]);
    expect(one.body.id).not.toBe(two.body.id);
  });

  it('runs twenty repetitions at once as one', async () => {
    const before = await rowCounts(broker.db);
    const name = unique('burst');
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => call('POST', '/stacks', { name }, { 'idempotency-key': 'burst' })),
    );
    expect(new Set(answers.map(({ status, body }) => `${status} ${body.id}`)).size).toBe(1);
    expect((await rowCounts(broker.db)).stack).toBe((before.stack ?? 0) + 1);
  });

  it('does not show a key again', async () => {
    const create = () => call<{ pak: string }>('POST', '/generators', { name: 'shown-once' }, { 'idempotency-key': 'generator' });
    expect((await create()).body.pak).toMatch(/^brokkr_/);
    expect((await create()).body.pak).toBe('');
  });
});

describe('dry_run', () => {
  it.each<[string, string, (stack: Json) => string, unknown?]>([
    ['create a stack', 'POST', () => '/stacks?dry_run=true', { name: 'dry' }],
    ['create an agent', 'POST', () => '/agents?dry_run=true', { name: 'dry', cluster_name: 'dry' }],
    ['create a generator', 'POST', () => '/generators?dry_run=true', { name: 'dry' }],
    ['create a key', 'POST', () => '/keys?dry_run=true', { role: 'admin', name: 'dry' }],
    ['publish', 'POST', ({ id }) => `/stacks/${id}/deployment-objects?dry_run=true`, { yaml_content: YAML }],
    ['apply', 'PUT', () => `/stacks/by-name/dry/apply?dry_run=true&label=x`, { yaml_content: YAML }],
    ['change', 'PUT', ({ id }) => `/stacks/${id}?dry_run=true`, { description: 'dry' }],
    ['label', 'POST', ({ id }) => `/stacks/${id}/annotations?dry_run=true`, { key: 'a', value: 'b' }],
    ['delete', 'DELETE', ({ id }) => `/stacks/${id}?dry_run=true`],
    ['rotate the admin key', 'POST', () => '/admin/rotate-pak?dry_run=true'],
  ])('would %s, and changes and audits nothing', async (_what, verb, path, body) => {
    const stack = await newStack();
    const answer = await storesNothing(broker.db, () => call(verb, path(stack), body));
    expect(answer.status, JSON.stringify(answer.body)).toBeLessThan(300);
    expect(JSON.stringify(answer.body ?? '')).not.toContain('brokkr_BR'); // a key that would not work is not shown
    expect((await call('GET', `/stacks/${stack.id}`)).body).toEqual(stack);
  });

  it('fails as the real call would', async () => {
    const stack = await newStack();
    expect(await call('POST', '/stacks?dry_run=true', { name: stack.name })).toMatchObject({
      status: 409,
      body: { code: 'unique_violation' },
    });
  });
});

describe('a list', () => {
  it('is paged by limit and the Link header, each row once, newest first', async () => {
    const { body } = await call<{ generator: Json; pak: string }>('POST', '/generators', { name: unique('many') });
    const headers = { authorization: body.pak };
    const names = Array.from({ length: 7 }, (_, index) => `paged-${index}`);
    for (const name of names) await call('POST', '/stacks', { name }, headers);
    const seen: string[] = [];
    let path: string | undefined = '/stacks?limit=3';
    for (let pages = 0; path && pages < 10; pages++) {
      const page: Awaited<ReturnType<typeof call<Json[]>>> = await call<Json[]>('GET', path, undefined, headers);
      seen.push(...page.body.map((stack) => String(stack.name)));
      path = /<\/api\/v1([^>]+)>; rel="next"/.exec(page.headers.get('link') ?? '')?.[1];
    }
    expect(seen).toEqual([...names].reverse());
    expect((await call<Json[]>('GET', '/stacks', undefined, headers)).body).toHaveLength(7);
  });
});

describe('errors of the database', () => {
  it('name the constraint', async () => {
    const stack = await newStack();
    expect((await call('POST', '/stacks', { name: stack.name })).body).toMatchObject({
      code: 'unique_violation',
      details: { constraint: 'stack_name_key' },
    });
    const agent = await broker.agent(unique('agent'));
    const label = () => call('POST', `/agents/${agent.id}/labels`, { agent_id: agent.id, label: 'x' });
    expect([(await label()).status, (await label()).status]).toEqual([201, 409]);
  });
});

describe('an assignment is checked in the order of the contract', () => {
  it('stack, owner, consent, ids, repetition', async () => {
    const agent = await broker.agent(unique('agent'));
    const registered = { acceptance: 'registered' };
    expect((await call('PUT', `/agents/${agent.id}`, registered)).body).toMatchObject(registered);
    const own = (await call('POST', '/stacks', { name: unique('own') }, { authorization: tenant.pak })).body;
    const foreign = await newStack();
    const assign = (stackId: string, pak: string, agentId = agent.id) =>
      call('POST', `/agents/${agentId}/targets`, { agent_id: agentId, stack_id: stackId }, { authorization: pak });
    expect(await assign(randomUUID(), tenant.pak)).toMatchObject({ status: 404, body: { code: 'stack_not_found' } });
    expect(await assign(foreign.id, tenant.pak)).toMatchObject({ status: 403, body: { code: 'target_generator_mismatch' } });
    expect(await assign(own.id, tenant.pak)).toMatchObject({ status: 403, body: { code: 'agent_not_registered' } });
    expect(await call('POST', `/agents/${agent.id}/targets`, { agent_id: randomUUID(), stack_id: own.id })).toMatchObject({
      status: 400,
      body: { code: 'agent_id_mismatch' },
    });
    expect(await assign(own.id, broker.adminPak, randomUUID())).toMatchObject({ status: 404, body: { code: 'agent_not_found' } });
    expect((await assign(own.id, broker.adminPak)).status).toBe(201); // registers the agent, too
    expect(await assign(own.id, tenant.pak)).toMatchObject({ status: 409, body: { code: 'unique_violation' } });
    expect(await call('POST', `/generators/${tenant.id}/register`, { agent_id: agent.id })).toMatchObject({
      status: 409,
      body: { code: 'already_registered' },
    });
    expect(await call('POST', `/generators/${tenant.id}/register`, {})).toMatchObject({
      status: 400,
      body: { code: 'missing_agent_id' },
    });
  });
});
