import { randomUUID } from 'node:crypto';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Client } from '@connectrpc/connect';
import { beforeAll, describe, expect, it } from 'vitest';
import { hashPak } from '#lib/pak.ts';
import {
  AgentAcceptance,
  AgentService,
  AgentStatus,
  type CreateAgentRequestSchema,
  Presence,
} from '#proto/brokkr/v1/agents_pb.js';
import { testDatabase } from '../../test/postgres.ts';
import { findKeyByHash } from '../keys/store.ts';
import { AgentEntity } from './entities.ts';
import { presenceOf } from './messages.ts';
import { agentService } from './rpc.ts';
import { admin, agentPrincipal, generatorPrincipal, openRig, type Rig, refusal } from './test/rpc.ts';

let rig: Rig;
let agents: Client<typeof AgentService>;
let tenant: string;

beforeAll(async () => {
  const db = await (await testDatabase()).open({}, { entities: [AgentEntity] });
  rig = openRig(db, (router, pipeline) =>
    router.service(AgentService, agentService(pipeline, { acceptance: 'registered', heartbeatIntervalMs: 20_000 })),
  );
  agents = rig.as(AgentService, admin);
  const rows = await rig.db.query<{ id: string }>(`insert into generator (name) values ('tenant') returning id`);
  tenant = rows[0]!.id;
});

const audits = async (resourceId: string) =>
  await rig.db.query<{ action: string; details: unknown; actor_type: string; ip_address: string }>(
    'select action, details, actor_type, ip_address from audit_log where resource_id = $1 order by timestamp, action',
    [resourceId],
  );
const changes = async (agentId: string) =>
  (await rig.db.query<{ kind: string }>('select kind from change_log where agent_id = $1 order by seq', [agentId])).map(
    ({ kind }) => kind,
  );
const create = async (name: string, more: Omit<MessageInitShape<typeof CreateAgentRequestSchema>, '$typeName'> = {}) =>
  (await agents.createAgent({ name, clusterName: 'c', ...more })).agent!;

describe('creating an agent', () => {
  it('answers it with a key that works, registered with the system generator and those named', async () => {
    let etag: string | null = null;
    const answer = await agents.createAgent(
      { name: 'new', clusterName: 'c', generatorIds: [tenant], labels: ['prod', 'prod'], annotations: { region: 'eu' } },
      { onHeader: (headers) => (etag = headers.get('etag')) },
    );
    const agent = answer.agent!;
    expect(agent).toMatchObject({ name: 'new', clusterName: 'c', status: AgentStatus.ACTIVE, presence: Presence.NEVER_SEEN });
    expect(etag).toBe('"1"');
    expect(await findKeyByHash(rig.db, hashPak(answer.initialPak)!)).toMatchObject({ role: 'agent', agent_id: agent.id });
    const { registrations } = await agents.listRegistrations({ agentId: agent.id });
    expect(registrations.map(({ generatorId }) => generatorId)).toContain(tenant);
    expect(registrations).toHaveLength(2);
    expect((await agents.listAgentLabels({ agentId: agent.id })).labels.map(({ label }) => label)).toEqual(['prod']);
    expect((await agents.listAgentAnnotations({ agentId: agent.id })).annotations).toMatchObject([
      { key: 'region', value: 'eu' },
    ]);
    expect(await audits(agent.id)).toMatchObject([{ action: 'agent.created', actor_type: 'admin', ip_address: '192.0.2.1' }]);
    expect(await changes(agent.id)).toEqual(['key', 'agent']);
    expect(JSON.stringify(await rig.db.query('select details from audit_log'))).not.toContain(answer.initialPak);
  });

  it('refuses a name that is taken, blank names, unknown generators and bad labels', async () => {
    await create('taken');
    expect(await refusal(create('taken'))).toMatchObject({ code: 'unique_violation', details: { constraint: 'agent_name_key' } });
    expect((await refusal(agents.createAgent({ name: '  ', clusterName: 'c' }))).details).toMatchObject({
      violations: [{ field: 'name' }],
    });
    for (const id of ['nonsense', randomUUID()]) {
      expect((await refusal(create('unregistered', { generatorIds: [id] }))).code).toBe('invalid_generator_id');
    }
    expect((await refusal(create('badly labelled', { labels: ['two words'] }))).code).toBe('invalid_label');
    expect((await refusal(create('badly annotated', { annotations: { a: '' } }))).code).toBe('invalid_annotation');
    expect(await rig.db.query(`select from agent where name like 'badly%' or name = 'unregistered'`)).toHaveLength(0);
  });

  it('leaves nothing behind after a dry run, and no key in its answer', async () => {
    const answer = await agents.createAgent({ name: 'tried', clusterName: 'c', dryRun: true });
    expect(answer).toMatchObject({ initialPak: '', agent: { name: 'tried' } });
    expect(await rig.db.query(`select from agent where name = 'tried'`)).toHaveLength(0);
    expect(await audits(answer.agent!.id)).toHaveLength(0);
  });

  it('answers a repetition under one idempotency key with the same agent, without its key', async () => {
    const headers = { 'idempotency-key': randomUUID() };
    const first = await agents.createAgent({ name: 'once', clusterName: 'c' }, { headers });
    const second = await agents.createAgent({ name: 'once', clusterName: 'c' }, { headers });
    expect(second).toMatchObject({ initialPak: '', agent: { id: first.agent!.id } });
  });
});

describe('reading agents', () => {
  it('finds by id, and by name within its cluster', async () => {
    const agent = await create('found');
    expect((await agents.getAgent({ id: agent.id })).agent?.name).toBe('found');
    expect((await agents.findAgent({ name: 'found', clusterName: 'c' })).agent?.id).toBe(agent.id);
    expect((await refusal(agents.findAgent({ name: 'found', clusterName: 'd' }))).code).toBe('agent_not_found');
    expect((await refusal(agents.getAgent({ id: randomUUID() }))).code).toBe('agent_not_found');
  });

  it('shows an agent itself and no other', async () => {
    const one = await create('one');
    const other = await create('other');
    const self = rig.as(AgentService, agentPrincipal(one.id));
    expect((await self.getAgent({ id: one.id })).agent?.id).toBe(one.id);
    expect((await self.findAgent({ name: 'one', clusterName: 'c' })).agent?.id).toBe(one.id);
    expect((await refusal(self.findAgent({ name: 'other', clusterName: 'c' }))).code).toBe('agent_pak_mismatch');
    expect((await refusal(self.getAgent({ id: other.id }))).code).toBe('agent_pak_mismatch');
    expect((await refusal(self.listAgents({}))).code).toBe('forbidden');
  });

  it('shows a generator the agents its stacks can reach', async () => {
    const consenting = await create('consenting', { generatorIds: [tenant] });
    const open = await create('open', { acceptance: AgentAcceptance.ALL });
    const closed = await create('closed');
    const seen = (await rig.as(AgentService, generatorPrincipal(tenant)).listAgents({})).agents.map(({ id }) => id);
    expect(seen).toEqual(expect.arrayContaining([consenting.id, open.id]));
    expect(seen).not.toContain(closed.id);
    const [system] = await rig.db.query<{ id: string }>('select id from generator where is_system');
    expect((await refusal(rig.as(AgentService, generatorPrincipal(system!.id)).listAgents({}))).code).toBe(
      'system_generator_not_a_tenant',
    );
  });

  it('pages newest first and filters by label', async () => {
    const made = [];
    for (const name of ['p1', 'p2', 'p3']) made.push((await create(name, { labels: ['paged'] })).id);
    const first = await agents.listAgents({ label: 'paged', limit: 2 });
    const second = await agents.listAgents({ label: 'paged', limit: 2, pageToken: first.nextPageToken });
    expect([...first.agents, ...second.agents].map(({ id }) => id)).toEqual(made.reverse());
    expect(second.nextPageToken).toBe('');
    expect((await refusal(agents.listAgents({ pageToken: 'nonsense' }))).code).toBe('invalid_page_token');
  });

  it('tells presence from the last heartbeat and the session, whichever is later', async () => {
    const agent = await create('present');
    await rig.db.query(`update agent set last_heartbeat = now() - interval '5 minutes' where id = $1`, [agent.id]);
    expect((await agents.getAgent({ id: agent.id })).agent).toMatchObject({ presence: Presence.STALE });
    await rig.db.query(`insert into agent_session (agent_id, epoch, transport, last_seen_at) values ($1, 1, 'stream', now())`, [
      agent.id,
    ]);
    expect((await agents.getAgent({ id: agent.id })).agent).toMatchObject({ presence: Presence.ONLINE, transport: 'stream' });
    await rig.db.query('update agent_session set closed_at = now() where agent_id = $1', [agent.id]);
    expect((await agents.getAgent({ id: agent.id })).agent?.transport).toBeUndefined();
    expect([null, 0, 59_999, 60_000, 600_000].map((age) => Presence[presenceOf(age, 20_000)])).toEqual([
      'NEVER_SEEN',
      'ONLINE',
      'ONLINE',
      'STALE',
      'OFFLINE',
    ]);
  });
});

describe('changing an agent', () => {
  it('changes what is set, raises the version and says what changed', async () => {
    const agent = await create('before');
    const { agent: after } = await agents.updateAgent({ id: agent.id, name: 'after', acceptance: AgentAcceptance.ALL });
    expect(after).toMatchObject({ name: 'after', clusterName: 'c', acceptance: AgentAcceptance.ALL });
    expect((await audits(agent.id)).at(-1)).toMatchObject({
      action: 'agent.updated',
      details: { name: { from: 'before', to: 'after' }, acceptance: { from: null, to: 'all' } },
    });
    expect((await changes(agent.id)).at(-1)).toBe('agent');
  });

  it('writes nothing when nothing is new', async () => {
    const agent = await create('same');
    const before = await rig.db.query('select version, updated_at from agent where id = $1', [agent.id]);
    await agents.updateAgent({ id: agent.id, name: 'same', status: AgentStatus.ACTIVE });
    expect(await rig.db.query('select version, updated_at from agent where id = $1', [agent.id])).toEqual(before);
    expect(await audits(agent.id)).toHaveLength(1);
  });

  it('refuses a version that is over, and lets one of two concurrent writers through', async () => {
    const agent = await create('contended');
    const attempts = ['x', 'y'].map((name) => agents.updateAgent({ id: agent.id, name }, { headers: { 'if-match': '"1"' } }));
    const outcomes = await Promise.allSettled(attempts);
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(await refusal(Promise.all(attempts))).toMatchObject({ code: 'precondition_failed' });
    expect((await refusal(agents.deleteAgent({ id: agent.id }, { headers: { 'if-match': '"1"' } }))).code).toBe(
      'precondition_failed',
    );
  });

  it('lets only an admin end INACTIVE', async () => {
    const agent = await create('parked');
    const self = rig.as(AgentService, agentPrincipal(agent.id));
    await self.updateAgent({ id: agent.id, status: AgentStatus.INACTIVE });
    expect((await refusal(self.updateAgent({ id: agent.id, status: AgentStatus.ACTIVE }))).code).toBe('forbidden');
    expect((await agents.updateAgent({ id: agent.id, status: AgentStatus.ACTIVE })).agent?.status).toBe(AgentStatus.ACTIVE);
    expect((await audits(agent.id)).map(({ actor_type }) => actor_type)).toEqual(['admin', 'agent', 'admin']);
  });
});

describe('the end of an agent and of its keys', () => {
  it('deletes softly, revokes the keys and frees the name', async () => {
    const { agent, initialPak } = await agents.createAgent({ name: 'doomed', clusterName: 'c' });
    await agents.deleteAgent({ id: agent!.id });
    expect((await refusal(agents.getAgent({ id: agent!.id }))).code).toBe('agent_not_found');
    expect((await refusal(agents.deleteAgent({ id: agent!.id }))).code).toBe('agent_not_found');
    expect(await findKeyByHash(rig.db, hashPak(initialPak)!)).toBeUndefined();
    expect((await changes(agent!.id)).slice(-2)).toEqual(['agent', 'key']);
    expect((await create('doomed')).id).not.toBe(agent!.id);
  });

  it('rotates: the old key ends at once, or after the grace', async () => {
    const { agent, initialPak } = await agents.createAgent({ name: 'rotated', clusterName: 'c' });
    const self = rig.as(AgentService, agentPrincipal(agent!.id));
    const { pak: second } = await self.rotateAgentPak({ id: agent!.id });
    expect(await findKeyByHash(rig.db, hashPak(initialPak)!)).toBeUndefined();
    const { pak: third } = await self.rotateAgentPak({ id: agent!.id, graceSeconds: 60 });
    expect(await findKeyByHash(rig.db, hashPak(second)!)).toMatchObject({ agent_id: agent!.id });
    expect(await findKeyByHash(rig.db, hashPak(third)!)).toMatchObject({ agent_id: agent!.id });
    expect((await refusal(agents.rotateAgentPak({ id: randomUUID() }))).code).toBe('agent_not_found');
  });
});

describe('labels and annotations', () => {
  it('adds and removes them, audited, as changes of the agent', async () => {
    const agent = await create('labelled');
    const agentId = agent.id;
    expect((await agents.addAgentLabel({ agentId, label: 'prod' })).label).toMatchObject({ agentId, label: 'prod' });
    expect(await refusal(agents.addAgentLabel({ agentId, label: 'prod' }))).toMatchObject({
      code: 'unique_violation',
      details: { constraint: 'agent_label_key' },
    });
    await agents.addAgentAnnotation({ agentId, key: 'region', value: 'eu' });
    expect((await refusal(agents.addAgentAnnotation({ agentId, key: 'region', value: 'us' }))).code).toBe('unique_violation');
    await agents.removeAgentLabel({ agentId, label: 'prod' });
    await agents.removeAgentAnnotation({ agentId, key: 'region' });
    expect((await refusal(agents.removeAgentLabel({ agentId, label: 'prod' }))).code).toBe('agent_label_not_found');
    expect((await refusal(agents.removeAgentAnnotation({ agentId, key: 'region' }))).code).toBe('agent_annotation_not_found');
    expect((await audits(agentId)).map(({ action }) => action)).toEqual([
      'agent.created',
      'agent.label_added',
      'agent.annotation_added',
      'agent.label_removed',
      'agent.annotation_removed',
    ]);
    expect(await changes(agentId)).toHaveLength(6);
  });

  it('refuses whitespace, emptiness, excess and unknown agents', async () => {
    const agent = await create('fussy');
    for (const label of ['', 'a b', 'x'.repeat(65)]) {
      expect((await refusal(agents.addAgentLabel({ agentId: agent.id, label }))).message).toMatch(/^label: /);
    }
    expect((await refusal(agents.addAgentLabel({ agentId: randomUUID(), label: 'x' }))).code).toBe('agent_not_found');
    expect((await refusal(agents.listAgentLabels({ agentId: randomUUID() }))).code).toBe('agent_not_found');
  });
});
