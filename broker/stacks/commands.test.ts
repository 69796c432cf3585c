import { randomUUID } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { createYamlPool, type YamlPool } from '#lib/yaml-pool.ts';
import { DriftMode } from '#proto/brokkr/v1/content_pb.js';
import { ADMIN, configMap, failure, type TestService, testService } from '../../test/broker-stacks.ts';
import { testDatabase } from '../../test/postgres.ts';
import type { Database } from '../database.ts';
import { collectBlobs } from '../maintenance/store.ts';
import { mayFetch } from '../sync/head-store.ts';
import { Heads } from '../sync/heads.ts';
import { listAssigned } from '../targeting/store.ts';
import { createBlobStore } from './blobs.ts';
import { StackEntity } from './entities.ts';
import { pausedOptions } from './options.ts';

let db: Database;
let yaml: YamlPool;
let service: TestService;

beforeAll(async () => {
  const database = await testDatabase();
  db = await database.open({}, { entities: [StackEntity] });
  yaml = createYamlPool({ maxThreads: 1 });
  service = testService({ db, yaml });
  return () => yaml[Symbol.asyncDispose]();
});

const api = () => service.as(ADMIN);

async function newAgent(): Promise<string> {
  const [row] = await db.query<{ id: string }>(`insert into agent (name, cluster_name) values ($1, 'c') returning id`, [
    `a-${randomUUID()}`,
  ]);
  return row?.id ?? '';
}

/** A stack with one generation for each value, for these agents. */
async function published(agentIds: readonly string[], ...values: readonly string[]): Promise<{ id: string; name: string }> {
  const name = `s-${randomUUID()}`;
  const [first = 'one', ...rest] = values;
  const { stack } = await api().apply({ name, yamlContent: configMap('a', first), agents: { values: [...agentIds] } });
  const id = stack?.id ?? '';
  for (const value of rest) await api().createDeploymentObject({ stackId: id, yamlContent: configMap('a', value) });
  for (const agentId of agentIds) {
    await db.query(`insert into delivery (agent_id, stack_id, desired, generation) values ($1, $2, 'entry', 1)`, [agentId, id]);
  }
  return { id, name };
}

async function report(agentId: string, stackId: string, goodGeneration: number): Promise<void> {
  await db.query('update delivery set good_generation = $3 where agent_id = $1 and stack_id = $2', [
    agentId,
    stackId,
    goodGeneration,
  ]);
}

async function healthy(agentId: string, stackId: string, generation: number, status = 'healthy'): Promise<void> {
  await db.query(
    `insert into deployment_health (agent_id, deployment_object_id, status, checked_at)
     select $1, deployment_object_id, $4, now() from stack_generation where stack_id = $2 and generation = $3`,
    [agentId, stackId, generation, status],
  );
}

const history = async (stackId: string) => (await api().getStackHistory({ stackId })).entries;
const audits = async (stackId: string) =>
  (await db.query<{ action: string }>('select action from audit_log where resource_id = $1 order by timestamp', [stackId])).map(
    ({ action }) => action,
  );

describe('rollback', () => {
  it('to a generation makes its content and options the head again, without its approval, and is audited', async () => {
    const { id, name } = await published([], 'one');
    await api().apply({ name, yamlContent: configMap('a', 'two'), options: { drift: DriftMode.DETECT, approveDeletes: 9 } });
    await api().apply({ name, yamlContent: configMap('a', 'three'), options: { drift: DriftMode.OFF } });
    const { stack, fromGeneration } = await api().rollbackStack({ id, to: { case: 'generation', value: 2n } });
    const [head, , former] = await history(id);
    expect(fromGeneration).toBe(2n);
    expect(stack).toMatchObject({ generation: 4n, deploymentObjectId: former?.deploymentObjectId });
    expect(stack?.options).toMatchObject({ drift: DriftMode.DETECT, approveDeletes: 0 });
    expect(head).toMatchObject({ generation: 4n, cause: 'rollback', revision: 2n, actor: 'admin' });
    expect(await audits(id)).toContain('stack.rolled_back');
    const [changes] = await db.query<{ count: number }>('select count(*)::integer from change_log where stack_id = $1', [id]);
    expect(changes?.count).toBe(4);
  });

  it('to a revision takes the options that it had last', async () => {
    const { id, name } = await published([], 'one', 'two');
    await api().rollbackStack({ id, to: { case: 'revision', value: 1n } });
    await api().apply({ name, options: { drift: DriftMode.OFF } });
    await api().createDeploymentObject({ stackId: id, yamlContent: configMap('a', 'three') });
    const { stack, fromGeneration } = await api().rollbackStack({ id, to: { case: 'revision', value: 1n } });
    expect(fromGeneration).toBe(4n);
    expect(stack?.options?.drift).toBe(DriftMode.OFF);
    expect((await history(id)).map(({ revision }) => revision)).toEqual([1n, 3n, 1n, 1n, 2n, 1n]);
  });

  it('without one named goes to the last that was good on every agent that knows a good one', async () => {
    const [first, second, fresh] = [await newAgent(), await newAgent(), await newAgent()];
    const { id } = await published([first, second, fresh], 'one', 'two', 'three', 'four');
    expect((await failure(api().rollbackStack({ id }))).code).toBe('no_good_generation');
    await report(first, id, 3);
    await report(second, id, 2);
    await healthy(first, id, 2, 'degraded');
    expect((await failure(api().rollbackStack({ id }))).code).toBe('no_good_generation');
    await db.query(`update deployment_health set status = 'healthy' where agent_id = $1`, [first]);
    expect(await api().rollbackStack({ id })).toMatchObject({ fromGeneration: 2n, stack: { generation: 5n } });
  });

  it('does not take a generation for another that is the same as the head', async () => {
    const agentId = await newAgent();
    const { id } = await published([agentId], 'one', 'two');
    await api().retryStack({ id });
    await healthy(agentId, id, 1);
    await report(agentId, id, 2);
    expect((await api().rollbackStack({ id })).fromGeneration).toBe(1n);
  });

  it('keeps a paused stack paused', async () => {
    const { id } = await published([], 'one', 'two');
    await api().pauseStack({ id });
    const { stack } = await api().rollbackStack({ id, to: { case: 'generation', value: 1n } });
    expect(stack?.options?.paused).toBe(true);
  });

  it('refuses what is not there, and changes nothing on a dry run', async () => {
    const { id } = await published([], 'one', 'two');
    for (const to of [
      { case: 'generation', value: 9n },
      { case: 'revision', value: 9n },
    ] as const)
      expect(await failure(api().rollbackStack({ id, to }))).toMatchObject({
        code: 'generation_not_found',
        message: expect.stringContaining(`no ${to.case} 9`),
      });
    expect((await failure(api().rollbackStack({ id: randomUUID() }))).code).toBe('stack_not_found');
    const dry = await api().rollbackStack({ id, to: { case: 'generation', value: 1n }, dryRun: true });
    expect(dry.stack?.generation).toBe(3n);
    expect(await history(id)).toHaveLength(2);
  });

  it('is done once for one idempotency key, and refused for another version than asked for', async () => {
    const { id } = await published([], 'one', 'two');
    const headers = { 'idempotency-key': randomUUID() };
    const request = { id, to: { case: 'generation', value: 1n } } as const;
    const answers = [await api().rollbackStack(request, { headers }), await api().rollbackStack(request, { headers })];
    expect(answers.map(({ stack }) => stack?.generation)).toEqual([3n, 3n]);
    const stale = api().rollbackStack(request, { headers: { 'if-match': '"1"' } });
    expect((await failure(stale)).code).toBe('precondition_failed');
  });

  it('leaves agents the content of what they may go back to, and collects none of it as garbage', async () => {
    const agentId = await newAgent();
    const { id } = await published([agentId], 'one', 'two', 'three');
    await db.query(
      'update delivery set received_generation = 3, applied_generation = 3, good_generation = 1 where stack_id = $1',
      [id],
    );
    expect(await mayFetch(db, agentId, id, 1n)).toBe(true);
    expect(await mayFetch(db, agentId, id, 2n)).toBe(false);
    await db.query(`update blob set touched_at = now() - interval '2 days'`);
    await collectBlobs(db);
    const blobs = createBlobStore();
    const head = await new Heads({ db, blobs }).find(id, 1n);
    const [entry] = head?.manifest.entries ?? [];
    expect((await blobs.read(db, entry ? [entry.sourceDigest] : [])).size).toBe(1);
  });
});

describe('retry', () => {
  it('makes the same head again, as often as it is asked for', async () => {
    const { id } = await published([], 'one');
    await api().retryStack({ id });
    const { stack } = await api().retryStack({ id });
    const entries = await history(id);
    expect(stack?.generation).toBe(3n);
    expect(entries.map(({ cause }) => cause)).toEqual(['retry', 'retry', 'content']);
    expect(new Set(entries.map(({ deploymentObjectId }) => deploymentObjectId)).size).toBe(1);
    expect(await audits(id)).toContain('stack.retried');
  });

  it('needs content', async () => {
    const { stack } = await api().createStack({ name: `s-${randomUUID()}` });
    expect((await failure(api().retryStack({ id: stack?.id ?? '' }))).code).toBe('generation_not_found');
  });
});

describe('pause', () => {
  it('of a stack makes a head, once, and resume another', async () => {
    const { id } = await published([], 'one');
    expect((await api().pauseStack({ id })).stack).toMatchObject({ generation: 2n, options: { paused: true } });
    expect((await api().pauseStack({ id })).stack?.generation).toBe(2n);
    expect((await api().resumeStack({ id })).stack).toMatchObject({ generation: 3n, options: { paused: false } });
    expect((await history(id)).map(({ cause }) => cause)).toEqual(['resume', 'pause', 'content']);
    expect((await audits(id)).slice(-2)).toEqual(['stack.paused', 'stack.resumed']);
  });

  it('on one agent leaves the head and the other agents alone, and is in the status', async () => {
    const [here, there] = [await newAgent(), await newAgent()];
    const { id } = await published([here, there], 'one');
    const { stack } = await api().pauseStack({ id, agentId: here });
    await api().pauseStack({ id, agentId: here });
    expect(stack?.generation).toBe(1n);
    const assigned = new Map((await listAssigned(db, { stackIds: [id], acceptance: 'all' })).map((row) => [row.agent_id, row]));
    expect(assigned.get(there)?.paused_options).toBeNull();
    expect(assigned.get(here)?.paused_options).not.toBeNull();
    const paused = async () =>
      new Map((await api().getStackStatus({ stackId: id })).agents.map((agent) => [agent.agentId, agent.paused]));
    expect(await paused()).toEqual(
      new Map([
        [here, true],
        [there, false],
      ]),
    );
    expect((await audits(id)).filter((action) => action === 'stack.paused')).toHaveLength(1);
    await api().resumeStack({ id, agentId: here });
    await api().resumeStack({ id, agentId: here });
    expect([...(await paused()).values()]).toEqual([false, false]);
    expect((await failure(api().pauseStack({ id, agentId: randomUUID() }))).code).toBe('agent_not_found');
  });

  it('on one agent has frames and digests of its own', async () => {
    const agentId = await newAgent();
    const { id } = await published([agentId], 'one');
    const heads = new Heads({ db, blobs: createBlobStore() });
    const head = await heads.find(id, 1n);
    if (!head) throw new Error('no head');
    const frames = [
      await heads.frame(head, { base: undefined, paused: false }),
      await heads.frame(head, { base: undefined, paused: true }),
      await heads.frame(head, { base: undefined, paused: false }),
    ];
    expect(frames[0]).toBe(frames[2]);
    const digest = Buffer.from(pausedOptions(head.row.options).digest);
    expect(digest.equals(head.row.options_digest)).toBe(false);
    expect(frames.map((frame) => Buffer.from(frame ?? []).includes(digest))).toEqual([false, true, false]);
    expect(frames.map((frame) => Buffer.from(frame ?? []).includes(head.row.options_digest))).toEqual([true, false, true]);
  });
});
