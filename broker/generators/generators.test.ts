import { randomUUID } from 'node:crypto';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { Client } from '@connectrpc/connect';
import { beforeAll, describe, expect, it } from 'vitest';
import { hashPak } from '#lib/pak.ts';
import { AgentService } from '#proto/brokkr/v1/agents_pb.js';
import { GeneratorService } from '#proto/brokkr/v1/generators_pb.js';
import { testDatabase } from '../../test/postgres.ts';
import { AgentEntity } from '../agents/entities.ts';
import { agentService } from '../agents/rpc.ts';
import { admin, agentPrincipal, generatorPrincipal, openRig, plantStack, type Rig, refusal } from '../agents/test/rpc.ts';
import { findKeyByHash } from '../keys/store.ts';
import { GeneratorEntity } from './entities.ts';
import { generatorService } from './rpc.ts';

let rig: Rig;
let generators: Client<typeof GeneratorService>;
let agents: Client<typeof AgentService>;
let system: string;
let count = 0;

beforeAll(async () => {
  const db = await (await testDatabase()).open({}, { entities: [AgentEntity, GeneratorEntity] });
  rig = openRig(db, (router, pipeline) => {
    router.service(GeneratorService, generatorService(pipeline));
    router.service(AgentService, agentService(pipeline, { acceptance: 'registered', heartbeatIntervalMs: 20_000 }));
  });
  generators = rig.as(GeneratorService, admin);
  agents = rig.as(AgentService, admin);
  system = (await db.query<{ id: string }>('select id from generator where is_system'))[0]!.id;
});

const newGenerator = async () => {
  const { generator, pak } = await generators.createGenerator({ name: `g${++count}` });
  return { generator: generator!, id: generator!.id, pak, self: rig.as(GeneratorService, generatorPrincipal(generator!.id)) };
};
const newAgent = async () => {
  const id = (await agents.createAgent({ name: `a${++count}`, clusterName: 'c' })).agent!.id;
  return { id, self: rig.as(GeneratorService, agentPrincipal(id)) };
};
const actions = async (resourceId: string) =>
  (
    await rig.db.query<{ action: string }>('select action from audit_log where resource_id = $1 order by timestamp, action', [
      resourceId,
    ])
  ).map((row) => row.action);

describe('a generator', () => {
  it('is created with a key that works', async () => {
    const { generator, pak } = await generators.createGenerator({ name: 'ci', description: 'builds' });
    expect(generator).toMatchObject({ name: 'ci', description: 'builds', isActive: true, isSystem: false });
    expect(await findKeyByHash(rig.db, hashPak(pak)!)).toMatchObject({ role: 'generator', generator_id: generator!.id });
    expect(await refusal(generators.createGenerator({ name: 'ci' }))).toMatchObject({
      code: 'unique_violation',
      details: { constraint: 'generator_name_key' },
    });
    expect(await actions(generator!.id)).toEqual(['generator.created']);
    expect((await generators.createGenerator({ name: 'tried', dryRun: true })).pak).toBe('');
    expect(await rig.db.query(`select from generator where name = 'tried'`)).toHaveLength(0);
  });

  it('is listed without the system one, and read by itself or an admin', async () => {
    const { id, self } = await newGenerator();
    const listed = (await generators.listGenerators({})).generators.map((item) => item.id);
    expect(listed[0]).toBe(id);
    expect(listed).not.toContain(system);
    expect((await self.getGenerator({ id })).generator?.id).toBe(id);
    expect((await refusal(self.getGenerator({ id: system }))).code).toBe('generator_not_owned');
    expect((await refusal(self.listGenerators({}))).code).toBe('admin_required');
    expect((await refusal(generators.getGenerator({ id: randomUUID() }))).code).toBe('generator_not_found');
  });

  it('changes name, description and activity as the mask says', async () => {
    const { id, self, generator } = await newGenerator();
    const update = async (paths: string[], change: object, headers = {}) =>
      (await self.updateGenerator({ id, generator: { ...generator, ...change }, updateMask: { paths } }, { headers })).generator!;
    expect(await update(['name', 'description'], { name: 'renamed', description: 'text' })).toMatchObject({
      name: 'renamed',
      description: 'text',
    });
    expect((await update(['description'], { name: 'ignored' })).description).toBeUndefined();
    const all = ['id', 'name', 'is_active', 'is_system', 'created_at', 'updated_at', 'deleted_at', 'last_active_at'];
    expect((await update(all, { name: 'again' })).name).toBe('again');
    expect((await refusal(update(['name'], { name: 'late' }, { 'if-match': '"1"' }))).code).toBe('precondition_failed');
    expect((await refusal(update(['name'], { name: ' ' }))).code).toBe('invalid_generator');
    expect(await actions(id)).toEqual(['generator.created', 'generator.updated', 'generator.updated', 'generator.updated']);
    expect((await generators.updateGenerator({ id, generator: { name: 'plain', isActive: true } })).generator?.name).toBe(
      'plain',
    );
  });

  it('keeps what is not its to change', async () => {
    const { id, self, generator } = await newGenerator();
    const changes = { id: randomUUID(), isSystem: true, createdAt: undefined, deletedAt: timestampFromMs(1000) };
    const paths = { id: 'id', isSystem: 'is_system', createdAt: 'created_at', deletedAt: 'deleted_at' } as const;
    for (const field of Object.keys(paths) as (keyof typeof paths)[]) {
      const call = self.updateGenerator({
        id,
        generator: { ...generator, [field]: changes[field] },
        updateMask: { paths: [paths[field]] },
      });
      expect(await refusal(call)).toMatchObject({ code: 'immutable_field', details: { field: paths[field] } });
    }
    expect((await refusal(self.updateGenerator({ id, generator, updateMask: { paths: ['nonsense'] } }))).code).toBe(
      'invalid_generator',
    );
    expect((await refusal(generators.updateGenerator({ id: system, generator: { name: 'mine', isActive: true } }))).code).toBe(
      'immutable_field',
    );
  });

  it('loses its keys while it is not active', async () => {
    const { id, pak } = await newGenerator();
    await generators.updateGenerator({ id, generator: { isActive: false }, updateMask: { paths: ['is_active'] } });
    expect(await findKeyByHash(rig.db, hashPak(pak)!)).toBeUndefined();
    await generators.updateGenerator({ id, generator: { isActive: true }, updateMask: { paths: ['is_active'] } });
    expect(await findKeyByHash(rig.db, hashPak(pak)!)).toBeDefined();
  });

  it('is deleted with its stacks and keys; built-in ones stay', async () => {
    const { id, pak, self } = await newGenerator();
    const stacks = [
      await plantStack(rig.db, { generatorId: id, name: 'x' }),
      await plantStack(rig.db, { generatorId: id, name: 'y' }),
    ];
    await self.deleteGenerator({ id });
    expect((await refusal(generators.getGenerator({ id }))).code).toBe('generator_not_found');
    expect(await findKeyByHash(rig.db, hashPak(pak)!)).toBeUndefined();
    for (const stack of stacks) {
      expect(await rig.db.query('select generation from stack where id = $1 and deleted_at is not null', [stack.id])).toEqual([
        { generation: '2' },
      ]);
      expect(await rig.db.query(`select from change_log where stack_id = $1 and kind = 'stack'`, [stack.id])).toHaveLength(1);
      expect(await actions(stack.id)).toEqual(['stack.deleted']);
    }
    const [adminGenerator] = await rig.db.query<{ id: string }>(`select id from generator where name = 'admin-generator'`);
    for (const builtIn of [system, adminGenerator!.id]) {
      expect((await refusal(generators.deleteGenerator({ id: builtIn }))).code).toBe('cannot_delete_system_generator');
    }
    const other = await newGenerator();
    expect((await refusal(other.self.deleteGenerator({ id: system }))).code).toBe('generator_not_owned');
  });

  it('rotates its key', async () => {
    const { id, pak, self } = await newGenerator();
    const rotated = await self.rotateGeneratorPak({ id });
    expect(await findKeyByHash(rig.db, hashPak(pak)!)).toBeUndefined();
    expect(await findKeyByHash(rig.db, hashPak(rotated.pak)!)).toMatchObject({ generator_id: id });
    expect((await refusal(generators.rotateGeneratorPak({ id: randomUUID() }))).code).toBe('generator_not_found');
  });
});

describe('registration', () => {
  it('is the agent’s own, or an admin’s who names it', async () => {
    const { id } = await newGenerator();
    const agent = await newAgent();
    const other = await newAgent();
    expect((await agent.self.registerAgent({ id })).registration).toMatchObject({ agentId: agent.id, generatorId: id });
    expect((await refusal(agent.self.registerAgent({ id, agentId: agent.id }))).code).toBe('already_registered');
    expect((await refusal(agent.self.registerAgent({ id, agentId: other.id }))).code).toBe('forbidden');
    expect((await refusal(generators.registerAgent({ id }))).code).toBe('missing_agent_id');
    expect((await refusal(generators.registerAgent({ id, agentId: randomUUID() }))).code).toBe('agent_not_found');
    expect((await refusal(generators.registerAgent({ id: randomUUID(), agentId: other.id }))).code).toBe('generator_not_found');
    await generators.registerAgent({ id, agentId: other.id });
    expect((await actions(other.id)).at(-1)).toBe('agent.registered');
  });

  it('is taken back with the direct assignments of that generator’s stacks', async () => {
    const one = await newGenerator();
    const two = await newGenerator();
    const agent = await newAgent();
    for (const generator of [one, two]) {
      await agents.addAgentTarget({
        agentId: agent.id,
        stackId: (await plantStack(rig.db, { generatorId: generator.id, name: 's' })).id,
      });
    }
    await agent.self.deregisterAgent({ id: one.id });
    expect((await agents.listAgentTargets({ agentId: agent.id })).targets).toHaveLength(1);
    expect((await refusal(agent.self.deregisterAgent({ id: one.id }))).code).toBe('registration_not_found');
    expect((await actions(agent.id)).at(-1)).toBe('agent.deregistered');
  });

  it('is listed for the generator itself and admins', async () => {
    const { id, self } = await newGenerator();
    const agent = await newAgent();
    await agent.self.registerAgent({ id });
    expect((await self.listRegisteredAgents({ id })).registrations.map(({ agentId }) => agentId)).toEqual([agent.id]);
    expect((await refusal((await newGenerator()).self.listRegisteredAgents({ id }))).code).toBe('not_authorized');
    expect((await refusal(generators.listRegisteredAgents({ id: system }))).code).toBe('system_generator_not_a_tenant');
    await agents.deleteAgent({ id: agent.id });
    expect((await generators.listRegisteredAgents({ id })).registrations).toEqual([]);
  });
});
