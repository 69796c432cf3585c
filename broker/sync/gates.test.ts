import { beforeAll, describe, expect, it } from 'vitest';
import { Phase } from '#proto/brokkr/v1/content_pb.js';
import { SyncMode } from '#proto/brokkr/v1/sync_pb.js';
import { connectAgent, hello, type ScriptedAgent } from '../../test/agent-client.ts';
import { type InProcessBroker, startInProcessBroker } from '../../test/in-process-broker.ts';

let broker: InProcessBroker;
let serial = 0;
const unique = (prefix: string) => `${prefix}-${++serial}`;
const config = (value: string) => `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {key: "${value}"}\n`;
const TOMORROW = { not_before: '2999-01-01T00:00:00Z' };

beforeAll(async () => {
  broker = await startInProcessBroker();
});

interface Applied {
  readonly stack: { readonly id: string; readonly generation: number };
  readonly result: string;
  readonly targeted_agents: number;
}

async function apply(stack: string, body: object): Promise<Applied> {
  const answer = await broker.api<Applied>('PUT', `/api/v1/stacks/by-name/${stack}/apply`, body);
  expect(answer.status, JSON.stringify(answer.body)).toBe(200);
  return answer.body;
}

async function standing(stackId: string, agentId: string) {
  const { body } = await broker.api<{ agents: Record<string, unknown>[] }>('GET', `/api/v1/stacks/${stackId}/status`);
  return body.agents.find(({ agent_id }) => agent_id === agentId);
}

async function explained(stackId: string, agentId: string) {
  const path = `/api/v1/targets/explain?stack_id=${stackId}&agent_id=${agentId}`;
  return (await broker.api<Record<string, unknown>[]>('GET', path)).body[0];
}

/** A connected agent that reports each stack it is told as received. */
async function connected(agent: { readonly pak: string }, resume?: ScriptedAgent) {
  const client = connectAgent(broker.url, agent.pak);
  const held = resume && { resume: { rootDigest: resume.held.root(), entries: resume.held.size } };
  client.send(hello({ ...held, processId: unique('process') }));
  const welcome = await client.take('welcome');
  const received = async () => {
    const upsert = await client.take('upsert');
    const { stackId, generation: receivedGeneration, manifestDigest: receivedManifestDigest } = upsert;
    const status = { stackId, receivedGeneration, receivedManifestDigest, phase: Phase.RECEIVED };
    client.send({ case: 'status', value: { items: [status] } });
    await eventually(async () => (await receivedGenerations(stackId)).includes(receivedGeneration));
    return upsert;
  };
  return Object.assign(client, { mode: welcome.mode, received });
}

async function receivedGenerations(stackId: string): Promise<bigint[]> {
  const rows = await broker.db.query<{ received_generation: string }>(
    'select received_generation from delivery where stack_id = $1',
    [stackId],
  );
  return rows.map((row) => BigInt(row.received_generation));
}

async function eventually(holds: () => Promise<boolean>): Promise<void> {
  const until = performance.now() + 20_000;
  while (!(await holds())) {
    if (performance.now() > until) throw new Error('it did not come to pass');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** As time would: the gate of the newest generation closes, and the broker notices. */
async function close(stackId: string): Promise<void> {
  await broker.db.query(
    `update stack_generation g set not_before = '2999-01-01' from stack s where s.id = $1 and g.stack_id = s.id and g.generation = s.generation`,
    [stackId],
  );
  await broker.db.query('update stack set gated = true, open_until = now() where id = $1', [stackId]);
  await broker.db.query(`insert into change_log (kind, stack_id) values ('stack', $1)`, [stackId]);
  await broker.db.notify('change', '');
  await eventually(async () => {
    const [row] = await broker.db.query<{ open: boolean }>('select open_until > now() as open from stack where id = $1', [
      stackId,
    ]);
    return row?.open === true;
  });
}

/** Resolves when the change feed has been worked off: a stack for this agent, published after everything before, has come. */
async function settled(client: ScriptedAgent, label: string): Promise<void> {
  const { stack } = await apply(unique('marker'), { yaml_content: config('m'), labels: { values: [label] } });
  while ((await client.take('upsert')).stackId !== stack.id);
}

/** Generation of the next frame about the stack. */
async function next(client: ScriptedAgent, stackId: string): Promise<bigint> {
  for (;;) {
    const upsert = await client.take('upsert');
    if (upsert.stackId === stackId) return upsert.generation;
  }
}

async function newAgent() {
  const label = unique('label');
  return { ...(await broker.agent(unique('agent'), [label])), label };
}

describe('a publication with a gate', () => {
  it('is held until its time has come, and reaches a connected agent then', async () => {
    const agent = await newAgent();
    const name = unique('stack');
    const { stack } = await apply(name, { yaml_content: config('1'), labels: { values: [agent.label] } });
    using client = await connected(agent);
    expect(await client.received()).toMatchObject({ generation: 1n });
    const opens = new Date(Date.now() + 4000).toISOString();
    expect(await apply(name, { yaml_content: config('2'), gate: { not_before: opens } })).toMatchObject({ targeted_agents: 1 });
    expect(await standing(stack.id, agent.id)).toMatchObject({ desired_generation: 1, held_generation: 2, held_until: opens });
    expect(await explained(stack.id, agent.id)).toMatchObject({
      assigned: true,
      generation: 1,
      held_generation: 2,
      held_until: opens,
      connected: true,
      consent: 'the agent takes stacks of every generator',
    });
    expect(await client.take('upsert')).toMatchObject({ stackId: stack.id, generation: 2n });
    expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(opens));
    expect(await standing(stack.id, agent.id)).toMatchObject({ desired_generation: 2, held_generation: null, held_until: null });
  });

  it('gives an agent that has nothing the newest generation with an open gate, and nothing while there is none', async () => {
    const agent = await newAgent();
    const [name, other] = [unique('stack'), unique('stack')];
    const { stack } = await apply(name, { yaml_content: config('1'), labels: { values: [agent.label] } });
    const window = { days: [], start: '00:00', duration_minutes: 1440, time_zone: 'Asia/Tokyo' };
    await apply(name, { yaml_content: config('2'), gate: { windows: [window] } });
    await apply(name, { yaml_content: config('3'), gate: TOMORROW });
    const { stack: shut } = await apply(other, { yaml_content: config('1'), labels: { values: [agent.label] }, gate: TOMORROW });
    using client = await connected(agent);
    expect(await client.received()).toMatchObject({ stackId: stack.id, generation: 2n });
    await client.take('snapshotEnd');
    expect(await standing(shut.id, agent.id)).toMatchObject({
      desired_generation: 0,
      held_generation: 1,
      held_until: TOMORROW.not_before,
    });
    expect(await explained(shut.id, agent.id)).toMatchObject({
      assigned: false,
      generation: 0,
      withheld: 'generation 1 is held until 2999-01-01T00:00:00.000Z, and there is no earlier one that may be delivered',
    });
    await apply(other, { gate: {} });
    expect(await client.take('upsert')).toMatchObject({ stackId: shut.id, generation: 2n });
  });

  it('is released at once by publishing the same content without a gate, and stays held by a repetition', async () => {
    const agent = await newAgent();
    const name = unique('stack');
    const { stack } = await apply(name, { yaml_content: config('1'), labels: { values: [agent.label] } });
    await apply(name, { yaml_content: config('2'), gate: TOMORROW });
    expect(await apply(name, { yaml_content: config('2') })).toMatchObject({ result: 'unchanged', stack: { generation: 2 } });
    expect(await apply(name, { yaml_content: config('2'), gate: TOMORROW })).toMatchObject({ result: 'unchanged' });
    using client = await connected(agent);
    expect(await client.received()).toMatchObject({ generation: 1n });
    expect(await apply(name, { yaml_content: config('2'), gate: {} })).toMatchObject({
      result: 'updated',
      stack: { generation: 3 },
    });
    expect(await client.take('upsert')).toMatchObject({ stackId: stack.id, generation: 3n });
    const { body } = await broker.api<{ cause: string; gate: unknown }[]>('GET', `/api/v1/stacks/${stack.id}/history`);
    expect(body.map(({ cause, gate }) => [cause, gate])).toEqual([
      ['gate', null],
      ['content', { not_before: TOMORROW.not_before, windows: [] }],
      ['content', null],
    ]);
  });

  it('lets changed options through to agents that have its content, and holds them with the content from others', async () => {
    const [early, late] = [await newAgent(), await newAgent()];
    const name = unique('stack');
    const labels = { values: [early.label, late.label] };
    const { stack } = await apply(name, { yaml_content: config('1'), labels });
    using behind = await connected(late);
    await behind.received();
    await apply(name, { yaml_content: config('2'), labels: { values: [early.label] } }); // the other one is left out for now
    using ahead = await connected(early);
    expect(await ahead.received()).toMatchObject({ generation: 2n });
    await close(stack.id);
    await apply(name, { options: { paused: true }, labels });
    expect(await ahead.take('upsert')).toMatchObject({ stackId: stack.id, generation: 3n, options: { paused: true } });
    expect(await standing(stack.id, early.id)).toMatchObject({ desired_generation: 3, held_generation: null });
    expect(await standing(stack.id, late.id)).toMatchObject({ held_generation: 3, held_until: '2999-01-01T00:00:00Z' });
  });

  it('is refused without content and in a time zone that does not exist', async () => {
    const path = `/api/v1/stacks/by-name/${unique('stack')}/apply`;
    const empty = await broker.api('PUT', path, { gate: TOMORROW });
    expect(empty).toMatchObject({
      status: 400,
      body: { code: 'invalid_stack', message: 'gate: the stack has no content to hold back' },
    });
    const window = { start: '02:00', duration_minutes: 60, time_zone: 'Mars/Base' };
    const mars = await broker.api('PUT', path, { yaml_content: config('1'), gate: { windows: [window] } });
    expect(mars).toMatchObject({ status: 400, body: { code: 'invalid_stack', details: { field: 'gate.windows[0].time_zone' } } });
    const late = await broker.api('PUT', path, { yaml_content: config('1'), gate: { windows: [{ ...window, start: '24:00' }] } });
    expect(late).toMatchObject({
      status: 400,
      body: { code: 'invalid_stack', message: expect.stringContaining('gate.windows[0].start') },
    });
  });
});

describe('a gate that closes', () => {
  async function deliveredTwo() {
    const agent = await newAgent();
    const name = unique('stack');
    const { stack } = await apply(name, { yaml_content: config('1'), labels: { values: [agent.label] } });
    await apply(name, { yaml_content: config('2') });
    return { agent, name, stack };
  }

  it('leaves an agent what it has received, in its session and when it comes back', async () => {
    const { agent, stack } = await deliveredTwo();
    using client = await connected(agent);
    expect(await client.received()).toMatchObject({ generation: 2n });
    await close(stack.id);
    await settled(client, agent.label);
    using again = await connected(agent, client);
    expect(again.mode).toBe(SyncMode.UP_TO_DATE);
    expect(await standing(stack.id, agent.id)).toMatchObject({ desired_generation: 2, held_generation: null });
  });

  it('takes nothing back that was told and is not reported as received yet, and it is the agent that knows later', async () => {
    const { agent, stack } = await deliveredTwo();
    using client = await connected(agent);
    expect(await client.take('upsert')).toMatchObject({ generation: 2n });
    await close(stack.id);
    await settled(client, agent.label);
    expect(await receivedGenerations(stack.id)).toEqual([0n]);
    expect(await standing(stack.id, agent.id)).toMatchObject({ desired_generation: 1, held_generation: 2 }); // as far as the rows know
    using again = await connected(agent, client); // its report was lost on the way
    expect(again.mode).toBe(SyncMode.BUCKETS);
    await again.take('buckets');
    const digest = client.held.get(stack.id) ?? new Uint8Array();
    const buckets = Array.from({ length: 256 }, (_, at) => at);
    again.send({ case: 'bucketEntries', value: { buckets, entries: [{ stackId: stack.id, generation: 2n, digest }] } });
    expect(await next(again, stack.id)).toBe(2n); // and not 1 before it
    expect(await receivedGenerations(stack.id)).toEqual([2n]);
    expect(await standing(stack.id, agent.id)).toMatchObject({ desired_generation: 2, held_generation: null });
  });

  it('makes an agent that was away wait for the next time, with what it had', async () => {
    const agent = await newAgent();
    const name = unique('stack');
    const { stack } = await apply(name, { yaml_content: config('1'), labels: { values: [agent.label] } });
    const before = await connected(agent);
    await before.received();
    before[Symbol.dispose]();
    await apply(name, { yaml_content: config('2') });
    await close(stack.id);
    using back = await connected(agent, before);
    expect(back.mode).toBe(SyncMode.UP_TO_DATE);
    expect(await standing(stack.id, agent.id)).toMatchObject({ desired_generation: 1, held_generation: 2 });
  });

  it('does not make a tombstone of what was told and not received, and lets a removal go on', async () => {
    const agent = await newAgent();
    const { stack } = await apply(unique('stack'), { yaml_content: config('1'), labels: { values: [agent.label] } });
    const first = await connected(agent);
    await first.take('upsert'); // and never reported
    first[Symbol.dispose]();
    await close(stack.id);
    using client = await connected(agent);
    await settled(client, agent.label);
    expect(client.waiting.filter(({ body }) => body.case === 'tombstone' || body.case === 'absent')).toEqual([]);
    await broker.api('DELETE', `/api/v1/stacks/${stack.id}/labels/${agent.label}`);
    expect(await client.take('tombstone')).toMatchObject({ stackId: stack.id });
    await broker.api('POST', `/api/v1/stacks/${stack.id}/labels`, agent.label); // while it is being removed
    using later = await connected(agent);
    expect(await later.take('tombstone')).toMatchObject({ stackId: stack.id });
  });

  it('counts as received what an agent without sessions has sent an event about', async () => {
    const { agent, stack } = await deliveredTwo();
    const state = async () =>
      (
        await broker.api<{ id: string; revision: number }[]>(
          'GET',
          `/api/v1/agents/${agent.id}/target-state?mode=full`,
          undefined,
          { authorization: agent.pak },
        )
      ).body;
    const [object] = await state();
    expect(object?.revision).toBe(2);
    await close(stack.id);
    expect((await state()).map(({ revision }) => revision)).toEqual([1]);
    const event = { agent_id: agent.id, deployment_object_id: object?.id, event_type: 'APPLY', status: 'SUCCESS' };
    expect((await broker.api('POST', `/api/v1/agents/${agent.id}/events`, event, { authorization: agent.pak })).status).toBe(201);
    expect((await state()).map(({ revision }) => revision)).toEqual([2]);
  });
});

describe('a selector', () => {
  const version = (least: string) => ({
    term: { source: 'capability', key: 'kubernetes_version', operator: 'gte', values: [least] },
  });
  const label = (key: string) => ({ term: { source: 'label', key, operator: 'exists' } });

  it('reaches and leaves connected agents at once: when it changes, when labels change, when the agent learns', async () => {
    const agent = await newAgent();
    using client = connectAgent(broker.url, agent.pak);
    client.send(hello({ facts: { kubernetesVersion: 'v1.29.4', capabilities: { region: 'eu' } } }));
    await client.take('welcome');
    const name = unique('stack');
    const selector = {
      all: [version('1.30'), label(agent.label), { term: { source: 'label', operator: 'not_in', values: ['edge'] } }],
    };
    const { stack, targeted_agents } = await apply(name, { yaml_content: config('1'), selector });
    expect(targeted_agents).toBe(0);
    expect(await explained(stack.id, agent.id)).toMatchObject({
      assigned: false,
      nearly: [{ method: 'selector', detail: 'selector wants kubernetes_version >= 1.30, agent has kubernetes_version=v1.29.4' }],
    });
    client.send({ case: 'ping', value: { facts: { kubernetesVersion: 'v1.30.1', capabilities: { region: 'eu' } } } });
    expect(await client.take('upsert')).toMatchObject({ stackId: stack.id });
    expect(await explained(stack.id, agent.id)).toMatchObject({
      assigned: true,
      matched: [
        { method: 'selector', detail: `selector: kubernetes_version >= 1.30 and label ${agent.label} and not label edge` },
      ],
    });
    await broker.api('POST', `/api/v1/agents/${agent.id}/labels`, { agent_id: agent.id, label: 'edge' });
    expect(await client.take('tombstone')).toMatchObject({ stackId: stack.id, approved: false });
    await apply(name, {
      selector: { any: [{ term: { source: 'capability', key: 'region', operator: 'in', values: ['eu', 'us'] } }] },
    });
    expect(await client.take('upsert')).toMatchObject({ stackId: stack.id });
    expect((await broker.api('PUT', `/api/v1/stacks/${stack.id}`, { selector: null })).body).toMatchObject({ selector: null });
    expect(await client.take('tombstone')).toMatchObject({ stackId: stack.id });
    const shown = (await broker.api<{ capabilities: unknown }>('GET', `/api/v1/agents/${agent.id}`)).body;
    expect(shown.capabilities).toEqual({ region: 'eu' });
  });

  it('is kept as written, left alone by requests that name none, and audited', async () => {
    const name = unique('stack');
    const selector = {
      all: [],
      any: [],
      term: { source: 'label', key: 'a', operator: 'exists', values: [] },
      every_agent: false,
      no_agent: false,
    };
    const created = await broker.api<{ id: string; selector: unknown }>('POST', '/api/v1/stacks', { name, selector });
    expect(created.body.selector).toEqual(selector);
    const { id } = created.body;
    expect((await broker.api('PUT', `/api/v1/stacks/${id}`, { description: 'x' })).body).toMatchObject({ selector });
    expect((await apply(name, { yaml_content: config('1') })).result).toBe('updated');
    expect((await apply(name, { selector })).result).toBe('unchanged');
    expect((await apply(name, { selector: { no_agent: true } })).result).toBe('updated');
    expect((await broker.api('GET', `/api/v1/stacks/${id}`)).body).toMatchObject({ selector: null });
    const audits = await broker.db.query(
      `select details from audit_log where resource_id = $1 and action = 'stack.selector_changed'`,
      [id],
    );
    expect(audits).toHaveLength(2);
    const wrong = await broker.api('PUT', `/api/v1/stacks/${id}`, { selector: { all: [{}] } });
    expect(wrong).toMatchObject({ status: 400, body: { code: 'invalid_stack', details: { field: 'selector.all[0]' } } });
  });

  it('nested without end is refused like any other mistake', async () => {
    const deep = `${'{"all":['.repeat(50_000)}{}${']}'.repeat(50_000)}`;
    const answer = await broker.api('PUT', `/api/v1/stacks/by-name/${unique('deep')}/apply`, `{"selector":${deep}}`, {
      'content-type': 'application/json',
    });
    expect(answer).toMatchObject({
      status: 400,
      body: { code: 'invalid_request', message: 'the body is nested deeper than 100 levels' },
    });
    const connect = await broker.api('POST', '/brokkr.v1.StackService/Apply', `{"name":"deep","selector":${deep}}`, {
      'content-type': 'application/json',
    });
    expect(connect.status).toBe(400);
  });
});
