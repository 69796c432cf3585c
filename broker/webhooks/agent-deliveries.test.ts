import { beforeAll, describe, expect, it } from 'vitest';
import type { WebhookTurn } from '#proto/brokkr/v1/sync_pb.js';
import { connectAgent, hello, type ScriptedAgent } from '../../test/agent-client.ts';
import { type AgentSide, startAgentSide } from '../../test/agent-side.ts';
import { startTcpProxy } from '../../test/fault-proxy.ts';
import { startWebhookRig, type Webhook, type WebhookRig } from '../../test/webhook-rig.ts';
import { opensslSignature, type Received, startWebhookSink } from '../../test/webhook-sink.ts';
import { forgetWebhookDeliveries } from '../maintenance/store.ts';

let broker: WebhookRig['broker'];
let { unique, subscribe, deliveries, settled, onlyStack } = {} as WebhookRig;

beforeAll(async () => {
  // the broker itself may not reach the sinks: whatever arrives came from an agent
  ({ broker, unique, subscribe, deliveries, settled, onlyStack } = await startWebhookRig({ allowedNetworks: '' }));
});

/** An agent with these labels whose side of the wire is real. */
async function startAgent(labels: readonly string[], tier: 'stream' | 'poll' = 'stream', url = broker.url): Promise<AgentSide> {
  const { pak } = await broker.agent(unique('agent'), labels);
  const side = await startAgentSide(url);
  Object.assign(side.endpoint, { pak });
  await side.start(tier).welcomed;
  return side;
}

/** An agent whose side of the wire the test plays. */
async function connect(labels: readonly string[]): Promise<ScriptedAgent & { readonly id: string }> {
  const { id, pak } = await broker.agent(unique('agent'), labels);
  const client = connectAgent(broker.url, pak);
  client.send(hello());
  await client.take('welcome');
  return Object.assign(client, { id });
}

/** A webhook for one stack, sent by agents with a label of its own, and what makes an event. */
async function subscribeAgents(url: string, fields: object = {}) {
  const label = unique('site');
  const { happen, ...only } = await onlyStack();
  const webhook = await subscribe(url, { ...only, target_labels: [label], ...fields });
  return { webhook, label, happen };
}

const turn = (client: ScriptedAgent, fields: Partial<WebhookTurn>) =>
  client.send({ case: 'webhookTurn', value: fields as never });

describe('a delivery by an agent', () => {
  it.each(['stream', 'poll'] as const)(
    'arrives over the session it has: %s',
    async (tier) => {
      const sink = await startWebhookSink((response, _request, index) => void response.writeHead(index === 0 ? 503 : 204).end());
      const { webhook, label, happen } = await subscribeAgents(sink.url, { auth_header: 'Bearer s3cret' });
      await using _agent = await startAgent([label, 'other'], tier);
      await happen();
      const delivery = await settled(webhook, 'success');
      expect(delivery).toMatchObject({ attempts: 2, last_error: null, last_error_kind: null });
      expect(sink.received).toHaveLength(2);
      for (const request of sink.received as Received[]) {
        expect(request.body).toBe(delivery.payload);
        expect(request.headers).toMatchObject({
          authorization: 'Bearer s3cret',
          'webhook-id': delivery.event_id,
          'x-brokkr-delivery-id': delivery.id,
          'x-brokkr-event-type': 'deployment.created',
          'webhook-signature': opensslSignature(webhook.secret, request),
        });
      }
    },
    30_000,
  );

  it('waits, and says for what, until an ACTIVE agent with all of the labels has a session', async () => {
    const sink = await startWebhookSink();
    const second = unique('site');
    const { webhook, label, happen } = await subscribeAgents(sink.url);
    await broker.api('PUT', `/api/v1/webhooks/${webhook.id}`, { target_labels: [label, second] });
    await using _half = await startAgent([label]);
    using inactive = await connect([label, second]);
    await broker.api('PUT', `/api/v1/agents/${inactive.id}`, { status: 'INACTIVE' });
    await inactive.ended;
    await happen();
    const [delivery] = await deliveries(webhook);
    const last_error = `no ACTIVE agent with the labels ${label}, ${second} has a session`;
    expect(delivery).toMatchObject({ status: 'pending', attempts: 0, last_error_kind: 'no_agent', last_error });
    const feed = (await broker.api<unknown[]>('GET', '/api/v1/webhook-deliveries?status=pending')).body;
    expect(feed).toContainEqual(delivery);
    await using _agent = await startAgent([label, second]);
    expect(await settled(webhook, 'success')).toMatchObject({ attempts: 1, last_error_kind: null });
    expect(sink.received).toHaveLength(1);
  }, 30_000);

  it('is forgotten when no agent came for as long as finished ones are kept', async () => {
    const { webhook, happen } = await subscribeAgents('http://127.0.0.1:9/');
    for (let index = 0; index < 2; index++) await happen();
    const [kept, old] = await deliveries(webhook);
    await broker.db.query(`update webhook_delivery set due_at = now() - interval '8 days' where id = $1`, [old?.id]);
    expect(await forgetWebhookDeliveries(broker.db, 7)).toBe(1);
    expect((await deliveries(webhook)).map(({ id }) => id)).toEqual([kept?.id]);
  });

  it('is taken over by another agent when the first is cut off, which stops before that', async () => {
    const events: string[] = [];
    const sink = await startWebhookSink((response, _request, index) => {
      events.push(`begin ${index}`);
      response.once('close', () => events.push(`end ${index}`));
      if (index > 0) response.writeHead(204).end();
    });
    const { webhook, label, happen } = await subscribeAgents(sink.url);
    await using proxy = await startTcpProxy({ target: { host: '127.0.0.1', port: Number(new URL(broker.url).port) } });
    await using _first = await startAgent([label], 'stream', `http://127.0.0.1:${proxy.port}`);
    await happen();
    await expect.poll(() => sink.open()).toBe(1);
    const [before] = await deliveries(webhook);
    await using _second = await startAgent([label]);
    proxy.stall();
    await expect.poll(() => sink.received.length, { timeout: 30_000 }).toBe(2);
    const after = await settled(webhook, 'success');
    expect(after).toMatchObject({ id: before?.id, attempts: 2 });
    expect(sink.received.map(({ headers }) => headers['webhook-id'])).toEqual([after.event_id, after.event_id]);
    expect(events.slice(0, 3)).toEqual(['begin 0', 'end 0', 'begin 1']);
    expect(sink.mostOpen()).toBe(1);
  }, 60_000);

  it('disables the webhook when the endpoint is gone for good; metadata services stay refused', async () => {
    const gone = await startWebhookSink((response) => void response.writeHead(410).end());
    const { webhook, label, happen } = await subscribeAgents(gone.url);
    await using _agent = await startAgent([label]);
    await happen();
    await settled(webhook, 'dead');
    expect((await broker.api<Webhook>('GET', `/api/v1/webhooks/${webhook.id}`)).body).toMatchObject({
      enabled: false,
      disabled_reason: expect.stringContaining('410'),
    });
    const { webhook: metadata, happen: again } = await subscribeAgents('http://169.254.169.254/latest/meta-data', {
      target_labels: [label],
    });
    await again();
    expect(await settled(metadata, 'failed')).toMatchObject({
      last_error_kind: 'blocked',
      last_error: expect.stringContaining('agent.webhook_allowed_networks'),
    });
  });
});

describe('an agent that asks', () => {
  it('gets at most four deliveries of a webhook and ten in all, and no signing secret', async () => {
    const label = unique('site');
    const { happen, ...only } = await onlyStack();
    const subscribeOne = () => subscribe('http://10.0.0.1/', { ...only, target_labels: [label] });
    const hooks: Webhook[] = [await subscribeOne(), await subscribeOne()];
    using client = await connect([label]);
    for (let index = 0; index < 6; index++) await happen();
    await client.take('webhooksDue');
    turn(client, { turn: 1n, room: 64 });
    expect(await client.take('webhookTurned')).toMatchObject({ turn: 1n, held: [], leaseMs: 15_000 });
    const given = () => client.waiting.flatMap(({ body }) => (body.case === 'webhookAttempt' ? [body.value] : []));
    const underWay = async () =>
      (await Promise.all(hooks.map((hook) => deliveries(hook, '?status=acquired')))).map((list) => list.length);
    expect(await underWay()).toEqual([4, 4]);
    hooks.push(await subscribeOne());
    for (let index = 0; index < 4; index++) await happen();
    turn(client, { turn: 2n, room: 64, held: given().map(({ deliveryId }) => deliveryId) });
    expect((await client.take('webhookTurned')).held).toHaveLength(8);
    expect(await underWay()).toEqual([4, 4, 2]);
    expect(given()).toHaveLength(10);
    for (const { headers, url } of given()) expect(JSON.stringify({ headers, url })).not.toContain('whsec');
  });

  it('ends and holds its own deliveries only, and each attempt once', async () => {
    const { webhook, label, happen } = await subscribeAgents('http://10.0.0.1/');
    using client = await connect([label]);
    await happen();
    await client.take('webhooksDue');
    turn(client, { turn: 1n, room: 1 });
    const { deliveryId, attempt } = await client.take('webhookAttempt');
    using liar = await connect([label]);
    const end = { deliveryId, attempt, failure: '', message: '', statusCode: 200, retryAfterMs: 0, durationMs: 1 };
    const ended = [{ ...end, $typeName: 'brokkr.v1.WebhookEnd' as const }];
    turn(liar, { turn: 1n, room: 9, held: [deliveryId], ended });
    expect((await liar.take('webhookTurned')).held).toEqual([]);
    expect(await deliveries(webhook)).toMatchObject([{ status: 'acquired', acquired_by: client.id }]);
    const failed = ended.map((item) => ({ ...item, failure: 'quantum', message: 'odd' }));
    turn(client, { turn: 2n, ended: failed });
    await client.take('webhookTurned');
    await client.take('webhookTurned');
    expect(await deliveries(webhook)).toMatchObject([{ status: 'failed', last_error_kind: 'connection', last_error: 'odd' }]);
    turn(client, { turn: 3n, ended });
    await client.take('webhookTurned');
    expect(await deliveries(webhook)).toMatchObject([{ status: 'failed', attempts: 1 }]);
  });

  it('is told again by the session that follows', async () => {
    const { label, happen } = await subscribeAgents('http://10.0.0.1/');
    const { pak } = await broker.agent(unique('agent'), [label]);
    for (let session = 0; session < 2; session++) {
      using client = connectAgent(broker.url, pak);
      client.send(hello());
      await client.take('welcome');
      if (session === 0) await happen();
      await client.take('webhooksDue');
    }
  }, 20_000);
});

describe('a webhook with target labels', () => {
  it('shows and changes them, and is not tested from the broker', async () => {
    const { id } = await subscribe('http://10.0.0.1/', { target_labels: ['a', 'b'], enabled: false });
    const path = `/api/v1/webhooks/${id}`;
    const put = async (body: object) => (await broker.api('PUT', path, body)).body;
    expect((await broker.api('GET', path)).body).toMatchObject({ target_labels: ['a', 'b'] });
    expect(await broker.api('POST', `${path}/test`)).toMatchObject({
      status: 400,
      body: { code: 'webhook_test_failed', message: expect.stringContaining('agents send') },
    });
    expect(await put({ target_labels: ['c'], clear_target_labels: true })).toMatchObject({ code: 'invalid_webhook' });
    expect(await put({ target_labels: ['c'] })).toMatchObject({ target_labels: ['c'] });
    expect(await put({ name: 'renamed' })).toMatchObject({ target_labels: ['c'] });
    expect(await put({ clear_target_labels: true })).toMatchObject({ target_labels: [] });
  });
});
