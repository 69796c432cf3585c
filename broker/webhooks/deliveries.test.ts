import { beforeAll, describe, expect, it } from 'vitest';
import { type Delivery, startWebhookRig, type Webhook, type WebhookRig, YAML } from '../../test/webhook-rig.ts';
import { opensslSignature, type SinkAnswer, startWebhookSink } from '../../test/webhook-sink.ts';
import { forgetWebhookDeliveries } from '../maintenance/store.ts';

let broker: WebhookRig['broker'];
let { unique, subscribe, deliveries, settled, onlyStack } = {} as WebhookRig;

beforeAll(async () => {
  ({ broker, unique, subscribe, deliveries, settled, onlyStack } = await startWebhookRig());
});

describe('a delivery', () => {
  it('is posted as soon as the event is committed, signed so that openssl agrees', async () => {
    const sink = await startWebhookSink();
    const { happen, ...fields } = await onlyStack();
    const webhook = await subscribe(sink.url, { ...fields, auth_header: 'Bearer s3cret' });
    const beganMs = performance.now();
    await happen();
    await expect.poll(() => sink.received.length).toBe(1);
    const [request] = sink.received;
    if (!request) throw new Error('nothing arrived');
    expect(request.atMs - beganMs).toBeLessThan(2000); // not the 5 s of the interval
    const delivery = await settled(webhook, 'success');
    expect(delivery).toMatchObject({ attempts: 1, last_error: null, next_retry_at: null });
    expect(request.body).toBe(delivery.payload);
    expect(request.headers).toMatchObject({
      authorization: 'Bearer s3cret',
      'content-type': 'application/json',
      'webhook-id': delivery.event_id,
      'x-brokkr-delivery-id': delivery.id,
      'x-brokkr-event-type': 'deployment.created',
      'webhook-signature': opensslSignature(webhook.secret, request),
    });
    expect(Math.abs(Number(request.headers['webhook-timestamp']) - Date.now() / 1000)).toBeLessThan(30);
  });

  it('is tried again with growing gaps under the same ids, each time signed anew', async () => {
    const sink = await startWebhookSink((response, _request, index) => void response.writeHead(index < 3 ? 500 : 200).end('no'));
    const { happen, ...fields } = await onlyStack();
    const webhook = await subscribe(sink.url, fields);
    await happen();
    const delivery = await settled(webhook, 'success');
    expect(delivery.attempts).toBe(4);
    const gaps = sink.received.slice(1).map(({ atMs }, index) => atMs - (sink.received[index]?.atMs ?? 0));
    for (const [index, least] of [1600, 3200, 6400].entries()) expect(gaps[index]).toBeGreaterThan(least * 0.98);
    expect(gaps).toEqual(gaps.toSorted((a, b) => a - b));
    expect(new Set(sink.received.map(({ headers }) => headers['webhook-id']))).toEqual(new Set([delivery.event_id]));
    for (const request of sink.received)
      expect(request.headers['webhook-signature']).toBe(opensslSignature(webhook.secret, request));
  }, 40_000);

  it('is given up after as many attempts as the webhook allows; until then the next one is announced', async () => {
    const sink = await startWebhookSink((response) => void response.writeHead(500).end('no'));
    const { happen, ...fields } = await onlyStack();
    const webhook = await subscribe(sink.url, { ...fields, max_retries: 3 });
    await happen();
    const waiting = await settled(webhook, 'failed');
    expect(waiting).toMatchObject({ last_error_kind: '5xx', last_error: 'the endpoint answered 500: no', completed_at: null });
    expect(waiting.next_retry_at).toMatch(/Z$/);
    const dead = await settled(webhook, 'dead');
    expect(dead).toMatchObject({ id: waiting.id, attempts: 3, last_error_kind: '5xx', next_retry_at: null });
    expect(dead.completed_at).toMatch(/Z$/);
    const gaps = sink.received.slice(1).map(({ atMs }, index) => atMs - (sink.received[index]?.atMs ?? 0));
    expect(gaps).toHaveLength(2);
    for (const [index, least] of [1600, 3200].entries()) expect(gaps[index]).toBeGreaterThan(least * 0.98);
  }, 30_000);

  it('waits as long as Retry-After says', async () => {
    const sink = await startWebhookSink((response, _request, index) => {
      void response.writeHead(index === 0 ? 429 : 200, index === 0 ? { 'retry-after': '4' } : {}).end();
    });
    const { happen, ...fields } = await onlyStack();
    const webhook = await subscribe(sink.url, fields);
    await happen();
    await settled(webhook, 'success');
    expect((sink.received[1]?.atMs ?? 0) - (sink.received[0]?.atMs ?? 0)).toBeGreaterThan(3900);
  }, 20_000);

  it.each([
    ['4xx', 'dead', (response) => void response.writeHead(404).end('no such hook')],
    ['redirect', 'failed', (response) => void response.writeHead(302, { location: 'http://169.254.169.254/latest' }).end()],
    ['5xx', 'failed', (response) => void response.writeHead(502).end()],
    ['connection', 'failed', (response) => void response.destroy()],
    ['timeout', 'failed', () => undefined],
  ] satisfies [string, string, SinkAnswer][])('that ends as %s is %s and says so', async (kind, status, answer) => {
    const sink = await startWebhookSink(answer);
    const { happen, ...fields } = await onlyStack();
    const webhook = await subscribe(sink.url, { ...fields, timeout_seconds: 1, max_retries: 5 });
    await happen();
    const delivery = await settled(webhook, status);
    expect(delivery).toMatchObject({ last_error_kind: kind, last_error: expect.stringMatching(/\w/) });
    await broker.api('DELETE', `/api/v1/webhooks/${webhook.id}`);
  });

  it('to an endpoint that is gone for good disables the webhook', async () => {
    const sink = await startWebhookSink((response) => void response.writeHead(410).end());
    const { happen, ...fields } = await onlyStack();
    const webhook = await subscribe(sink.url, fields);
    await happen();
    await settled(webhook, 'dead');
    await happen();
    expect(await deliveries(webhook)).toHaveLength(1);
    const { body } = await broker.api<Webhook>('GET', `/api/v1/webhooks/${webhook.id}`);
    expect(body).toMatchObject({ enabled: false, disabled_reason: expect.stringContaining('410') });
    const audit = await broker.db.query('select action, actor_type from audit_log where resource_id = $1 order by action', [
      webhook.id,
    ]);
    expect(audit).toEqual([
      { action: 'webhook.created', actor_type: 'admin' },
      { action: 'webhook.delivery_failed', actor_type: 'system' },
      { action: 'webhook.disabled', actor_type: 'system' },
    ]);
  });

  it('that hangs delays no other endpoint, and at most four hang at one', async () => {
    const slow = await startWebhookSink(() => undefined);
    const fast = await startWebhookSink();
    const { happen, ...fields } = await onlyStack();
    const hanging = await subscribe(slow.url, { ...fields, timeout_seconds: 20 });
    const other = await subscribe(fast.url, fields);
    for (let index = 0; index < 10; index++) await happen();
    await expect.poll(() => fast.received.length, { timeout: 5000 }).toBe(10);
    expect(slow.open()).toBe(4);
    expect(await deliveries(hanging, '?status=acquired')).toHaveLength(4);
    await expect.poll(async () => (await deliveries(other, '?status=success')).length).toBe(10);
    expect(slow.mostOpen()).toBe(4);
    await broker.api('DELETE', `/api/v1/webhooks/${hanging.id}`);
  });

  it('goes out in batches of at most 50, of 120 that are queued at once', async () => {
    const sink = await startWebhookSink();
    const label = unique('crowd');
    const fields = { event_types: ['stack.created', 'deployment.created'], filters: { labels: [label] } };
    for (let index = 0; index < 60; index++) await subscribe(sink.url, fields);
    await broker.publish(unique('stack'), YAML, [label]);
    await expect.poll(() => sink.received.length, { timeout: 20_000 }).toBe(120);
    const batches = await broker.db.query<{ size: number }>(
      `select count(*)::integer as size from webhook_delivery d join webhook_subscription s on s.id = d.subscription_id
       where s.filter_labels = array[$1] group by last_attempt_at order by last_attempt_at`,
      [label],
    );
    const sizes = batches.map(({ size }) => size);
    expect(sizes[0]).toBe(50);
    expect(Math.max(...sizes)).toBe(50);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(120);
  }, 40_000);

  it('is listed in pages and by status', async () => {
    const sink = await startWebhookSink();
    const { happen, ...fields } = await onlyStack();
    const webhook = await subscribe(sink.url, fields);
    for (let index = 0; index < 3; index++) await happen();
    await expect.poll(async () => (await deliveries(webhook, '?status=success')).length).toBe(3);
    const all = (await deliveries(webhook)).map(({ id }) => id);
    expect((await deliveries(webhook, '?limit=2&offset=1')).map(({ id }) => id)).toEqual(all.slice(1));
    expect(await deliveries(webhook, '?status=dead')).toEqual([]);
    const { headers } = await broker.api('GET', `/api/v1/webhooks/${webhook.id}/deliveries?limit=2`);
    expect(headers.get('link')).toContain('page_token=');
  });

  it('is sent again on request, under the same ids, and seen in the feed of all', async () => {
    const sink = await startWebhookSink((response, _request, index) => void response.writeHead(index === 0 ? 404 : 200).end());
    const { happen, ...fields } = await onlyStack();
    const webhook = await subscribe(sink.url, fields);
    await happen();
    const dead = await settled(webhook, 'dead');
    const feed = async (query: string) => (await broker.api<Delivery[]>('GET', `/api/v1/webhook-deliveries${query}`)).body;
    expect((await feed('?status=dead&limit=1'))[0]).toEqual(dead);
    const replayed = await broker.api<Delivery>('POST', `/api/v1/webhook-deliveries/${dead.id}/replay`);
    expect(replayed).toMatchObject({ status: 200, body: { id: dead.id, status: 'pending', attempts: 0 } });
    await settled(webhook, 'success');
    const ids = sink.received.map(({ headers }) => [headers['webhook-id'], headers['x-brokkr-delivery-id']]);
    expect(ids).toEqual([
      [dead.event_id, dead.id],
      [dead.event_id, dead.id],
    ]);
    expect((await broker.api('POST', `/api/v1/webhook-deliveries/${webhook.id}/replay`)).body).toMatchObject({
      code: 'delivery_not_found',
    });
  });

  it('is forgotten some days after it is over, and not before', async () => {
    const sink = await startWebhookSink();
    const { happen, ...fields } = await onlyStack();
    const webhook = await subscribe(sink.url, fields);
    for (let index = 0; index < 2; index++) await happen();
    await expect.poll(async () => (await deliveries(webhook, '?status=success')).length).toBe(2);
    const [kept, old] = await deliveries(webhook);
    await broker.db.query(`update webhook_delivery set completed_at = now() - interval '8 days' where id = $1`, [old?.id]);
    expect(await forgetWebhookDeliveries(broker.db, 7)).toBe(1);
    expect((await deliveries(webhook)).map(({ id }) => id)).toEqual([kept?.id]);
  });
});
