import { randomUUID } from 'node:crypto';
import { create, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { Client } from '@connectrpc/connect';
import { beforeAll, describe, expect, it } from 'vitest';
import { AgentService, AgentStatus, EventStatus, Presence } from '#proto/brokkr/v1/agents_pb.js';
import { Health } from '#proto/brokkr/v1/content_pb.js';
import { StackStatusSchema } from '#proto/brokkr/v1/sync_pb.js';
import { openAgentRig } from '../../test/agent-service-rig.ts';
import { agentPrincipal, generatorPrincipal, plantStack, type Rig, refusal } from './test/rpc.ts';

let rig: Rig;
let agents: Client<typeof AgentService>;
let tenant: string;
let stranger: string;
let count = 0;

beforeAll(async () => {
  ({ rig, agents, tenant, stranger } = await openAgentRig('all'));
});

const newAgent = async () => {
  const agentId = (await agents.createAgent({ name: `a${++count}`, clusterName: 'c' })).agent!.id;
  return { agentId, self: rig.as(AgentService, agentPrincipal(agentId)) };
};
const newStack = async (generatorId = tenant) => await plantStack(rig.db, { generatorId, name: `s${++count}` });
const openSession = async (agentId: string, lastSeen: string) =>
  await rig.db.query(
    `insert into agent_session (agent_id, epoch, transport, last_seen_at) values ($1, 1, 'stream', now() - $2::interval)
     on conflict (agent_id) do update set last_seen_at = excluded.last_seen_at`,
    [agentId, lastSeen],
  );
const apply = { eventType: 'APPLY', status: EventStatus.SUCCESS };

describe('heartbeats over REST', () => {
  it('note the agent as online, and its API server when it says something about it', async () => {
    const { agentId, self } = await newAgent();
    await self.sendHeartbeat({ agentId, k8sReachable: true, k8sApiLatencyMs: 7 });
    const first = (await agents.getAgent({ id: agentId })).agent!;
    expect(first).toMatchObject({ presence: Presence.ONLINE, k8sReachable: true, k8sApiLatencyMs: 7 });
    expect(first.k8sReportedAt).toBeDefined();
    await self.sendHeartbeat({ agentId });
    expect((await agents.getAgent({ id: agentId })).agent).toMatchObject({
      k8sReachable: true,
      k8sReportedAt: first.k8sReportedAt,
    });
  });

  it('are refused beside a live session and for an INACTIVE agent, and come from the agent only', async () => {
    const { agentId, self } = await newAgent();
    await openSession(agentId, '10 seconds');
    expect((await refusal(self.sendHeartbeat({ agentId }))).code).toBe('session_active');
    await openSession(agentId, '2 minutes');
    await self.sendHeartbeat({ agentId });
    await agents.updateAgent({ id: agentId, status: AgentStatus.INACTIVE });
    expect((await refusal(self.sendHeartbeat({ agentId }))).code).toBe('agent_inactive');
    expect((await refusal(agents.sendHeartbeat({ agentId }))).code).toBe('agent_pak_required');
  });
});

describe('events over REST', () => {
  it('are stored with their stack and generation', async () => {
    const { agentId, self } = await newAgent();
    const { id: stackId, deploymentObjectId } = await newStack();
    const { event } = await self.createAgentEvent({ agentId, deploymentObjectId, ...apply, message: 'done' });
    expect(event).toMatchObject({
      agentId,
      deploymentObjectId,
      stackId,
      generation: 1n,
      status: EventStatus.SUCCESS,
      message: 'done',
    });
    expect((await agents.getAgentEvent({ id: event!.id })).event).toEqual(event);
    expect((await self.listEventsOfAgent({ agentId })).events).toEqual([event]);
    expect((await refusal(agents.getAgentEvent({ id: randomUUID() }))).code).toBe('agent_event_not_found');
  });

  it('are stored once under an idempotency key', async () => {
    const { agentId, self } = await newAgent();
    const { deploymentObjectId } = await newStack();
    const headers = { 'idempotency-key': randomUUID() };
    const first = await self.createAgentEvent({ agentId, deploymentObjectId, ...apply }, { headers });
    expect(await self.createAgentEvent({ agentId, deploymentObjectId, ...apply }, { headers })).toEqual(first);
    expect((await self.listEventsOfAgent({ agentId })).events).toHaveLength(1);
  });

  it('are refused about unknown objects, and beside a live session unless an admin writes them', async () => {
    const { agentId, self } = await newAgent();
    const { deploymentObjectId } = await newStack();
    expect((await refusal(self.createAgentEvent({ agentId, deploymentObjectId: randomUUID(), ...apply }))).code).toBe(
      'deployment_object_not_found',
    );
    await openSession(agentId, '0 seconds');
    expect((await refusal(self.createAgentEvent({ agentId, deploymentObjectId, ...apply }))).code).toBe('session_active');
    expect((await agents.createAgentEvent({ agentId, deploymentObjectId, ...apply })).event?.agentId).toBe(agentId);
    expect((await refusal(agents.createAgentEvent({ agentId: randomUUID(), deploymentObjectId, ...apply }))).code).toBe(
      'agent_not_found',
    );
  });

  it('are listed by filters that combine; a generator sees those about its own stacks', async () => {
    const { agentId, self } = await newAgent();
    const own = await newStack();
    const foreign = await newStack(stranger);
    for (const { deploymentObjectId } of [own, foreign]) await self.createAgentEvent({ agentId, deploymentObjectId, ...apply });
    const stacks = async (client: Client<typeof AgentService>, filter: { generatorId?: string; stackId?: string }) =>
      (await client.listAgentEvents({ agentId, ...filter })).events.map(({ stackId }) => stackId);
    expect(await stacks(agents, {})).toEqual([foreign.id, own.id]);
    expect(await stacks(agents, { generatorId: tenant })).toEqual([own.id]);
    expect(await stacks(agents, { generatorId: tenant, stackId: foreign.id })).toEqual([]);
    const generator = rig.as(AgentService, generatorPrincipal(tenant));
    expect(await stacks(generator, {})).toEqual([own.id]);
    expect(await stacks(generator, { generatorId: stranger })).toEqual([]);
    const page = await agents.listAgentEvents({ agentId, limit: 1 });
    expect((await agents.listAgentEvents({ agentId, limit: 1, pageToken: page.nextPageToken })).events[0]?.stackId).toBe(own.id);
  });

  it('show the objects that a session reported, and nil for removals', async () => {
    const { agentId, self } = await newAgent();
    const objects = toBinary(
      StackStatusSchema,
      create(StackStatusSchema, { objects: [{ kind: 'ConfigMap', name: 'x', state: 'rejected' }] }),
    );
    await rig.db.query(`insert into agent_event (agent_id, event_type, status, objects) values ($1, 'PRUNE', 'FAILURE', $2)`, [
      agentId,
      objects,
    ]);
    expect((await self.listEventsOfAgent({ agentId })).events).toMatchObject([
      { deploymentObjectId: '00000000-0000-0000-0000-000000000000', objects: [{ kind: 'ConfigMap', state: 'rejected' }] },
    ]);
  });

  it('go out of sight with their agent', async () => {
    const { agentId, self } = await newAgent();
    const { event } = await self.createAgentEvent({
      agentId,
      deploymentObjectId: (await newStack()).deploymentObjectId,
      ...apply,
    });
    await agents.deleteAgent({ id: agentId });
    expect((await refusal(agents.getAgentEvent({ id: event!.id }))).code).toBe('agent_event_not_found');
    expect((await agents.listAgentEvents({ agentId })).events).toEqual([]);
  });
});

describe('health over REST', () => {
  const stored = async (agentId: string) =>
    await rig.db.query<{ status: string; summary: string }>('select status, summary from deployment_health where agent_id = $1', [
      agentId,
    ]);

  it('is stored for each object, the newest look winning', async () => {
    const { agentId, self } = await newAgent();
    const { deploymentObjectId: id } = await newStack();
    const report = async (status: Health, at: number) =>
      await self.reportHealth({
        agentId,
        deploymentObjects: [
          { id, status, checkedAt: timestampFromMs(at), summary: { podsReady: 1, podsTotal: 2, conditions: ['Ready'] } },
        ],
      });
    await report(Health.DEGRADED, 2000);
    await report(Health.HEALTHY, 3000);
    await report(Health.FAILING, 1000);
    const rows = await stored(agentId);
    expect(rows).toMatchObject([{ status: 'healthy' }]);
    expect(JSON.parse(rows[0]!.summary)).toEqual({ pods_ready: 1, pods_total: 2, conditions: ['Ready'] });
  });

  it('is refused as a whole for one bad record, and beside a live session', async () => {
    const { agentId, self } = await newAgent();
    const { deploymentObjectId } = await newStack();
    const record = (id: string) => ({ id, status: Health.HEALTHY, checkedAt: timestampFromMs(1000) });
    const unknown = randomUUID();
    expect(
      await refusal(self.reportHealth({ agentId, deploymentObjects: [record(deploymentObjectId), record(unknown)] })),
    ).toMatchObject({
      code: 'invalid_health_record',
      details: { deployment_object_ids: [unknown] },
    });
    expect(await stored(agentId)).toEqual([]);
    await openSession(agentId, '0 seconds');
    expect((await refusal(self.reportHealth({ agentId, deploymentObjects: [record(deploymentObjectId)] }))).code).toBe(
      'session_active',
    );
    await agents.reportHealth({ agentId, deploymentObjects: [record(deploymentObjectId)] });
    expect(await stored(agentId)).toHaveLength(1);
  });
});
