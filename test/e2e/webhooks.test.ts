import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { mintKey } from '../../lib/pak.ts';
import { type TestDatabase, testDatabase } from '../postgres.ts';
import { startBroker, type TestBroker, temporaryDirectory } from '../processes.ts';
import { type Received, startWebhookSink } from '../webhook-sink.ts';
import { until } from './rig.ts';

// Issue 6, webhooks: real broker processes, a real endpoint.

let database: TestDatabase;
const adminKey = mintKey(); // one for all replicas of the database
let serial = 0;
let dir: string;

beforeAll(async () => {
  database = await testDatabase();
  dir = await temporaryDirectory();
  const subject = ['-subj', '/CN=sink', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  execFileSync('openssl', [...request, ...subject, '-keyout', join(dir, 'key'), '-out', join(dir, 'crt')], { stdio: 'ignore' });
});

const startReplica = (env: Readonly<Record<string, string>> = {}) =>
  startBroker({
    databaseUrl: database.url,
    adminKey,
    env: { BROKKR__BROKER__WEBHOOK_ALLOWED_NETWORKS: '127.0.0.0/8', NODE_EXTRA_CA_CERTS: join(dir, 'crt'), ...env },
  });

/** Subscribes to the registrations of agents. */
async function subscribe(broker: TestBroker, url: string): Promise<string> {
  const body = { name: `hook-${++serial}`, url, event_types: ['agent.registered'] };
  const answer = await broker.api<{ id: string }>('POST', '/api/v1/webhooks', body);
  expect(answer.status).toBe(201);
  return answer.body.id;
}

async function registerAgents(broker: TestBroker, count: number): Promise<void> {
  for (let index = 0; index < count; index++) {
    const { status } = await broker.api('POST', '/api/v1/agents', { name: `agent-${++serial}`, cluster_name: 'c' });
    expect(status).toBe(201);
  }
}

const deliveries = async (broker: TestBroker, id: string) =>
  (await broker.api<{ status: string; attempts: number }[]>('GET', `/api/v1/webhooks/${id}/deliveries?limit=1000`)).body;
const idsOf = ({ headers }: Received) => [headers['webhook-id'], headers['x-brokkr-delivery-id']];
const deliveryOf = ({ headers }: Received) => String(headers['x-brokkr-delivery-id']);

describe('webhooks of broker processes', () => {
  it('arrive over HTTP and HTTPS', async () => {
    const broker = await startReplica();
    const plain = await startWebhookSink();
    const secure = await startWebhookSink(undefined, {
      cert: readFileSync(join(dir, 'crt'), 'utf8'),
      key: readFileSync(join(dir, 'key'), 'utf8'),
    });
    for (const { url } of [plain, secure]) await subscribe(broker, url);
    await registerAgents(broker, 1);
    await until(
      async () => [plain.received.length, secure.received.length],
      ([a, b]) => a === 1 && b === 1,
    );
    expect(idsOf(plain.received[0] as Received)[0]).toBe(idsOf(secure.received[0] as Received)[0]);
    await broker.stop();
  });

  it('do not reach private addresses, nor names that resolve to them, unless allowed', async () => {
    const broker = await startReplica({ BROKKR__BROKER__WEBHOOK_ALLOWED_NETWORKS: '' });
    const sink = await startWebhookSink();
    const ids = [await subscribe(broker, sink.url), await subscribe(broker, `http://localhost:${sink.port}/`)];
    await registerAgents(broker, 1);
    for (const id of ids) {
      const [delivery] = await until(
        () => deliveries(broker, id),
        ([first]) => first?.status === 'failed',
      );
      expect(delivery).toMatchObject({ last_error_kind: 'blocked' });
      await broker.api('DELETE', `/api/v1/webhooks/${id}`);
    }
    expect(sink.received).toEqual([]);
    expect(await broker.line(({ msg }) => msg === 'webhook not delivered')).toMatchObject({ level: 'warn', kind: 'blocked' });
    await broker.stop();
  });

  it('are sent again under the same ids when the broker is killed between sending and recording', async () => {
    const doomed = await startReplica();
    const sink = await startWebhookSink(async (response, _request, index) => {
      if (index === 0) await doomed.stop('SIGKILL');
      response.writeHead(200).end();
    });
    const id = await subscribe(doomed, sink.url);
    await registerAgents(doomed, 1).catch(() => undefined); // killed before or after it answers
    await until(
      async () => sink.received.length,
      (count) => count === 1,
    );
    const heir = await startReplica();
    await until(
      async () => sink.received.length,
      (count) => count === 2,
      40_000,
    );
    const [first, second] = sink.received as [Received, Received];
    expect(idsOf(second)).toEqual(idsOf(first));
    expect(second.body).toBe(first.body);
    await until(
      async () => await rowsOf(id),
      ([row]) => row?.status === 'success',
    );
    expect(await rowsOf(id)).toEqual([{ status: 'success', attempts: 2 }]);
    await heir.stop();
  }, 90_000);

  it('are sent by one of two replicas at a time, and by both of them in all', async () => {
    const open = new Set<string>();
    let twice = 0;
    const sink = await startWebhookSink(async (response, request) => {
      const id = deliveryOf(request);
      if (open.has(id)) twice++;
      open.add(id);
      await new Promise((resolve) => setTimeout(resolve, 20 + (serial++ % 7) * 10));
      open.delete(id);
      response.writeHead(200).end();
    });
    const replicas = [await startReplica(), await startReplica()] as const;
    const hooks = [];
    for (let index = 0; index < 5; index++) hooks.push(await subscribe(replicas[0], sink.url));
    await Promise.all(replicas.map((replica) => registerAgents(replica, 30)));
    await until(
      async () => sink.received.length,
      (count) => count >= 300,
      60_000,
    );
    for (const id of hooks) {
      const rows = await until(
        () => rowsOf(id),
        (list) => list.every(({ status }) => status === 'success'),
      );
      expect(rows).toHaveLength(60);
      expect(rows.every(({ attempts }) => attempts === 1)).toBe(true);
    }
    expect(new Set(sink.received.map(deliveryOf)).size).toBe(300);
    expect(sink.received).toHaveLength(300);
    expect(twice).toBe(0);
    expect(sink.mostOpen()).toBeLessThanOrEqual(5 * 4); // four at each subscription, over both
    for (const { url } of replicas) {
      const metrics = await (await fetch(`${url}/metrics`)).text();
      expect(metrics).toMatch(/brokkr_webhook_attempts_total\{result="delivered"\} [1-9]/);
    }
    for (const replica of replicas) await replica.stop();
  }, 120_000);
});

async function rowsOf(id: string): Promise<readonly { readonly status: string; readonly attempts: number }[]> {
  await using db = await database.open();
  return await db.query('select status, attempts from webhook_delivery where subscription_id = $1', [id]);
}
