import { randomUUID } from 'node:crypto';
import type { Client } from '@connectrpc/connect';
import { beforeAll, describe, expect, it } from 'vitest';
import { AdminService } from '#proto/brokkr/v1/admin_pb.js';
import { testDatabase } from '../../test/postgres.ts';
import { admin, agentPrincipal, openRig, type Rig, refusal } from '../agents/test/rpc.ts';
import { insertAudit } from '../api/store.ts';
import { adminService } from './rpc.ts';

const generatorId = randomUUID();
const agentId = randomUUID();
const resourceId = randomUUID();
let rig: Rig;
let client: Client<typeof AdminService>;

beforeAll(async () => {
  const db = await (await testDatabase()).open();
  rig = openRig(db, (router, pipeline) =>
    router.service(
      AdminService,
      adminService(pipeline, {
        connections: () => [{ agentId, connectedSinceMs: 1000, messagesIn: 2, messagesOut: 3, transport: 'stream', epoch: 4n }],
        confirmHistory: async (tx, incarnation) => {
          const rows = await tx.query<{ incarnation: string }>('select incarnation from broker_state');
          return incarnation ?? rows[0]!.incarnation;
        },
      }),
    ),
  );
  client = rig.as(AdminService, admin);
  await db.query(`insert into generator (id, name) values ($1, 'ci')`, [generatorId]);
  await db.query(`insert into agent (id, name, cluster_name, deleted_at) values ($1, 'edge', 'c', now())`, [agentId]);
  const entry = { resourceType: 'agent', resourceId, ipAddress: '192.0.2.9', userAgent: 'curl' };
  await insertAudit(db, [{ ...entry, principal: admin, action: 'agent.created', details: { name: 'x', labels: ['a'] } }]);
  await insertAudit(db, [
    { ...entry, principal: { kind: 'agent', keyId: randomUUID(), readOnly: false, agentId }, action: 'agent.updated' },
  ]);
  await insertAudit(db, [
    {
      ...entry,
      principal: { kind: 'generator', keyId: randomUUID(), readOnly: false, generatorId },
      action: 'stack.created',
      resourceType: 'stack',
    },
  ]);
  await insertAudit(db, [{ principal: undefined, action: 'agentx', resourceType: 'system', resourceId: undefined }]);
});

describe('the audit log', () => {
  const list = async (filter: Parameters<typeof client.listAuditLogs>[0]) => {
    const { logs, total, count } = await client.listAuditLogs(filter);
    expect(count).toBe(logs.length);
    expect(total).toBe(BigInt(logs.length));
    return logs.map(({ action }) => action);
  };

  it('answers who changed what, newest first, with the names of actors, deleted ones included', async () => {
    const { logs } = await client.listAuditLogs({});
    expect(logs.map(({ action, actorType, actorName }) => [action, actorType, actorName])).toEqual([
      ['agentx', 'system', undefined],
      ['stack.created', 'generator', 'ci'],
      ['agent.updated', 'agent', 'edge'],
      ['agent.created', 'admin', undefined],
    ]);
    expect(logs[3]).toMatchObject({ resourceId, keyId: admin.keyId, ipAddress: '192.0.2.9', userAgent: 'curl' });
    expect(logs[3]?.details?.kind).toMatchObject({ case: 'structValue' });
    expect([logs[0]?.details, logs[0]?.resourceId]).toEqual([undefined, undefined]);
  });

  it('is narrowed by every filter, a group of actions included', async () => {
    expect(await list({ action: 'agent.*' })).toEqual(['agent.updated', 'agent.created']);
    expect(await list({ action: 'agent.created' })).toEqual(['agent.created']);
    expect(await list({ action: '*' })).toHaveLength(4);
    expect(await list({ actorType: 'generator' })).toEqual(['stack.created']);
    expect(await list({ actorId: agentId })).toEqual(['agent.updated']);
    expect(await list({ resourceType: 'stack', resourceId })).toEqual(['stack.created']);
    const at = (await client.listAuditLogs({ action: 'agent.updated' })).logs[0]!.timestamp!;
    expect(await list({ from: at })).toEqual(['agentx', 'stack.created', 'agent.updated']);
    expect(await list({ to: at })).toEqual(['agent.created']);
  });

  it('pages by limit and offset and counts all that match', async () => {
    const page = await client.listAuditLogs({ limit: 2, offset: 1n });
    expect(page.logs.map(({ action }) => action)).toEqual(['stack.created', 'agent.updated']);
    expect(page).toMatchObject({ total: 4n, count: 2, limit: 2n, offset: 1n });
    expect(await client.listAuditLogs({ offset: 9n })).toMatchObject({ logs: [], total: 4n, count: 0, limit: 100n });
  });

  it('is for admins', async () => {
    expect((await refusal(rig.as(AdminService, agentPrincipal(agentId)).listAuditLogs({}))).code).toBe('admin_required');
  });
});

it('lists the sessions of this replica', async () => {
  expect(await client.listConnections({})).toMatchObject({
    connectedAgents: 1,
    connections: [{ agentId, connectedSince: { seconds: 1n }, messagesIn: 2n, messagesOut: 3n, transport: 'stream', epoch: 4n }],
    liveSubscribers: 0,
  });
});

it('confirms the history, audited, as a change of the broker', async () => {
  const { incarnation } = await client.confirmHistory({});
  expect(incarnation).toMatch(/^[0-9a-f-]{36}$/);
  expect(await rig.db.query(`select from change_log where kind = 'broker'`)).toHaveLength(1);
  expect((await client.listAuditLogs({ action: 'history.confirmed' })).logs).toHaveLength(1);
  expect(rig.commits()).toBe(1);
});
