import { randomUUID } from 'node:crypto';
import type { Client } from '@connectrpc/connect';
import { beforeAll, describe, expect, it } from 'vitest';
import { AgentAcceptance, AgentService, AgentStatus, EventStatus, TargetMethod } from '#proto/brokkr/v1/agents_pb.js';
import { openAgentRig } from '../../test/agent-service-rig.ts';
import { listAssigned } from '../targeting/store.ts';
import { agentPrincipal, generatorPrincipal, plantStack, type Rig, refusal } from './test/rpc.ts';

let rig: Rig;
let agents: Client<typeof AgentService>;
let tenant: string;
let stranger: string;
let count = 0;

beforeAll(async () => {
  ({ rig, agents, tenant, stranger } = await openAgentRig('registered'));
});

const newAgent = async (
  more: { acceptance?: AgentAcceptance; generatorIds?: string[]; labels?: string[]; annotations?: Record<string, string> } = {},
) => (await agents.createAgent({ name: `a${++count}`, clusterName: 'c', ...more })).agent!.id;
const newStack = async (more: { generatorId?: string; content?: boolean } = {}) =>
  await plantStack(rig.db, { generatorId: tenant, name: `s${++count}`, ...more });
const asTenant = () => rig.as(AgentService, generatorPrincipal(tenant));
const actions = async (agentId: string) =>
  (
    await rig.db.query<{ action: string }>('select action from audit_log where resource_id = $1 order by timestamp, action', [
      agentId,
    ])
  ).map((row) => row.action);

describe('direct assignment', () => {
  it('by an admin registers the agent with the generator where consent is needed', async () => {
    const agentId = await newAgent();
    const { id: stackId } = await newStack();
    expect((await agents.addAgentTarget({ agentId, stackId })).target).toMatchObject({ agentId, stackId });
    expect((await agents.listRegistrations({ agentId })).registrations.map(({ generatorId }) => generatorId)).toContain(tenant);
    expect((await actions(agentId)).slice(1)).toEqual(['agent.registered', 'agent.target_added']);
    expect((await agents.listAgentTargets({ agentId })).targets).toHaveLength(1);
    expect(await refusal(agents.addAgentTarget({ agentId, stackId }))).toMatchObject({
      code: 'unique_violation',
      details: { constraint: 'agent_target_key' },
    });
  });

  it('by an admin registers nobody where every generator is accepted', async () => {
    const agentId = await newAgent({ acceptance: AgentAcceptance.ALL });
    await agents.addAgentTarget({ agentId, stackId: (await newStack()).id });
    expect((await agents.listRegistrations({ agentId })).registrations).toHaveLength(1);
  });

  it('by a generator needs its own stack, then the consent of the agent', async () => {
    const { id: stackId } = await newStack();
    const { id: foreign } = await newStack({ generatorId: stranger });
    const agentId = await newAgent();
    expect((await refusal(asTenant().addAgentTarget({ agentId: randomUUID(), stackId: randomUUID() }))).code).toBe(
      'stack_not_found',
    );
    expect((await refusal(asTenant().addAgentTarget({ agentId: randomUUID(), stackId: foreign }))).code).toBe(
      'target_generator_mismatch',
    );
    expect((await refusal(asTenant().addAgentTarget({ agentId, stackId }))).code).toBe('agent_not_registered');
    expect((await refusal(asTenant().addAgentTarget({ agentId: randomUUID(), stackId }))).code).toBe('agent_not_registered');
    expect((await refusal(agents.addAgentTarget({ agentId: randomUUID(), stackId }))).code).toBe('agent_not_found');
    expect((await refusal(rig.as(AgentService, agentPrincipal(agentId)).addAgentTarget({ agentId, stackId }))).code).toBe(
      'forbidden',
    );
    const consenting = await newAgent({ generatorIds: [tenant] });
    expect((await asTenant().addAgentTarget({ agentId: consenting, stackId })).target?.stackId).toBe(stackId);
  });

  it('is taken back by the owner, once', async () => {
    const agentId = await newAgent();
    const { id: stackId } = await newStack();
    await agents.addAgentTarget({ agentId, stackId });
    expect((await refusal(rig.as(AgentService, generatorPrincipal(stranger)).removeAgentTarget({ agentId, stackId }))).code).toBe(
      'target_generator_mismatch',
    );
    await asTenant().removeAgentTarget({ agentId, stackId });
    expect((await refusal(asTenant().removeAgentTarget({ agentId, stackId }))).code).toBe('agent_target_not_found');
    expect((await actions(agentId)).at(-1)).toBe('agent.target_removed');
  });
});

describe('target state', () => {
  it('is the content of every assigned stack, newest first, and incrementally what was not reported on', async () => {
    const agentId = await newAgent({ acceptance: AgentAcceptance.ALL, labels: ['state'] });
    const direct = await newStack();
    const labelled = await newStack();
    const empty = await newStack({ content: false });
    await rig.db.query(`insert into stack_label (stack_id, label) values ($1, 'state'), ($2, 'state')`, [labelled.id, empty.id]);
    await agents.addAgentTarget({ agentId, stackId: direct.id });
    const self = rig.as(AgentService, agentPrincipal(agentId));
    const ids = async (mode: string) => (await self.getTargetState({ agentId, mode })).deploymentObjects.map(({ id }) => id);
    expect(await ids('')).toEqual([labelled.deploymentObjectId, direct.deploymentObjectId]);
    await self.createAgentEvent({
      agentId,
      deploymentObjectId: direct.deploymentObjectId,
      eventType: 'APPLY',
      status: EventStatus.FAILURE,
    });
    expect(await ids('incremental')).toEqual([labelled.deploymentObjectId]);
    expect(await ids('full')).toHaveLength(2);
    expect((await self.listAgentStacks({ agentId })).stacks.map(({ id }) => id)).toEqual([empty.id, labelled.id, direct.id]);
    expect((await self.getTargetState({ agentId, mode: 'full' })).deploymentObjects[0]).toMatchObject({
      revision: 1n,
      stackId: labelled.id,
    });
  });

  it('is empty for an agent without stacks and refused for one that is INACTIVE or not there', async () => {
    const agentId = await newAgent();
    expect((await agents.getTargetState({ agentId })).deploymentObjects).toEqual([]);
    await agents.addAgentTarget({ agentId, stackId: (await newStack()).id });
    await agents.updateAgent({ id: agentId, status: AgentStatus.INACTIVE });
    expect((await refusal(agents.getTargetState({ agentId }))).code).toBe('agent_inactive');
    expect((await refusal(agents.getTargetState({ agentId: randomUUID() }))).code).toBe('agent_not_found');
    expect((await refusal(agents.listAgentStacks({ agentId: randomUUID() }))).code).toBe('agent_not_found');
  });
});

describe('explaining targets', () => {
  it('names the rules that matched', async () => {
    const agentId = await newAgent({ acceptance: AgentAcceptance.ALL, labels: ['prod'], annotations: { region: 'eu' } });
    const { id: stackId } = await newStack();
    await agents.addAgentTarget({ agentId, stackId });
    await rig.db.query(`insert into stack_label (stack_id, label) values ($1, 'prod')`, [stackId]);
    await rig.db.query(`insert into stack_annotation (stack_id, key, value) values ($1, 'region', 'eu')`, [stackId]);
    const { explanations } = await agents.explainTargets({ agentId, stackId });
    expect(explanations).toHaveLength(1);
    expect(explanations[0]).toMatchObject({ assigned: true, withheld: '', nearly: [] });
    expect(explanations[0]!.matched.map(({ detail }) => detail)).toEqual([
      'annotation region=eu is on both',
      'assigned directly',
      'label prod is on both',
    ]);
  });

  it('names the rules that nearly matched, with what is missing', async () => {
    const agentId = await newAgent({ labels: ['Prod', 'eu', 'stagin'], annotations: { region: 'us', Tier: 'gold' } });
    const explain = async (labels: string[], annotations: Record<string, string> = {}) => {
      const { id: stackId } = await newStack();
      await rig.db.query('insert into stack_label (stack_id, label) select $1, unnest($2::text[])', [stackId, labels]);
      await rig.db.query('insert into stack_annotation (stack_id, key, value) select $1, * from unnest($2::text[], $3::text[])', [
        stackId,
        Object.keys(annotations),
        Object.values(annotations),
      ]);
      const { explanations } = await agents.explainTargets({ agentId, stackId });
      expect(explanations[0]).toMatchObject({ assigned: false, matched: [], withheld: '' });
      return explanations[0]!.nearly.map(({ detail }) => detail);
    };
    expect(await explain(['prod', 'staging'])).toEqual([
      'stack has label prod, agent has Prod: only the case differs',
      'stack has label staging, agent has stagin: 1 letter differs',
    ]);
    expect(await explain(['gpu'])).toEqual(['stack has label gpu, agent has Prod, eu, stagin']);
    expect(await explain([], { region: 'eu', tier: 'gold', zone: 'a' })).toEqual([
      'stack has annotation region=eu, agent has region=us',
      'stack has annotation tier=gold, agent has Tier=gold: only the case differs',
      'stack has annotation zone=a, agent has no annotation zone',
    ]);
    expect(await explain([])).toEqual(['stack has no labels, no annotations and no selector, and is not assigned directly']);
  });

  it('says what withholds a stack that a rule matched', async () => {
    const agentId = await newAgent();
    const { id: stackId } = await newStack({ content: false });
    await agents.addAgentTarget({ agentId, stackId });
    await rig.db.query('delete from agent_generator_registration where agent_id = $1 and generator_id = $2', [agentId, tenant]);
    await agents.updateAgent({ id: agentId, status: AgentStatus.INACTIVE });
    const withheld = async () => (await agents.explainTargets({ agentId, stackId })).explanations[0]!;
    expect(await withheld()).toMatchObject({
      assigned: false,
      matched: [{ method: TargetMethod.DIRECT }],
      withheld: 'the agent is INACTIVE; the stack has no content; the agent is not registered with generator tenant',
    });
    await rig.db.query('update stack set deleted_at = now() where id = $1', [stackId]);
    await agents.deleteAgent({ id: agentId });
    expect((await withheld()).withheld).toMatch(/^the agent is deleted; the agent is INACTIVE; the stack is deleted;/);
  });

  it('agrees with the target state about every pair', async () => {
    const words = ['x1', 'x2', 'x3'];
    for (let i = 0; i < 6; i++) {
      const agentId = await newAgent({
        acceptance: [AgentAcceptance.ALL, AgentAcceptance.REGISTERED][i % 2]!,
        generatorIds: i % 3 === 0 ? [stranger] : [],
        labels: words.slice(i % 3, (i % 3) + 1),
        annotations: { k: words[i % 2]! },
      });
      if (i === 5) await agents.updateAgent({ id: agentId, status: AgentStatus.INACTIVE });
      const { id: stackId } = await newStack({ generatorId: i % 2 === 0 ? tenant : stranger, content: i !== 4 });
      await rig.db.query('insert into stack_label (stack_id, label) values ($1, $2)', [stackId, words[i % 2]!]);
      if (i % 2 === 0)
        await rig.db.query(`insert into stack_annotation (stack_id, key, value) values ($1, 'k', $2)`, [stackId, words[i % 3]!]);
    }
    const explained = (await agents.explainTargets({ limit: 1000 })).explanations;
    const assigned = await listAssigned(rig.db, { acceptance: 'registered' });
    const pairs = (rows: readonly { agent: string; stack: string }[]) =>
      rows.map(({ agent, stack }) => `${agent}/${stack}`).sort();
    expect(
      pairs(explained.filter((item) => item.assigned).map((item) => ({ agent: item.agentId, stack: item.stackId }))),
    ).toEqual(pairs(assigned.map((row) => ({ agent: row.agent_id, stack: row.stack_id }))));
    expect(assigned.length).toBeGreaterThan(5);
    expect(assigned.length).toBeLessThan(explained.length);
  });

  it('shows a generator its own stacks and the agents they can reach', async () => {
    const { id: own } = await newStack();
    const { id: foreign } = await newStack({ generatorId: stranger });
    const hidden = await newAgent();
    const { explanations } = await asTenant().explainTargets({ limit: 1000 });
    expect(explanations.map(({ stackId }) => stackId)).toContain(own);
    expect(explanations.map(({ stackId }) => stackId)).not.toContain(foreign);
    expect(explanations.map(({ agentId }) => agentId)).not.toContain(hidden);
    expect((await refusal(asTenant().explainTargets({ stackId: foreign }))).code).toBe('stack_not_owned');
    expect((await refusal(asTenant().explainTargets({ stackId: own, agentId: hidden }))).code).toBe('agent_not_registered');
    expect((await refusal(agents.explainTargets({ stackId: randomUUID() }))).code).toBe('stack_not_found');
    expect((await refusal(agents.explainTargets({ agentId: randomUUID() }))).code).toBe('agent_not_found');
  });
});
