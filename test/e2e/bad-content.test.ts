import { beforeAll, describe, expect, it } from 'vitest';
import { type InProcessBroker, startInProcessBroker } from '../in-process-broker.ts';
import { storesNothing } from './rows.ts';

let broker: InProcessBroker;
let stack: { readonly id: string };

const YAML = { 'content-type': 'application/yaml' };
const MiB = 1024 * 1024;
const configMap = (name: string, rest = '') => `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${name}\n${rest}`;

/** Nine levels of nine aliases each: 387 million nodes from 300 bytes. */
function aliasBomb(): string {
  const levels = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i'];
  const lines = levels.map(
    (name, at) =>
      `${name}: &${name} [${Array(9)
        .fill(at === 0 ? 'x' : `*${levels[at - 1]}`)
        .join(',')}]`,
  );
  return `${configMap('bomb')}data:\n${lines.map((line) => `  ${line}\n`).join('')}`;
}

interface Refusal {
  readonly code: string;
  readonly message: string;
  readonly details?: {
    readonly problems?: readonly Record<string, unknown>[];
    readonly violations?: readonly Record<string, unknown>[];
    readonly limit_bytes?: number;
  };
}

beforeAll(async () => {
  broker = await startInProcessBroker({ env: { BROKKR__BROKER__MAX_DOCUMENTS: '10000' } });
  stack = (await broker.api<{ id: string }>('POST', '/api/v1/stacks', { name: 'content' })).body;
});

describe('a text that cannot be used is refused with place and limit, and nothing is stored', () => {
  it.each<[string, string, Record<string, unknown>, string]>([
    [
      'malformed YAML',
      `${configMap('a')}---\napiVersion: v1\nkind: [x\n`,
      { document: 2, line: 8, column: 1, rule: 'yaml_syntax' },
      'document 2, line 8',
    ],
    [
      'a duplicate key',
      `${configMap('a')}---\nkind: A\nkind: B\n`,
      { document: 2, line: 7, column: 1, rule: 'duplicate_key' },
      'already in this mapping',
    ],
    ['an alias bomb', aliasBomb(), { document: 1, rule: 'alias_expansion' }, '1000 nodes'],
    [
      '10,001 documents',
      Array.from({ length: 10_001 }, (_, index) => configMap(`m${index}`)).join('---\n'),
      { document: 0, rule: 'too_many_documents' },
      'the text has 10001 documents, the limit is 10000',
    ],
    [
      'an annotation of 300 KB',
      configMap('a', `  annotations:\n    big: ${'x'.repeat(300 * 1024)}\n`),
      { document: 1, line: 1, path: '/metadata/annotations', object: 'v1 ConfigMap a', rule: 'annotations_too_large' },
      'the limit is 262144',
    ],
    [
      'a missing name',
      'apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n',
      { document: 1, line: 1, path: '/metadata/name', rule: 'missing_field' },
      'metadata.name is required',
    ],
    [
      'a missing kind',
      'apiVersion: v1\nmetadata: {name: a}\n',
      { document: 1, path: '/kind', rule: 'missing_field' },
      'kind is required',
    ],
    [
      'the same object twice',
      `${configMap('a')}---\n${configMap('a')}`,
      { document: 2, line: 6, rule: 'duplicate_object' },
      'document 1 (line 1)',
    ],
    ['no object at all', '# later\n', { document: 0, rule: 'empty_content' }, 'is_deletion_marker'],
  ])('%s', async (_what, text, problem, words) => {
    await storesNothing(broker.db, async () => {
      const raw = await broker.api<Refusal>('POST', `/api/v1/stacks/${stack.id}/deployment-objects`, text, YAML);
      expect(raw.status, raw.body.message).toBe(400);
      expect(raw.body.code).toBe('invalid_deployment_object');
      expect(raw.body.message).toContain(words);
      expect(raw.body.details?.problems?.[0]).toMatchObject({ ...problem, severity: 'error' });
      const json = await broker.api<Refusal>('PUT', '/api/v1/stacks/by-name/unheard-of/apply', { yaml_content: text });
      expect(json.body).toMatchObject({ code: 'invalid_deployment_object', details: { problems: [problem] } });
    });
  });

  it('reports every problem of a text at once', async () => {
    const text = 'kind: [x\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {}\n---\nkind: A\nkind: B\n';
    const { body } = await storesNothing(broker.db, () =>
      broker.api<Refusal>('POST', `/api/v1/stacks/${stack.id}/deployment-objects`, text, YAML),
    );
    expect(body.details?.problems?.map(({ document }) => document)).toEqual(expect.arrayContaining([1, 2, 3]));
  });

  it('never repeats a value in an error: it may be a secret', async () => {
    const secret = 'hunter2hunter2';
    const text = `apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: ${secret}, password: ${secret}}\n`;
    const { status, body } = await broker.api('POST', `/api/v1/stacks/${stack.id}/deployment-objects`, text, YAML);
    expect(status).toBe(400);
    expect(JSON.stringify(body)).not.toContain(secret);
  });
});

describe('a body that is too large', () => {
  const limit = 16 * MiB;
  const big = configMap('a', `data:\n  a: ${'x'.repeat(20 * MiB)}\n`);

  it('is refused with the limit, raw and as JSON, before it is parsed', async () => {
    await storesNothing(broker.db, async () => {
      for (const [body, headers] of [
        [big, YAML],
        [{ yaml_content: big }, {}],
      ] as const) {
        const { status, body: refusal } = await broker.api<Refusal>(
          'POST',
          `/api/v1/stacks/${stack.id}/deployment-objects`,
          body,
          headers,
        );
        expect(status).toBe(413);
        expect(refusal).toMatchObject({ code: 'payload_too_large', message: expect.stringContaining(`the limit is ${limit}`) });
      }
    });
  });

  it('is refused by routes that publish nothing at 1 MiB', async () => {
    const { status, body } = await storesNothing(broker.db, () =>
      broker.api<Refusal>('POST', '/api/v1/stacks', { name: 'x', description: 'x'.repeat(2 * MiB) }),
    );
    expect({ status, body }).toMatchObject({ status: 413, body: { code: 'payload_too_large', details: { limit_bytes: MiB } } });
  });
});

describe('content the broker does not judge', () => {
  // C-052: whether a kind exists is known to clusters only
  it('has kinds it has never heard of', async () => {
    const text =
      'apiVersion: nowhere.example/v7\nkind: Unheard\nmetadata: {name: u, namespace: nowhere}\nspec: {anything: [1, {goes: true}]}\n';
    const { status, body } = await broker.api('POST', `/api/v1/stacks/${stack.id}/deployment-objects`, text, YAML);
    expect(status, JSON.stringify(body)).toBe(201);
    expect(body).toMatchObject({ object_count: 1, yaml_content: text });
  });

  // C-010: the agent reports what the parser here would have refused
  it('is stored as it is with validation=none', async () => {
    const text = '{{ not: [yaml\nkey: 1\nkey: 2\n';
    const path = `/api/v1/stacks/${stack.id}/deployment-objects`;
    expect((await broker.api('POST', path, text, YAML)).status).toBe(400);
    const stored = await broker.api<{ id: string }>('POST', `${path}?validation=none`, text, YAML);
    expect(stored).toMatchObject({ status: 201, body: { yaml_content: text, object_count: 0 } });
    const again = await broker.api('GET', `/api/v1/deployment-objects/${stored.body.id}`, undefined, {
      accept: 'application/yaml',
    });
    expect(again.body).toBe(text);
    expect((await broker.api('POST', path, { yaml_content: text, validation: 'none' })).status).toBe(201);
  });

  it('still may not hold what no database stores', async () => {
    const { status, body } = await storesNothing(broker.db, () =>
      broker.api<Refusal>('POST', `/api/v1/stacks/${stack.id}/deployment-objects?validation=none`, 'a: 1\nb: \0\n', YAML),
    );
    expect({ status, body }).toMatchObject({
      status: 400,
      body: { code: 'invalid_deployment_object', message: expect.stringContaining('line 2, column 4') },
    });
  });
});
