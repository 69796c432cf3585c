import { beforeAll, describe, expect, it } from 'vitest';
import { Health, Phase } from '#proto/brokkr/v1/content_pb.js';
import { connectAgent, hello } from '../../test/agent-client.ts';
import { type InProcessBroker, startInProcessBroker } from '../../test/in-process-broker.ts';

let broker: InProcessBroker;

beforeAll(async () => {
  broker = await startInProcessBroker();
});

const yaml = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n';

async function connected(agent: { readonly pak: string }) {
  const client = connectAgent(broker.url, agent.pak);
  client.send(hello());
  const upsert = await client.take('upsert');
  await client.take('snapshotEnd');
  return { client, upsert };
}

async function command(stackId: string, name: string, body: object = {}): Promise<void> {
  const { status, body: answer } = await broker.api('POST', `/api/v1/stacks/${stackId}/${name}`, body);
  expect(status, JSON.stringify(answer)).toBe(200);
}

describe('a stack that is paused on one agent', () => {
  it('is told to that agent at once with other options at the same generation, and to no other', async () => {
    const [here, there] = [await broker.agent('here', ['both']), await broker.agent('there', ['both'])];
    const stack = await broker.publish('halt', yaml, ['both']);
    const [one, two] = [await connected(here), await connected(there)];
    using _ = two.client;
    await command(stack.id, 'pause', { agent_id: here.id });
    const paused = await one.client.take('upsert');
    expect(paused).toMatchObject({ generation: 1n, options: { paused: true } });
    expect(Buffer.from(paused.optionsDigest).equals(one.upsert.optionsDigest)).toBe(false);
    expect(Buffer.from(paused.manifestDigest).equals(one.upsert.manifestDigest)).toBe(true);

    await broker.publish('halt', `${yaml}data: {key: b}\n`);
    expect(await two.client.take('upsert')).toMatchObject({ generation: 2n, options: { paused: false } }); // nothing before it
    expect(await one.client.take('upsert')).toMatchObject({ generation: 2n, options: { paused: true } });

    one.client[Symbol.dispose]();
    using again = connectAgent(broker.url, here.pak);
    again.send(hello());
    expect(await again.take('upsert')).toMatchObject({ generation: 2n, options: { paused: true } });
    const { rootDigest } = await again.take('snapshotEnd');
    expect(Buffer.from(rootDigest).equals(Buffer.from(again.held.root()))).toBe(true);
    await command(stack.id, 'resume', { agent_id: here.id });
    expect(await again.take('upsert')).toMatchObject({ generation: 2n, options: { paused: false } });
  });
});

describe('what an agent went back from and to', () => {
  it('is stored with what waits for approval, and makes the good generation a place to go back to', async () => {
    const agent = await broker.agent('back', ['back']);
    const stack = await broker.publish('back', yaml, ['back']);
    const { client } = await connected(agent);
    using _ = client;
    const report = (item: object) => client.send({ case: 'status', value: { items: [{ stackId: stack.id, ...item }] } });
    const status = async () => {
      const { body } = await broker.api<{ agents: Record<string, unknown>[] }>('GET', `/api/v1/stacks/${stack.id}/status`);
      return body.agents[0];
    };
    const applied = { appliedGeneration: 1n, goodGeneration: 1n, health: Health.HEALTHY };
    report({ receivedGeneration: 1n, ...applied, phase: Phase.APPLIED });
    await expect.poll(status).toMatchObject({ good_generation: 1, refused_generation: 0, phase: 'applied' });
    await broker.publish('back', `${yaml}data: {key: b}\n`);
    report({ receivedGeneration: 2n, ...applied, refusedGeneration: 2n, awaitingApproval: 3, phase: Phase.ROLLED_BACK });
    await expect.poll(status).toMatchObject({
      ...{ good_generation: 1, refused_generation: 2, awaiting_approval: 3, phase: 'rolled_back', paused: false },
    });
    report({ receivedGeneration: 2n, appliedGeneration: 2n, goodGeneration: 2n, health: Health.HEALTHY, phase: Phase.APPLIED });
    await expect.poll(status).toMatchObject({ good_generation: 2, refused_generation: 0 });
    const { body } = await broker.api('POST', `/api/v1/stacks/${stack.id}/rollback`, {});
    expect(body).toMatchObject({ from_generation: 1, stack: { generation: 3 } });
  });
});
