import { randomUUID } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { createYamlPool, type YamlPool } from '#lib/yaml-pool.ts';
import { DeletionPolicy } from '#proto/brokkr/v1/content_pb.js';
import { ADMIN, configMap, documents, failure, generatorKey, type TestService, testService } from '../../test/broker-stacks.ts';
import { testDatabase } from '../../test/postgres.ts';
import type { Database } from '../database.ts';
import { StackEntity } from './entities.ts';

let db: Database;
let yaml: YamlPool;
let service: TestService;

beforeAll(async () => {
  const database = await testDatabase();
  db = await database.open({ poolMax: 10 }, { entities: [StackEntity] });
  yaml = createYamlPool({ maxThreads: 1 });
  service = testService({ db, yaml });
  return () => yaml[Symbol.asyncDispose]();
});

async function newAgent(
  name = `a-${randomUUID()}`,
  cluster = 'c1',
  acceptance: string | null = null,
): Promise<{ id: string; name: string }> {
  const [row] = await db.query<{ id: string; name: string }>(
    'insert into agent (name, cluster_name, acceptance) values ($1, $2, $3) returning id, name',
    [name, cluster, acceptance],
  );
  if (!row) throw new Error('no agent');
  return row;
}

/** Everything an apply could write, as counts. */
async function writes(): Promise<unknown> {
  const [row] = await db.query(
    `select (select count(*) from stack) as stacks, (select sum(version) from stack) as versions, (select count(*) from deployment_object) as objects,
       (select count(*) from stack_generation) as generations, (select count(*) from change_log) as changes, (select count(*) from audit_log) as audits,
       (select count(*) from blob) as blobs, (select count(*) from stack_label) as labels, (select count(*) from agent_target) as targets`,
  );
  return row;
}

describe('apply', () => {
  it('creates a stack with labels, annotations, targets, options and content in one transaction', async () => {
    const name = `s-${randomUUID()}`;
    const agent = await newAgent();
    const answer = await service.as(ADMIN).apply({
      name,
      description: 'all at once',
      yamlContent: documents(configMap('a'), configMap('b')),
      labels: { values: ['prod'] },
      annotations: { values: { region: 'eu' } },
      agents: { values: [agent.name] },
      options: { deletionPolicy: DeletionPolicy.ORPHAN },
      label: ['more'],
    });
    expect(answer).toMatchObject({ result: 'created', targetedAgents: 1, deploymentObject: { objectCount: 2, revision: 1n } });
    expect(answer.stack).toMatchObject({
      name,
      description: 'all at once',
      generation: 1n,
      options: { deletionPolicy: DeletionPolicy.ORPHAN },
    });
    expect(answer.changes.map(({ name: object, change }) => [object, change])).toEqual([
      ['a', 'added'],
      ['b', 'added'],
    ]);
    const stackId = answer.stack?.id ?? '';
    expect((await service.as(ADMIN).listStackLabels({ stackId })).labels.map(({ label }) => label)).toEqual(['more', 'prod']);
    expect(await db.query('select kind from change_log where stack_id = $1', [stackId])).toEqual([{ kind: 'stack' }]);
  });

  it('writes nothing when all is as asked already', async () => {
    const name = `s-${randomUUID()}`;
    const request = {
      name,
      yamlContent: configMap('a'),
      labels: { values: ['x'] },
      options: { paused: true },
      agents: { values: [(await newAgent()).id] },
    };
    await service.as(ADMIN).apply(request);
    const before = await writes();
    const answer = await service.as(ADMIN).apply(request);
    expect(answer).toMatchObject({
      result: 'unchanged',
      changes: [],
      stack: { generation: 1n },
      deploymentObject: { revision: 1n },
    });
    expect(await writes()).toEqual(before);
  });

  it('names the objects that changed, and leaves alone what is not set', async () => {
    const name = `s-${randomUUID()}`;
    await service.as(ADMIN).apply({ name, yamlContent: documents(configMap('a'), configMap('b')), labels: { values: ['keep'] } });
    const answer = await service.as(ADMIN).apply({ name, yamlContent: documents(configMap('b', 'other'), configMap('c')) });
    expect(answer.result).toBe('updated');
    expect(answer.changes.map(({ name: object, change }) => [object, change])).toEqual([
      ['b', 'changed'],
      ['c', 'added'],
      ['a', 'removed'],
    ]);
    const { labels } = await service.as(ADMIN).listStackLabels({ stackId: answer.stack?.id ?? '' });
    expect(labels.map(({ label }) => label)).toEqual(['keep']);
  });

  it('makes labels, annotations and targets exactly what is asked', async () => {
    const name = `s-${randomUUID()}`;
    const [one, two] = [await newAgent(), await newAgent()];
    await service
      .as(ADMIN)
      .apply({ name, labels: { values: ['a', 'b'] }, annotations: { values: { k: '1', l: '1' } }, agents: { values: [one.id] } });
    const { stack, result } = await service.as(ADMIN).apply({
      name,
      labels: { values: ['b', 'c'] },
      annotations: { values: { k: '2' } },
      agents: { values: [`${two.name}/c1`] },
    });
    expect(result).toBe('updated');
    const stackId = stack?.id ?? '';
    expect((await service.as(ADMIN).listStackLabels({ stackId })).labels.map(({ label }) => label)).toEqual(['b', 'c']);
    expect((await service.as(ADMIN).listStackAnnotations({ stackId })).annotations).toMatchObject([{ key: 'k', value: '2' }]);
    expect(await db.query('select agent_id from agent_target where stack_id = $1', [stackId])).toEqual([{ agent_id: two.id }]);
    const none = await service.as(ADMIN).apply({ name, labels: { values: [] } });
    expect(none.result).toBe('updated');
  });

  it('raises the generation when only the options change', async () => {
    const name = `s-${randomUUID()}`;
    await service.as(ADMIN).apply({ name, yamlContent: configMap('a') });
    const answer = await service.as(ADMIN).apply({ name, yamlContent: configMap('a'), options: { paused: true } });
    expect(answer).toMatchObject({
      result: 'updated',
      stack: { generation: 2n },
      deploymentObject: { revision: 1n },
      changes: [],
    });
  });

  it('keeps an approval while nothing else is asked for', async () => {
    const name = `s-${randomUUID()}`;
    await service.as(ADMIN).apply({ name, yamlContent: configMap('a'), options: { approveDeletes: 3 } });
    expect((await service.as(ADMIN).apply({ name, yamlContent: configMap('a'), options: {} })).result).toBe('unchanged');
    const next = await service.as(ADMIN).apply({ name, yamlContent: configMap('b'), options: {} });
    expect(next.stack?.options?.approveDeletes).toBe(0);
  });

  it('answers with the changes and makes none in a dry run', async () => {
    const name = `s-${randomUUID()}`;
    const before = await writes();
    const answer = await service
      .as(ADMIN)
      .apply({ name, yamlContent: configMap('dry'), labels: { values: ['x'] }, dryRun: true });
    expect(answer).toMatchObject({ result: 'created', changes: [{ name: 'dry', change: 'added' }] });
    expect(await writes()).toEqual(before);
    expect((await failure(service.as(ADMIN).findStack({ name }))).code).toBe('stack_not_found');
  });

  it('leaves nothing behind when a part is refused', async () => {
    const name = `s-${randomUUID()}`;
    const before = await writes();
    const bad = await failure(service.as(ADMIN).apply({ name, yamlContent: configMap('z'), agents: { values: ['nobody'] } }));
    expect(bad).toMatchObject({ code: 'agent_not_found', details: { agent: 'nobody' } });
    expect((await failure(service.as(ADMIN).apply({ name, yamlContent: 'kind: [' }))).code).toBe('invalid_deployment_object');
    expect((await failure(service.as(ADMIN).apply({ name, labels: { values: ['a b'] } }))).code).toBe('invalid_label');
    expect((await failure(service.as(ADMIN).apply({ name, annotations: { values: { a: '' } } }))).code).toBe(
      'invalid_annotation',
    );
    expect((await failure(service.as(ADMIN).apply({ name, yamlContent: '' }))).code).toBe('invalid_deployment_object');
    expect(await writes()).toEqual(before);
  });

  it('asks for the cluster when an agent name is used in several', async () => {
    const twin = `twin-${randomUUID()}`;
    await newAgent(twin, 'c1');
    const second = await newAgent(twin, 'c2');
    const name = `s-${randomUUID()}`;
    expect((await failure(service.as(ADMIN).apply({ name, agents: { values: [twin] } }))).message).toContain('c1, c2');
    const { stack } = await service.as(ADMIN).apply({ name, agents: { values: [`${twin}/c2`] } });
    expect(await db.query('select agent_id from agent_target where stack_id = $1', [stack?.id])).toEqual([
      { agent_id: second.id },
    ]);
  });

  it('takes an admin assignment as consent, and refuses a generator without registration', async () => {
    const agent = await newAgent(undefined, 'c1', 'registered');
    const [generator] = await db.query<{ id: string }>('insert into generator (name) values ($1) returning id', [
      `g-${randomUUID()}`,
    ]);
    const generatorId = generator?.id ?? '';
    const request = { name: `s-${randomUUID()}`, yamlContent: configMap('a'), agents: { values: [agent.id] } };
    expect((await failure(service.as(generatorKey(generatorId)).apply(request))).code).toBe('agent_not_registered');
    expect(await service.as(ADMIN).apply({ ...request, generatorId })).toMatchObject({ result: 'created', targetedAgents: 1 });
    expect(await service.as(generatorKey(generatorId)).apply(request)).toMatchObject({ result: 'unchanged', targetedAgents: 1 });
  });

  it('lets parallel applies of a new stack agree on one', async () => {
    const name = `s-${randomUUID()}`;
    const answers = await Promise.all(
      Array.from({ length: 6 }, () => service.as(ADMIN).apply({ name, yamlContent: configMap('a') })),
    );
    expect(new Set(answers.map(({ stack }) => stack?.id)).size).toBe(1);
    expect(answers.map(({ result }) => result).sort()).toEqual(['created', ...Array.from({ length: 5 }, () => 'unchanged')]);
  });
});
