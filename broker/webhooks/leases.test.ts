import { randomUUID } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { createAddressRule } from '#lib/address-rule.ts';
import { systemClock } from '#lib/clock.ts';
import { createLog } from '#lib/log.ts';
import { runTasks } from '#lib/run.ts';
import { createSend, resolveHost } from '#lib/webhook-send.ts';
import { startTcpProxy } from '../../test/fault-proxy.ts';
import { openTestDatabase, type TestDatabase, testDatabase } from '../../test/postgres.ts';
import { type SinkAnswer, startWebhookSink, type WebhookSink } from '../../test/webhook-sink.ts';
import type { Database } from '../database.ts';
import { endpointText, parseConnectionUri } from '../postgres/uri.ts';
import { Deliveries } from './deliveries.ts';
import { createSecretBox, newSigningSecret } from './secrets.ts';
import { insertSubscription } from './store.ts';

let database: TestDatabase;
let db: Database;
const secrets = createSecretBox([]);
/** Half of it is what a busy machine may be late by. */
const LEASE_MS = 3000;

beforeAll(async () => {
  database = await testDatabase();
  db = await database.open();
});

/** A replica with short leases; `stop` ends it. */
function startReplica({ intervalMs = 100, own = db } = {}) {
  const log = createLog('test', { level: 'fatal' });
  const mayReach = createAddressRule(['127.0.0.0/8']);
  const send = createSend({ clock: systemClock, mayReach, allowedBy: '', resolve: resolveHost });
  const replicaId = randomUUID();
  const deps = {
    db: own,
    clock: systemClock,
    log,
    random: Math.random,
    replicaId,
    secrets,
    send,
    attempted: () => undefined,
    tellAgents: async () => undefined,
  };
  const deliveries = new Deliveries(deps, { batchSize: 50, intervalMs, leaseMs: LEASE_MS });
  const stopping = new AbortController();
  const running = runTasks([deliveries], stopping.signal);
  return {
    replicaId,
    async stop() {
      stopping.abort(new Error('test over'));
      await running;
    },
  };
}

/** An endpoint, and a delivery to it that nobody was told of. */
async function queueOne(answer: SinkAnswer): Promise<{ readonly sink: WebhookSink; readonly id: string }> {
  const sink = await startWebhookSink(answer);
  const subscription = randomUUID();
  await insertSubscription(db, {
    id: subscription,
    name: 'x',
    event_types: ['*'],
    filter_agent_id: null,
    filter_stack_id: null,
    filter_labels: [],
    target_labels: [],
    enabled: true,
    disabled_reason: null,
    max_retries: 5,
    timeout_seconds: 30,
    has_auth_header: false,
    ...secrets.seal(subscription, { url: sink.url, signing: newSigningSecret() }),
    createdBy: 'test',
  });
  const rows = await db.query<{ id: string }>(
    `insert into webhook_delivery (subscription_id, event_type, event_id, payload) values ($1, 'stack.created', gen_random_uuid(), '{}') returning id`,
    [subscription],
  );
  return { sink, id: rows[0]?.id ?? '' };
}

async function rowOf(id: string) {
  const rows = await db.query<{ status: string; attempts: number; acquired_by: string | null }>(
    'select status, attempts, acquired_by from webhook_delivery where id = $1',
    [id],
  );
  return rows[0];
}

describe('a replica', () => {
  it('finds within the interval what no commit told it of', async () => {
    const replica = startReplica({ intervalMs: 700 });
    await new Promise((resolve) => setImmediate(resolve));
    const { sink, id } = await queueOne((response) => void response.writeHead(200).end());
    await expect.poll(() => sink.received.length, { timeout: 5000 }).toBe(1);
    await expect.poll(async () => (await rowOf(id))?.status).toBe('success');
    await replica.stop();
  });

  it('keeps its lease while it sends, so that no other one does', async () => {
    const answered = Promise.withResolvers<void>();
    const { sink, id } = await queueOne(async (response) => {
      await answered.promise;
      response.writeHead(200).end();
    });
    const replicas = [startReplica(), startReplica()];
    await expect.poll(() => sink.open()).toBe(1);
    const beganMs = performance.now();
    await expect.poll(() => performance.now() - beganMs, { timeout: 30_000 }).toBeGreaterThan(2 * LEASE_MS);
    expect(sink.received).toHaveLength(1);
    answered.resolve();
    await expect.poll(async () => await rowOf(id)).toEqual({ status: 'success', attempts: 1, acquired_by: null });
    expect(sink.received).toHaveLength(1);
    for (const replica of replicas) await replica.stop();
  });

  it('stops sending what another one has taken, and records nothing', async () => {
    const { sink, id } = await queueOne(() => undefined);
    const replica = startReplica();
    await expect.poll(() => sink.open()).toBe(1);
    const other = randomUUID();
    await db.query(`update webhook_delivery set acquired_by = $2, due_at = now() + interval '1 hour' where id = $1`, [id, other]);
    await expect.poll(() => sink.open(), { timeout: 15_000 }).toBe(0);
    expect(await rowOf(id)).toEqual({ status: 'acquired', attempts: 1, acquired_by: other });
    await replica.stop();
    expect((await rowOf(id))?.acquired_by).toBe(other);
  });

  it('stops before its lease is over when the database is silent, and only then another one sends', async () => {
    const events: string[] = [];
    const { sink, id } = await queueOne((response, _request, index) => {
      events.push(`begin ${index}`);
      response.once('close', () => events.push(`end ${index}`));
      if (index > 0) response.writeHead(200).end();
    });
    const path = endpointText(parseConnectionUri(database.url, {}));
    await using proxy = await startTcpProxy({ target: { path } });
    const url = `postgresql://brokkr@${proxy.host}:${proxy.port}/${database.name}?sslmode=disable`;
    const cutOff = startReplica({ own: await openTestDatabase(url) });
    await expect.poll(() => sink.open()).toBe(1);
    proxy.stall();
    const heir = startReplica();
    await expect.poll(async () => (await rowOf(id))?.status, { timeout: 20_000 }).toBe('success');
    expect(events.slice(0, 3)).toEqual(['begin 0', 'end 0', 'begin 1']);
    await proxy.heal();
    for (const replica of [cutOff, heir]) await replica.stop();
  }, 30_000);

  it('stops what is deleted on its way', async () => {
    const { sink, id } = await queueOne(() => undefined);
    const replica = startReplica();
    await expect.poll(() => sink.open()).toBe(1);
    await db.query('delete from webhook_subscription where id = (select subscription_id from webhook_delivery where id = $1)', [
      id,
    ]);
    await expect.poll(() => sink.open(), { timeout: 15_000 }).toBe(0);
    expect(await rowOf(id)).toBeUndefined();
    await replica.stop();
  });

  it('gives back what it cannot finish when it stops', async () => {
    const { sink, id } = await queueOne((response, _request, index) => void (index > 0 && response.writeHead(200).end()));
    const replica = startReplica();
    await expect.poll(() => sink.open()).toBe(1);
    await replica.stop();
    expect(await rowOf(id)).toEqual({ status: 'pending', attempts: 1, acquired_by: null });
    const heir = startReplica();
    await expect.poll(() => sink.received.length).toBe(2);
    await heir.stop();
  }, 20_000);
});
