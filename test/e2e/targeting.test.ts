import { beforeAll, describe, expect, it } from 'vitest';
import { type InProcessBroker, startInProcessBroker } from '../in-process-broker.ts';
import { rowCounts } from './rows.ts';

let broker: InProcessBroker;
let serial = 0;
const unique = (prefix: string) => `${prefix}-${++serial}`;
const YAML = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n';

interface Explanation {
  readonly stack_name: string;
  readonly assigned: boolean;
  readonly matched: readonly { readonly method: string; readonly detail: string }[];
  readonly nearly: readonly { readonly method: string; readonly detail: string }[];
  readonly withheld: string;
}

beforeAll(async () => {
  broker = await startInProcessBroker();
});

async function done(method: string, path: string, body?: unknown): Promise<void> {
  const { status, body: answer } = await broker.api(method, `/api/v1${path}`, body);
  expect(status, `${method} ${path}: ${JSON.stringify(answer)}`).toBeLessThan(300);
}

/** Names of the stacks the agent is handed, sorted. */
async function state(agent: { readonly id: string; readonly pak: string }): Promise<string[]> {
  const objects = await broker.api<{ stack_id: string }[]>(
    'GET',
    `/api/v1/agents/${agent.id}/target-state?mode=full`,
    undefined,
    { authorization: agent.pak },
  );
  const stacks = await broker.api<{ id: string; name: string }[]>('GET', `/api/v1/agents/${agent.id}/stacks`);
  const names = new Map(stacks.body.map(({ id, name }) => [id, name]));
  return objects.body.map(({ stack_id }) => names.get(stack_id) ?? stack_id).sort();
}

async function explain(agentId: string, stackId: string): Promise<Explanation> {
  const { body } = await broker.api<Explanation[]>('GET', `/api/v1/targets/explain?agent_id=${agentId}&stack_id=${stackId}`);
  return body[0] as Explanation;
}

describe('a stack reaches an agent', () => {
  // C-040, C-028, C-029
  it('by direct assignment, until it is taken back', async () => {
    const [one, two] = [await broker.agent(unique('a')), await broker.agent(unique('a'))];
    const names = [unique('s'), unique('s')].sort();
    const stacks = [];
    for (const name of names) stacks.push(await broker.publish(name, YAML));
    for (const agent of [one, two])
      for (const stack of stacks) await done('POST', `/agents/${agent.id}/targets`, { agent_id: agent.id, stack_id: stack.id });
    expect(await state(one)).toEqual(names);
    expect(await state(two)).toEqual(names);
    await done('DELETE', `/agents/${one.id}/targets/${stacks[0]?.id}`);
    expect(await state(one)).toEqual(names.slice(1));
    expect(await state(two)).toEqual(names);
  });

  // C-041
  it('by a label both have, as soon as the agent gets it and until it loses it', async () => {
    const agent = await broker.agent(unique('a'));
    const [label, name] = [unique('label'), unique('s')];
    await broker.publish(name, YAML, [label, 'and-another']);
    expect(await state(agent)).toEqual([]);
    await done('POST', `/agents/${agent.id}/labels`, { agent_id: agent.id, label });
    expect(await state(agent)).toEqual([name]);
    await done('DELETE', `/agents/${agent.id}/labels/${label}`);
    expect(await state(agent)).toEqual([]);
  });

  // C-043: any shared pair of key and value is enough; the key alone is not
  it.each([
    [{ region: 'eu' }, { region: 'eu' }, true],
    [{ region: 'eu' }, { region: 'us' }, false],
    [{ region: 'eu' }, { zone: 'eu' }, false],
    [{ region: 'eu', tier: 'gold' }, { region: 'eu', tier: 'iron' }, true],
    [{ region: 'eu' }, {}, false],
    [{ region: 'eu' }, { region: 'EU' }, false],
  ])('by annotation: stack %j and agent %j: %s', async (wanted, present, reached) => {
    const agent = await broker.agent(unique('a'));
    const name = unique('s');
    const tag = (pairs: object) => Object.entries(pairs).map(([key, value]) => [`${key}-${serial}`, value] as [string, string]);
    const [ours, theirs] = [tag(wanted), tag(present)];
    const stack = await broker.publish(name, YAML);
    for (const [key, value] of ours) await done('POST', `/stacks/${stack.id}/annotations`, { stack_id: stack.id, key, value });
    for (const [key, value] of theirs) await done('POST', `/agents/${agent.id}/annotations`, { agent_id: agent.id, key, value });
    expect(await state(agent)).toEqual(reached ? [name] : []);
  });

  // C-044
  it('once, whatever the number of rules, and the explanation names each of them', async () => {
    const label = unique('label');
    const agent = await broker.agent(unique('a'), [label]);
    const name = unique('s');
    const stack = await broker.publish(name, YAML, [label]);
    await done('POST', `/stacks/${stack.id}/annotations`, { stack_id: stack.id, key: 'region', value: label });
    await done('POST', `/agents/${agent.id}/annotations`, { agent_id: agent.id, key: 'region', value: label });
    await done('POST', `/agents/${agent.id}/targets`, { agent_id: agent.id, stack_id: stack.id });
    expect(await state(agent)).toEqual([name]);
    const { assigned, matched, withheld } = await explain(agent.id, stack.id);
    expect({ assigned, withheld }).toEqual({ assigned: true, withheld: '' });
    expect(matched.map(({ method }) => method).sort()).toEqual(['annotation', 'direct', 'label']);
    expect(matched.map(({ detail }) => detail).join('; ')).toContain(label);
    await done('DELETE', `/agents/${agent.id}/targets/${stack.id}`);
    await done('DELETE', `/agents/${agent.id}/labels/${label}`);
    expect(await state(agent)).toEqual([name]);
  });

  // C-044
  it('not, and the explanation names the rule that nearly did', async () => {
    const agent = await broker.agent(unique('a'), ['producton']);
    const stack = await broker.publish(unique('s'), YAML, ['production']);
    const { assigned, matched, nearly } = await explain(agent.id, stack.id);
    expect({ assigned, matched }).toEqual({ assigned: false, matched: [] });
    expect(nearly).toEqual([expect.objectContaining({ method: 'label', detail: expect.stringContaining('producton') })]);
  });

  it('not while the agent is INACTIVE, and the explanation says so', async () => {
    const label = unique('label');
    const agent = await broker.agent(unique('a'), [label]);
    const stack = await broker.publish(unique('s'), YAML, [label]);
    await done('PUT', `/agents/${agent.id}`, { status: 'INACTIVE' });
    expect(await explain(agent.id, stack.id)).toMatchObject({
      assigned: false,
      matched: [{ method: 'label' }],
      withheld: 'the agent is INACTIVE',
    });
    const refused = await broker.api('GET', `/api/v1/agents/${agent.id}/target-state`, undefined, { authorization: agent.pak });
    expect(refused).toMatchObject({ status: 403, body: { code: 'agent_inactive' } });
  });
});

describe('all prod agents get all prod stacks', () => {
  // C-042
  it('50 by 50, without a row for any pair', { timeout: 120_000 }, async () => {
    const before = await rowCounts(broker.db);
    const label = unique('prod');
    const agents = [];
    for (let index = 0; index < 50; index++) agents.push(await broker.agent(unique('m'), [label]));
    const names: string[] = [];
    for (let index = 0; index < 50; index++) {
      names.push(unique('m'));
      await broker.publish(names.at(-1) ?? '', YAML, [label]);
    }
    for (const agent of agents) expect(await state(agent)).toEqual([...names].sort());
    const after = await rowCounts(broker.db);
    expect(after.agent_target).toBe(before.agent_target);
    expect((after.agent_label ?? 0) - (before.agent_label ?? 0)).toBe(50);
    expect((after.stack_label ?? 0) - (before.stack_label ?? 0)).toBe(50);
  });
});

describe('agent_acceptance=registered', () => {
  it('hands an agent nothing of generators it is not registered with', async () => {
    const strict = await startInProcessBroker({ env: { BROKKR__BROKER__AGENT_ACCEPTANCE: 'registered' } });
    const generator = (
      await strict.api<{ generator: { id: string }; pak: string }>('POST', '/api/v1/generators', { name: 'team' })
    ).body;
    const agent = await strict.agent('edge', ['prod']);
    const published = await strict.api<{ stack: { id: string }; targeted_agents: number }>(
      'PUT',
      '/api/v1/stacks/by-name/web/apply?label=prod',
      YAML,
      { 'content-type': 'text/yaml', authorization: generator.pak },
    );
    expect(published.body.targeted_agents).toBe(0);
    const handed = async () =>
      (await strict.api<unknown[]>('GET', `/api/v1/agents/${agent.id}/target-state`, undefined, { authorization: agent.pak }))
        .body;
    expect(await handed()).toEqual([]);
    const [explained] = (await strict.api<Explanation[]>('GET', `/api/v1/targets/explain?agent_id=${agent.id}`)).body;
    expect(explained).toMatchObject({
      assigned: false,
      matched: [{ method: 'label' }],
      withheld: 'the agent is not registered with generator team',
    });
    expect(
      (await strict.api('POST', `/api/v1/generators/${generator.generator.id}/register`, undefined, { authorization: agent.pak }))
        .status,
    ).toBe(201);
    expect(await handed()).toHaveLength(1);
    expect(
      (
        await strict.api('DELETE', `/api/v1/generators/${generator.generator.id}/register`, undefined, {
          authorization: agent.pak,
        })
      ).status,
    ).toBe(204);
    expect(await handed()).toEqual([]);
  });
});
