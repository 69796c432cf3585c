import { beforeAll, describe, expect, it } from 'vitest';
import { createLog } from '#lib/log.ts';
import { createMetrics } from '#lib/metrics.ts';
import { Health, Phase } from '#proto/brokkr/v1/content_pb.js';
import { connectAgent, hello, type ScriptedAgent } from '../../test/agent-client.ts';
import { FakeClock } from '../../test/fake-clock.ts';
import { type InProcessBroker, startInProcessBroker } from '../../test/in-process-broker.ts';
import { YAML } from '../../test/webhook-rig.ts';
import { Fleet } from './fleet.ts';
import { declareFleetMetrics } from './metrics.ts';
import { countFleet } from './store.ts';

let broker: InProcessBroker;
beforeAll(async () => {
  broker = await startInProcessBroker();
});

const counted = () => countFleet(broker.db);
const report = (client: ScriptedAgent, item: object) => client.send({ case: 'status', value: { items: [item as never] } });

describe('the numbers of the fleet', () => {
  it('are those of the database: agents, stacks, how far they are and what waits', async () => {
    expect(await counted()).toMatchObject({ agents: {}, stacks: 0, stack_objects: 0, oldest_heartbeat: 0 });
    const [here] = [await broker.agent('here', ['x']), await broker.agent('never'), await broker.agent('gone', ['gone'])];
    const off = await broker.agent('off');
    await broker.api('PUT', `/api/v1/agents/${off.id}`, { status: 'INACTIVE' });
    const stack = await broker.publish('two', `${YAML}---\n${YAML.replace('name: a', 'name: b')}`, ['x']);
    using client = connectAgent(broker.url, here.pak);
    client.send(hello());
    const { manifestDigest } = await client.take('upsert');
    await expect.poll(counted).toMatchObject({
      agents: { connected: 1, never: 2, inactive: 1 },
      stacks: 1,
      stack_objects: 2,
      phases: { pending: 1 },
      backlog: { undelivered: { pairs: 1 }, unapplied: { pairs: 0, oldest: 0 } },
    });
    expect((await counted()).backlog.undelivered.oldest).toBeGreaterThan(0);

    const received = { stackId: stack.id, receivedGeneration: 1n, receivedManifestDigest: manifestDigest };
    report(client, { ...received, phase: Phase.FAILED });
    await expect.poll(counted).toMatchObject({
      phases: { failed: 1 },
      healths: { unknown: 1 },
      backlog: { undelivered: { pairs: 0 }, unapplied: { pairs: 1 } },
    });
    report(client, { ...received, appliedGeneration: 1n, phase: Phase.APPLIED, health: Health.HEALTHY });
    await expect.poll(counted).toMatchObject({
      phases: { applied: 1 },
      healths: { healthy: 1 },
      backlog: { undelivered: { pairs: 0, oldest: 0 }, unapplied: { pairs: 0, oldest: 0 } },
    });

    client[Symbol.dispose]();
    await expect.poll(counted).toMatchObject({ agents: { silent: 1, never: 2, inactive: 1 } });
    await broker.publish('two', YAML, ['x']);
    await expect.poll(counted).toMatchObject({ stack_objects: 1, backlog: { undelivered: { pairs: 1 } } });
    await broker.api('PUT', `/api/v1/agents/${here.id}`, { status: 'INACTIVE' });
    await expect.poll(counted).toMatchObject({ agents: { inactive: 2 }, backlog: { undelivered: { pairs: 0 } } });
  });

  it('leave out what a gate holds back', async () => {
    const agent = await broker.agent('gated', ['gated']);
    const stack = await broker.publish('gated', YAML, ['gated']);
    using client = connectAgent(broker.url, agent.pak);
    client.send(hello());
    const { manifestDigest } = await client.take('upsert');
    const state = { receivedGeneration: 1n, receivedManifestDigest: manifestDigest, appliedGeneration: 1n, phase: Phase.APPLIED };
    report(client, { stackId: stack.id, ...state });
    const waiting = async () => (await counted()).backlog.undelivered.pairs;
    await expect.poll(waiting).toBe(0);
    const held = { yaml_content: `${YAML}data: {held: "yes"}\n`, gate: { not_before: '2999-01-01T00:00:00Z' } };
    const answer = await broker.api('PUT', '/api/v1/stacks/by-name/gated/apply', held);
    expect(answer.status, JSON.stringify(answer.body)).toBe(200);
    expect(await waiting()).toBe(0);
  });

  it('are asked for at most every ten seconds, and less often when that takes long', async () => {
    const clock = new FakeClock();
    let asked = 0;
    const query = async (sql: string, parameters?: readonly unknown[]) => {
      asked++;
      await clock.advance(asked === 1 ? 0 : 2_000);
      return await broker.db.query(sql, parameters);
    };
    const fleet = new Fleet({ db: { ...broker.db, query: query as never }, clock, log: createLog('test', { level: 'fatal' }) });
    await Promise.all([fleet.counts(), fleet.counts()]);
    expect(asked).toBe(1);
    await clock.advance(9_000);
    await fleet.counts();
    expect(asked).toBe(1);
    await clock.advance(1_000);
    await fleet.counts();
    expect(asked).toBe(2); // and this one took two seconds
    await clock.advance(39_000);
    await fleet.counts();
    expect(asked).toBe(2);
    await clock.advance(1_000);
    await fleet.counts();
    expect(asked).toBe(3);
  });

  it('are absent, and the page is not late, while the database does not answer', async () => {
    const clock = new FakeClock();
    const silent = { ...broker.db, query: () => new Promise<never>(() => undefined) };
    const fleet = new Fleet({ db: silent, clock, log: createLog('test', { level: 'fatal' }) });
    const metrics = createMetrics({ processMetrics: false });
    declareFleetMetrics(metrics, () => fleet.counts());
    const text = metrics.text();
    await clock.advance(3_000);
    expect(await text).toContain('brokkr_database_up 0');
    expect(await text).not.toMatch(/^brokkr_(stacks|active_agents|agents|delivery_backlog)/m);
  });
});
