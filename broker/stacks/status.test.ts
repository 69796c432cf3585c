import { randomUUID } from 'node:crypto';
import { create, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { beforeAll, describe, expect, it } from 'vitest';
import { Wakeup } from '#lib/signal.ts';
import { createYamlPool, type YamlPool } from '#lib/yaml-pool.ts';
import { Health, Phase } from '#proto/brokkr/v1/content_pb.js';
import { StackStatusSchema } from '#proto/brokkr/v1/sync_pb.js';
import { ADMIN, configMap, failure, type TestService, testService } from '../../test/broker-stacks.ts';
import { testDatabase } from '../../test/postgres.ts';
import type { Database } from '../database.ts';
import { StackEntity } from './entities.ts';

let db: Database;
let yaml: YamlPool;
let service: TestService;
const wakeup = new Wakeup();

beforeAll(async () => {
  const database = await testDatabase();
  db = await database.open({}, { entities: [StackEntity] });
  yaml = createYamlPool({ maxThreads: 1 });
  service = testService({ db, yaml, statusChanges: { wait: (_stackId, signal) => wakeup.wait(signal) } });
  return () => yaml[Symbol.asyncDispose]();
});

async function newAgent(): Promise<string> {
  const [row] = await db.query<{ id: string }>(`insert into agent (name, cluster_name) values ($1, 'c') returning id`, [
    `a-${randomUUID()}`,
  ]);
  return row?.id ?? '';
}

async function published(agentIds: readonly string[]): Promise<string> {
  const { stack } = await service
    .as(ADMIN)
    .apply({ name: `s-${randomUUID()}`, yamlContent: configMap('a'), agents: { values: [...agentIds] } });
  return stack?.id ?? '';
}

async function deliver(agentId: string, stackId: string, columns: Record<string, unknown>): Promise<void> {
  const all: Record<string, unknown> = { agent_id: agentId, stack_id: stackId, desired: 'entry', generation: 1, ...columns };
  const names = Object.keys(all);
  await db.query(
    `insert into delivery (${names.join(', ')}) values (${names.map((_, i) => `$${i + 1}`).join(', ')})
     on conflict (agent_id, stack_id) do update set ${names.map((name) => `${name} = excluded.${name}`).join(', ')}`,
    Object.values(all),
  );
}

describe('status', () => {
  it('shows an agent that was not told yet as pending', async () => {
    const agentId = await newAgent();
    const stackId = await published([agentId]);
    const { agents } = await service.as(ADMIN).getStackStatus({ stackId });
    expect(agents).toMatchObject([
      { agentId, connected: false, desiredGeneration: 1n, appliedGeneration: 0n, phase: Phase.PENDING, health: Health.UNKNOWN },
    ]);
    expect(agents[0]?.publishedAt).toBeDefined();
  });

  it('shows what the agent reported, until a newer generation waits for it', async () => {
    const agentId = await newAgent();
    const stackId = await published([agentId]);
    const objects = toBinary(
      StackStatusSchema,
      create(StackStatusSchema, { objects: [{ kind: 'ConfigMap', name: 'a', state: 'not_ready' }] }),
    );
    await deliver(agentId, stackId, {
      received_generation: 1,
      applied_generation: 1,
      phase: 'applied',
      health: 'degraded',
      message: 'on the way',
      objects,
      objects_total: 1,
      applied_at: 'now',
    });
    await db.query('insert into agent_session (agent_id, epoch, connected_at) values ($1, 1, now())', [agentId]);
    const before = await service.as(ADMIN).getStackStatus({ stackId });
    expect(before.agents).toMatchObject([
      {
        connected: true,
        appliedGeneration: 1n,
        phase: Phase.APPLIED,
        health: Health.DEGRADED,
        message: 'on the way',
        objectsTotal: 1,
        objects: [{ name: 'a', state: 'not_ready' }],
      },
    ]);
    expect(before.agents[0]?.appliedAt).toBeDefined();
    await service.as(ADMIN).createDeploymentObject({ stackId, yamlContent: configMap('b') });
    const after = await service.as(ADMIN).getStackStatus({ stackId });
    expect(after.agents).toMatchObject([{ desiredGeneration: 2n, receivedGeneration: 1n, phase: Phase.PENDING }]);
  });

  it('shows a deleted stack until every agent has removed it', async () => {
    const agentId = await newAgent();
    const stackId = await published([agentId]);
    await deliver(agentId, stackId, { received_generation: 1, applied_generation: 1, phase: 'applied', health: 'healthy' });
    await service.as(ADMIN).deleteStack({ id: stackId });
    await deliver(agentId, stackId, { desired: 'tombstone', phase: 'pruning' });
    const { stack, agents } = await service.as(ADMIN).getStackStatus({ stackId });
    expect(stack?.deletedAt).toBeDefined();
    expect(agents).toMatchObject([{ desiredGeneration: 0n, phase: Phase.PRUNING }]);
    await db.query('delete from delivery where stack_id = $1', [stackId]);
    expect((await failure(service.as(ADMIN).getStackStatus({ stackId }))).code).toBe('stack_not_found');
  });

  it('is watched from now on, at each change, and until the deleted stack is gone', async () => {
    const agentId = await newAgent();
    const stackId = await published([agentId]);
    const seen: (Phase | undefined)[] = [];
    for await (const { status } of service.as(ADMIN).watchStackStatus({ stackId })) {
      seen.push(status?.agents[0]?.phase);
      if (seen.length === 1) await deliver(agentId, stackId, { received_generation: 1, phase: 'applying' });
      if (seen.length === 2) await deliver(agentId, stackId, { received_generation: 1, applied_generation: 1, phase: 'applied' });
      if (seen.length === 3) {
        await service.as(ADMIN).deleteStack({ id: stackId });
        await db.query('delete from delivery where stack_id = $1', [stackId]);
      }
      wakeup.wake();
    }
    expect(seen).toEqual([Phase.PENDING, Phase.APPLYING, Phase.APPLIED]);
  });

  it('ends a watch when the caller hangs up', async () => {
    const stackId = await published([]);
    const stop = new AbortController();
    const watch = (async () => {
      for await (const _ of service.as(ADMIN).watchStackStatus({ stackId }, { signal: stop.signal })) stop.abort();
    })();
    await expect(watch).rejects.toMatchObject({ rawMessage: expect.stringMatching(/abort/) });
  });
});

describe('history', () => {
  it('tells the head of any moment', async () => {
    const agentId = await newAgent();
    const stackId = await published([agentId]);
    await service.as(ADMIN).createDeploymentObject({ stackId, yamlContent: configMap('b') });
    await deliver(agentId, stackId, { applied_generation: 2 });
    const all = await service.as(ADMIN).getStackHistory({ stackId });
    expect(all.entries).toMatchObject([
      { generation: 2n, revision: 2n, appliedAgents: 1 },
      { generation: 1n, revision: 1n, appliedAgents: 0 },
    ]);
    for (const entry of all.entries) {
      const at = await service.as(ADMIN).getStackHistory({ stackId, ...(entry.createdAt && { at: entry.createdAt }) });
      expect(at.entries.map(({ generation }) => generation)).toEqual([entry.generation]);
    }
    expect((await service.as(ADMIN).getStackHistory({ stackId, at: timestampFromMs(0) })).entries).toEqual([]);
    const first = await service.as(ADMIN).getStackHistory({ stackId, limit: 1 });
    const second = await service.as(ADMIN).getStackHistory({ stackId, limit: 1, pageToken: first.nextPageToken });
    expect([...first.entries, ...second.entries].map(({ generation }) => generation)).toEqual([2n, 1n]);
  });
});

describe('health', () => {
  it('is the worst of what the agents say', async () => {
    const agents = [await newAgent(), await newAgent(), await newAgent()];
    const stackId = await published(agents);
    const { stack } = await service.as(ADMIN).getStack({ id: stackId });
    const id = stack?.deploymentObjectId ?? '';
    expect((await service.as(ADMIN).getStackHealth({ stackId })).overallStatus).toBe(Health.UNKNOWN);
    for (const [index, status] of ['healthy', 'degraded', 'failing'].entries()) {
      await db.query(
        `insert into deployment_health (agent_id, deployment_object_id, status, summary, checked_at) values ($1, $2, $3, '{}', now())`,
        [agents[index], id, status],
      );
    }
    expect(await service.as(ADMIN).getStackHealth({ stackId })).toMatchObject({
      overallStatus: Health.FAILING,
      deploymentObjects: [{ id, status: Health.FAILING, healthyAgents: 1, degradedAgents: 1, failingAgents: 1 }],
    });
    const object = await service.as(ADMIN).getDeploymentObjectHealth({ id });
    expect(object).toMatchObject({ deploymentObjectId: id, overallStatus: Health.FAILING });
    expect(object.healthRecords).toHaveLength(3);
  });
});
