import { beforeAll, describe, expect, it } from 'vitest';
import { type AgentRecord, configMap, healthyAt, type Rig, startRig, until } from './rig.ts';

let rig: Rig;
let agent: AgentRecord;

beforeAll(async () => {
  rig = await startRig();
  agent = await rig.register();
  await rig.start(agent, { env: { BROKKR__AGENT__CAPABILITIES: 'region=eu,tier=gold' } });
});

async function apply(stack: string, body: object): Promise<{ readonly id: string }> {
  const answer = await rig.broker.api<{ stack: { id: string } }>('PUT', `/api/v1/stacks/by-name/${stack}/apply`, body);
  expect(answer.status, JSON.stringify(answer.body)).toBe(200);
  return answer.body.stack;
}

const live = async (namespace: string) => {
  const { status, body } = await rig.kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/a`);
  return status === 200 ? (body as { data: { key: string } }).data.key : undefined;
};
const capability = (key: string, operator: string, ...values: string[]) => ({
  term: { source: 'capability', key, operator, values },
});

describe('targeting of an agent process', () => {
  // C-001
  it('by a selector over what the agent has found out, until the selector changes', async () => {
    const namespace = await rig.kube.namespace('selector');
    const wanted = [
      capability('region', 'in', 'eu'),
      capability('kind:apps/Deployment', 'exists'),
      capability('api:v1', 'exists'),
    ];
    const version = (least: string) => capability('kubernetes_version', 'gte', least);
    const stack = await apply('selected', {
      yaml_content: configMap(namespace, 'a'),
      selector: { all: [...wanted, version('1.30')] },
    });
    await rig.status(stack.id, healthyAt(1));
    expect(await live(namespace)).toBe('1');
    await apply('selected', { selector: { all: [...wanted, version('99')] } });
    await until(
      async () => (await live(namespace)) ?? 'gone',
      (value) => value === 'gone',
    );
    const path = `/api/v1/targets/explain?stack_id=${stack.id}&agent_id=${agent.id}`;
    const { body } = await rig.broker.api<{ nearly: { detail: string }[] }[]>('GET', path);
    expect(body[0]?.nearly.map(({ detail }) => detail)).toEqual([
      expect.stringMatching(/^selector wants kubernetes_version >= 99, agent has kubernetes_version=v1\./),
    ]);
  });

  // C-001
  it('when the time of a publication has come, and not before', async () => {
    const namespace = await rig.kube.namespace('gate');
    const labels = { values: [agent.label] };
    const stack = await apply('gated', { yaml_content: configMap(namespace, 'a'), labels });
    await rig.status(stack.id, healthyAt(1));
    const opensMs = Date.now() + 5_000;
    await apply('gated', {
      yaml_content: configMap(namespace, 'a', '2'),
      gate: { not_before: new Date(opensMs).toISOString() },
    });
    const held = await rig.status(stack.id, () => true);
    expect(held).toMatchObject({ desired_generation: 1, held_generation: 2, held_until: new Date(opensMs).toISOString() });
    const values: (string | undefined)[] = [];
    await until(
      async () => {
        const value = await live(namespace);
        if (Date.now() < opensMs) values.push(value);
        return value;
      },
      (value) => value === '2',
    );
    expect(Date.now()).toBeGreaterThanOrEqual(opensMs);
    expect([...new Set(values)]).toEqual(['1']);
    await rig.status(stack.id, healthyAt(2));
  });
});
