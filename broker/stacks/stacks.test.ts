import { randomUUID } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { createYamlPool, type YamlPool } from '#lib/yaml-pool.ts';
import { DeletionPolicy } from '#proto/brokkr/v1/content_pb.js';
import { ADMIN, agentKey, configMap, failure, generatorKey, type TestService, testService } from '../../test/broker-stacks.ts';
import { testDatabase } from '../../test/postgres.ts';
import type { Database } from '../database.ts';
import { StackEntity } from './entities.ts';

let db: Database;
let yaml: YamlPool;
let service: TestService;
let own: string;
let other: string;

beforeAll(async () => {
  const database = await testDatabase();
  db = await database.open({}, { entities: [StackEntity] });
  yaml = createYamlPool({ maxThreads: 1 });
  service = testService({ db, yaml });
  [own, other] = [await newGenerator(), await newGenerator()];
  return () => yaml[Symbol.asyncDispose]();
});

async function newGenerator(): Promise<string> {
  const [row] = await db.query<{ id: string }>('insert into generator (name) values ($1) returning id', [`g-${randomUUID()}`]);
  return row?.id ?? '';
}

async function newStack(generatorId: string): Promise<string> {
  const { stack } = await service.as(ADMIN).createStack({ name: `s-${randomUUID()}`, generatorId });
  return stack?.id ?? '';
}

describe('creating', () => {
  it('gives what an admin creates to admin-generator, and what a generator creates to itself', async () => {
    const byAdmin = await service.as(ADMIN).createStack({ name: `s-${randomUUID()}`, description: 'first' });
    const [owner] = await db.query('select name from generator where id = $1', [byAdmin.stack?.generatorId]);
    expect(owner).toEqual({ name: 'admin-generator' });
    expect(byAdmin.stack).toMatchObject({
      description: 'first',
      generation: 0n,
      options: { deletionPolicy: DeletionPolicy.DELETE },
    });
    const byGenerator = await service.as(generatorKey(own)).createStack({ name: `s-${randomUUID()}` });
    expect(byGenerator.stack?.generatorId).toBe(own);
    const audits = await db.query('select actor_type, actor_id, action from audit_log where resource_id = $1', [
      byGenerator.stack?.id,
    ]);
    expect(audits).toEqual([{ actor_type: 'generator', actor_id: own, action: 'stack.created' }]);
  });

  it('keeps names apart by generator', async () => {
    const name = `s-${randomUUID()}`;
    await service.as(generatorKey(own)).createStack({ name });
    await service.as(generatorKey(other)).createStack({ name });
    const again = await failure(service.as(generatorKey(own)).createStack({ name }));
    expect(again).toMatchObject({ code: 'unique_violation', details: { constraint: 'stack_name_key' } });
    const found = await service.as(generatorKey(other)).findStack({ name });
    expect(found.stack?.generatorId).toBe(other);
    expect((await failure(service.as(ADMIN).findStack({ name }))).code).toBe('invalid_request');
    expect((await service.as(ADMIN).findStack({ name, generatorId: own })).stack?.generatorId).toBe(own);
  });

  it('refuses other owners, unknown owners and bad options', async () => {
    const name = `s-${randomUUID()}`;
    expect((await failure(service.as(generatorKey(own)).createStack({ name, generatorId: other }))).code).toBe(
      'stack_generator_mismatch',
    );
    expect((await failure(service.as(ADMIN).createStack({ name, generatorId: randomUUID() }))).code).toBe(
      'foreign_key_violation',
    );
    expect((await failure(service.as(ADMIN).createStack({ name: ' ' }))).code).toBe('invalid_stack');
    expect((await failure(service.as(ADMIN).createStack({ name, options: { impersonate: 'nobody' } }))).code).toBe(
      'invalid_stack',
    );
  });
});

describe('access', () => {
  it('tells strange stacks and missing ones apart', async () => {
    const id = await newStack(other);
    const missing = randomUUID();
    const client = service.as(generatorKey(own));
    const calls = [
      (stackId: string) => client.getStack({ id: stackId }),
      (stackId: string) => client.updateStack({ id: stackId, stack: { name: 'x' } }),
      (stackId: string) => client.deleteStack({ id: stackId }),
      (stackId: string) => client.listDeploymentObjects({ stackId }),
      (stackId: string) => client.createDeploymentObject({ stackId, yamlContent: configMap('a') }),
      (stackId: string) => client.listStackLabels({ stackId }),
      (stackId: string) => client.addStackLabel({ stackId, label: 'a' }),
      (stackId: string) => client.removeStackLabel({ stackId, label: 'a' }),
      (stackId: string) => client.addStackAnnotation({ stackId, key: 'a', value: 'b' }),
      (stackId: string) => client.removeStackAnnotation({ stackId, key: 'a' }),
      (stackId: string) => client.getStackStatus({ stackId }),
      (stackId: string) => client.getStackHistory({ stackId }),
    ];
    for (const call of calls) {
      expect((await failure(call(id))).code, call.toString()).toBe('stack_not_owned');
      expect((await failure(call(missing))).code, call.toString()).toBe('stack_not_found');
    }
    const { deploymentObject } = await service.as(ADMIN).createDeploymentObject({ stackId: id, yamlContent: configMap('a') });
    expect((await failure(client.getDeploymentObject({ id: deploymentObject?.id ?? '' }))).code).toBe('generator_not_associated');
    expect((await failure(client.listStacks({ generatorId: other }))).code).toBe('stacks_list_denied');
  });

  it('shows an agent the rules and content of assigned stacks only', async () => {
    const [agent] = await db.query<{ id: string }>(`insert into agent (name, cluster_name) values ($1, 'c') returning id`, [
      `a-${randomUUID()}`,
    ]);
    const agentId = agent?.id ?? '';
    const id = await newStack(own);
    const { deploymentObject } = await service.as(ADMIN).createDeploymentObject({ stackId: id, yamlContent: configMap('a') });
    const client = service.as(agentKey(agentId));
    const object = { id: deploymentObject?.id ?? '' };
    expect((await failure(client.listStackLabels({ stackId: id }))).code).toBe('stack_not_accessible');
    expect((await failure(client.getDeploymentObject(object))).code).toBe('agent_not_associated');
    await db.query('insert into agent_target (agent_id, stack_id) values ($1, $2)', [agentId, id]);
    expect((await client.listStackLabels({ stackId: id })).labels).toEqual([]);
    expect((await client.getDeploymentObject(object)).deploymentObject?.id).toBe(object.id);
    expect((await failure(client.getStack({ id }))).code).toBe('forbidden');
  });

  it('lists a generator its own stacks in pages, newest first', async () => {
    const generator = await newGenerator();
    const ids = [await newStack(generator), await newStack(generator), await newStack(generator)].reverse();
    const client = service.as(generatorKey(generator));
    expect((await client.listStacks({})).stacks.map(({ id }) => id)).toEqual(ids);
    const first = await client.listStacks({ limit: 2 });
    const second = await client.listStacks({ limit: 2, pageToken: first.nextPageToken });
    expect([...first.stacks, ...second.stacks].map(({ id }) => id)).toEqual(ids);
    expect(second.nextPageToken).toBe('');
    await service.as(ADMIN).addStackLabel({ stackId: ids[1] ?? '', label: 'blue' });
    const blue = await service.as(ADMIN).listStacks({ generatorId: generator, label: 'blue' });
    expect(blue.stacks.map(({ id }) => id)).toEqual([ids[1]]);
  });
});

describe('updating', () => {
  it('changes what the mask names and nothing else', async () => {
    const id = await newStack(own);
    const name = `renamed-${randomUUID()}`;
    const named = await service
      .as(ADMIN)
      .updateStack({ id, stack: { name, description: 'ignored' }, updateMask: { paths: ['name'] } });
    expect(named.stack).toMatchObject({ name, generation: 0n });
    expect(named.stack?.description).toBeUndefined();
    const described = await service
      .as(ADMIN)
      .updateStack({ id, stack: { description: 'd' }, updateMask: { paths: ['description'] } });
    expect(described.stack).toMatchObject({ name, description: 'd' });
    const cleared = await service.as(ADMIN).updateStack({ id, stack: {}, updateMask: { paths: ['description'] } });
    expect(cleared.stack?.description).toBeUndefined();
  });

  it('raises the generation when options change, and only then', async () => {
    const id = await newStack(own);
    const orphan = { options: { deletionPolicy: DeletionPolicy.ORPHAN } };
    const first = await service.as(ADMIN).updateStack({ id, stack: orphan, updateMask: { paths: ['options'] } });
    expect(first.stack).toMatchObject({ generation: 1n, options: { deletionPolicy: DeletionPolicy.ORPHAN } });
    const again = await service.as(ADMIN).updateStack({ id, stack: orphan, updateMask: { paths: ['options'] } });
    expect(again.stack).toEqual(first.stack);
    const paused = await service
      .as(ADMIN)
      .updateStack({ id, stack: { options: { paused: true } }, updateMask: { paths: ['options.paused'] } });
    expect(paused.stack).toMatchObject({ generation: 2n, options: { deletionPolicy: DeletionPolicy.ORPHAN, paused: true } });
    const [row] = await db.query('select deletion_policy from stack where id = $1', [id]);
    expect(row).toEqual({ deletion_policy: 'orphan' });
    const { entries } = await service.as(ADMIN).getStackHistory({ stackId: id });
    expect(entries.map(({ cause }) => cause)).toEqual(['options', 'options']);
  });

  it('takes an approval for one head only', async () => {
    const id = await newStack(own);
    await service.as(ADMIN).createDeploymentObject({ stackId: id, yamlContent: configMap('a') });
    const approve = { id, stack: { options: { approveDeletes: 5 } }, updateMask: { paths: ['options.approve_deletes'] } };
    expect((await service.as(ADMIN).updateStack(approve)).stack).toMatchObject({
      generation: 2n,
      options: { approveDeletes: 5 },
    });
    await service.as(ADMIN).createDeploymentObject({ stackId: id, yamlContent: configMap('b') });
    expect((await service.as(ADMIN).getStack({ id })).stack).toMatchObject({ generation: 3n, options: { approveDeletes: 0 } });
  });

  it('accepts read-only fields as they were read and refuses changed ones', async () => {
    const id = await newStack(own);
    const { stack } = await service.as(ADMIN).getStack({ id });
    if (!stack) throw new Error('no stack');
    const updated = await service.as(ADMIN).updateStack({ id, stack: { ...stack, description: 'new' } });
    expect(updated.stack?.description).toBe('new');
    const error = await failure(service.as(ADMIN).updateStack({ id, stack: { ...stack, generatorId: other } }));
    expect(error).toMatchObject({ code: 'immutable_field', details: { field: 'generator_id' } });
    const moved = await failure(service.as(ADMIN).updateStack({ id, stack: { ...stack, id: randomUUID() } }));
    expect(moved.code).toBe('stack_id_mismatch');
  });

  it('refuses an edit of another version', async () => {
    const id = await newStack(own);
    let etag = '';
    await service.as(ADMIN).getStack({ id }, { onHeader: (headers) => (etag = headers.get('etag') ?? '') });
    const edit = { id, stack: { description: 'x' }, updateMask: { paths: ['description'] } };
    let next = '';
    await service
      .as(ADMIN)
      .updateStack(edit, { headers: { 'if-match': etag }, onHeader: (headers) => (next = headers.get('etag') ?? '') });
    expect(next).toMatch(/^"\d+"$/);
    expect(next).not.toBe(etag);
    const again = { id, stack: { description: 'y' }, updateMask: { paths: ['description'] } };
    expect((await failure(service.as(ADMIN).updateStack(again, { headers: { 'if-match': etag } }))).code).toBe(
      'precondition_failed',
    );
    expect((await failure(service.as(ADMIN).deleteStack({ id }, { headers: { 'if-match': etag } }))).code).toBe(
      'precondition_failed',
    );
  });
});

describe('deleting', () => {
  it('ends the stack in a deletion marker, tells the feed and frees the name', async () => {
    const id = await newStack(own);
    const { stack } = await service.as(ADMIN).getStack({ id });
    await service.as(ADMIN).createDeploymentObject({ stackId: id, yamlContent: configMap('a') });
    await service.as(generatorKey(own)).deleteStack({ id });
    expect((await failure(service.as(ADMIN).getStack({ id }))).code).toBe('stack_not_found');
    const objects = await db.query(
      'select is_deletion_marker, yaml_checksum, revision from deployment_object where stack_id = $1 order by revision',
      [id],
    );
    expect(objects[1]).toEqual({
      is_deletion_marker: true,
      yaml_checksum: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
      revision: '2',
    });
    const { entries } = await service.as(ADMIN).getStackHistory({ stackId: id });
    expect(entries.map(({ cause, generation }) => [cause, generation])).toEqual([
      ['deletion', 2n],
      ['content', 1n],
    ]);
    expect(await db.query('select kind from change_log where stack_id = $1', [id])).toHaveLength(2);
    await service.as(ADMIN).createStack({ name: stack?.name ?? '', generatorId: own });
  });
});

describe('labels and annotations', () => {
  it('are added once, listed and removed', async () => {
    const stackId = await newStack(own);
    const client = service.as(generatorKey(own));
    await client.addStackLabel({ stackId, label: 'prod' });
    expect((await failure(client.addStackLabel({ stackId, label: 'prod' }))).code).toBe('unique_violation');
    expect((await failure(client.addStackLabel({ stackId, label: 'two words' }))).code).toBe('invalid_label');
    expect((await client.listStackLabels({ stackId })).labels).toMatchObject([{ stackId, label: 'prod' }]);
    await client.removeStackLabel({ stackId, label: 'prod' });
    expect((await failure(client.removeStackLabel({ stackId, label: 'prod' }))).code).toBe('stack_label_not_found');
    await client.addStackAnnotation({ stackId, key: 'region', value: 'eu' });
    expect((await failure(client.addStackAnnotation({ stackId, key: 'region', value: 'us' }))).code).toBe('unique_violation');
    expect((await failure(client.addStackAnnotation({ stackId, key: 'zone', value: '' }))).code).toBe('invalid_annotation');
    expect((await client.listStackAnnotations({ stackId })).annotations).toMatchObject([{ key: 'region', value: 'eu' }]);
    await client.removeStackAnnotation({ stackId, key: 'region' });
    expect((await failure(client.removeStackAnnotation({ stackId, key: 'region' }))).code).toBe('stack_annotation_not_found');
    const actions = await db.query<{ action: string }>('select action from audit_log where resource_id = $1 order by timestamp', [
      stackId,
    ]);
    expect(actions.map(({ action }) => action)).toEqual([
      'stack.created',
      'stack.label_added',
      'stack.label_removed',
      'stack.annotation_added',
      'stack.annotation_removed',
    ]);
    expect(await db.query('select kind from change_log where stack_id = $1', [stackId])).toHaveLength(4);
  });
});
