import { randomUUID } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { startWebhookRig, type Webhook, type WebhookRig, YAML } from '../../test/webhook-rig.ts';
import { opensslSignature, type Received, startWebhookSink } from '../../test/webhook-sink.ts';
import { createSecretBox } from './secrets.ts';
import { getSubscription } from './store.ts';
import { resealAll } from './webhooks.ts';

let broker: WebhookRig['broker'];
let { unique, subscribe, deliveries } = {} as WebhookRig;

beforeAll(async () => {
  ({ broker, unique, subscribe, deliveries } = await startWebhookRig());
});

describe('a webhook', () => {
  it('is created, read, changed and deleted; its URL and secrets are shown once or never', async () => {
    const sink = await startWebhookSink();
    const { secret, ...webhook } = await subscribe(sink.url, { auth_header: 'Bearer s3cret', enabled: false });
    expect(secret).toMatch(/^whsec_/);
    const { body: read, headers } = await broker.api('GET', `/api/v1/webhooks/${webhook.id}`);
    expect(read).toMatchObject({
      ...webhook,
      secret: null,
      has_url: true,
      has_auth_header: true,
      max_retries: 5,
      timeout_seconds: 30,
    });
    expect(JSON.stringify(read)).not.toMatch(/s3cret|hook\//);
    const [row] = await broker.db.query<{ sealed: Buffer; key_id: string }>(
      'select sealed, key_id from webhook_subscription where id = $1',
      [webhook.id],
    );
    expect(row?.key_id).toBe('default');
    expect(row?.sealed.toString('latin1')).not.toMatch(/s3cret|127\.0\.0\.1|whsec/);

    const change = { auth_header: '', name: 'renamed', filters: { labels: ['prod'] } };
    const put = (body: object, etag = headers.get('etag') ?? '') =>
      broker.api('PUT', `/api/v1/webhooks/${webhook.id}`, body, { 'if-match': etag });
    expect((await put(change)).body).toMatchObject({ name: 'renamed', has_auth_header: false, filters: { labels: ['prod'] } });
    expect((await put(change)).status).toBe(412);
    expect((await broker.api('DELETE', `/api/v1/webhooks/${webhook.id}`)).status).toBe(204);
    expect(await broker.api('GET', `/api/v1/webhooks/${webhook.id}`)).toMatchObject({
      status: 404,
      body: { code: 'webhook_not_found' },
    });
  });

  it('does not give its secret to a repetition of the request', async () => {
    const body = { name: unique('hook'), url: 'https://example.org/', event_types: ['stack.*'], enabled: false };
    const create = () => broker.api<Webhook>('POST', '/api/v1/webhooks', body, { 'idempotency-key': 'once' });
    const [first, second] = [await create(), await create()];
    expect(second.body.id).toBe(first.body.id);
    expect([first.body.secret, second.body.secret]).toEqual([expect.stringMatching(/^whsec_/), null]);
  });

  it.each([
    ['url_required', { url: ' ' }],
    ['invalid_url_scheme', { url: 'ftp://example.org' }],
    ['invalid_webhook', { url: 'not a url' }],
    ['invalid_webhook', { url: 'https://user:pass@example.org' }],
    ['invalid_webhook', { auth_header: 'a\r\nb: c' }],
    ['invalid_webhook', { event_types: ['stack.exploded'] }],
    ['invalid_webhook', { event_types: [] }],
    ['invalid_webhook', { max_retries: 11 }],
    ['invalid_webhook', { timeout_seconds: 0 }],
  ])('is refused as %s with %o', async (code, fields) => {
    const body = { name: 'x', url: 'https://example.org', event_types: ['*'], ...fields };
    expect(await broker.api('POST', '/api/v1/webhooks', body)).toMatchObject({ status: 400, body: { code } });
  });
});

describe('a test', () => {
  it('posts one signed event at once, to a disabled webhook too, and leaves no delivery', async () => {
    const sink = await startWebhookSink();
    const webhook = await subscribe(sink.url, { enabled: false });
    const answer = await broker.api('POST', `/api/v1/webhooks/${webhook.id}/test`);
    expect(answer).toMatchObject({
      status: 200,
      body: { success: true, status_code: 204, message: expect.stringContaining('204') },
    });
    const [request] = sink.received;
    expect(JSON.parse(request?.body ?? '')).toMatchObject({ event_type: 'webhook.test', data: { webhook_id: webhook.id } });
    expect(request?.headers['webhook-signature']).toBe(opensslSignature(webhook.secret, request as Received));
    expect(await deliveries(webhook)).toEqual([]);
  });

  it('says what went wrong', async () => {
    const sink = await startWebhookSink((response) => void response.writeHead(403).end('who are you'));
    const webhook = await subscribe(sink.url, { enabled: false });
    const answer = await broker.api('POST', `/api/v1/webhooks/${webhook.id}/test`);
    const details = { kind: '4xx', status_code: 403 };
    expect(answer).toMatchObject({
      status: 400,
      body: { code: 'webhook_test_failed', message: expect.stringContaining('who are you'), details },
    });
  });
});

describe('the signing secret', () => {
  it('is replaced; for the grace both sign', async () => {
    const sink = await startWebhookSink();
    const { id, secret: old } = await subscribe(sink.url, { enabled: false });
    const rotate = async (grace_seconds: number) =>
      (await broker.api<Webhook>('POST', `/api/v1/webhooks/${id}/rotate-secret`, { grace_seconds })).body.secret;
    const fresh = await rotate(60);
    await broker.api('POST', `/api/v1/webhooks/${id}/test`);
    const last = await rotate(0);
    await broker.api('POST', `/api/v1/webhooks/${id}/test`);
    const [during, after] = sink.received as [Received, Received];
    expect(during.headers['webhook-signature']).toBe(`${opensslSignature(fresh, during)} ${opensslSignature(old, during)}`);
    expect(after.headers['webhook-signature']).toBe(opensslSignature(last, after));
    expect(new Set([old, fresh, last]).size).toBe(3);
    const outdated = await broker.api('POST', `/api/v1/webhooks/${id}/rotate-secret`, {}, { 'if-match': '"1"' });
    expect(outdated).toMatchObject({ status: 412, body: { code: 'precondition_failed' } });
  });
});

describe('the secrets of a webhook', () => {
  it('are encrypted anew with the present key, and cannot be read without theirs or in another row', async () => {
    const webhook = await subscribe('https://example.org/', { enabled: false });
    const key = (keyId: string, fill: string) => ({ keyId, key: Buffer.from(fill.repeat(32), 'hex') });
    const [old, fresh] = [key('default', 'ab'), key('new', 'cd')];
    const lost = await subscribe('https://example.org/', { enabled: false });
    await broker.db.query(`update webhook_subscription set key_id = 'lost' where id = $1`, [lost.id]);
    const { resealed, problems } = await resealAll(broker.db, createSecretBox([fresh, old]));
    expect(resealed).toBeGreaterThan(0); // one that cannot be read holds up no other
    expect(problems).toEqual([expect.stringContaining(`webhook ${lost.id} is encrypted with key lost`)]);
    await broker.api('DELETE', `/api/v1/webhooks/${lost.id}`);
    const row = await getSubscription(broker.db, webhook.id);
    expect(row.key_id).toBe('new');
    expect(createSecretBox([fresh]).open(row)).toEqual({ url: 'https://example.org/', signing: webhook.secret });
    expect(() => createSecretBox([old]).open(row)).toThrow(/encrypted with key new, which is neither/);
    expect(() => createSecretBox([fresh]).open({ ...row, id: randomUUID() })).toThrow(/does not decrypt it/);
    expect((await resealAll(broker.db, createSecretBox([old, fresh]))).problems).toEqual([]);
  });

  it('that cannot be read are named by every request that needs them', async () => {
    const webhook = await subscribe('https://example.org/', { enabled: false });
    const path = `/api/v1/webhooks/${webhook.id}`;
    await broker.db.query(`update webhook_subscription set key_id = 'lost' where id = $1`, [webhook.id]);
    const requests = [
      broker.api('POST', `${path}/test`),
      broker.api('PUT', path, { url: 'https://example.org/new' }),
      broker.api('POST', `${path}/rotate-secret`, {}),
    ];
    for (const answer of await Promise.all(requests)) {
      expect(answer).toMatchObject({
        status: 409,
        body: { code: 'webhook_secrets_unreadable', message: expect.stringContaining('encrypted with key lost') },
      });
    }
    expect((await broker.api('PUT', path, { name: 'renamed' })).status).toBe(200);
    await broker.api('DELETE', path);
  });
});

describe('an event', () => {
  it('reaches whoever wants its type, its agent, its stack or its labels', async () => {
    const sink = await startWebhookSink();
    const prod = unique('prod');
    const at = (path: string) => `${sink.url}/${path}`;
    const labelled = await subscribe(at('labels'), {
      event_types: ['stack.*', 'deployment.created'],
      filters: { labels: [prod] },
    });
    const created = await subscribe(at('created'), { event_types: ['agent.registered'] });
    const { id } = await broker.publish(unique('stack'), YAML, [prod]);
    await broker.publish(unique('stack'), YAML, ['other']);
    const agent = await broker.agent(unique('agent'));
    const about = await subscribe(at('agent'), { filters: { agent_id: agent.id } });
    await broker.api('DELETE', `/api/v1/agents/${agent.id}`);
    await broker.api('DELETE', `/api/v1/stacks/${id}`);
    const types = async (webhook: Webhook) => (await deliveries(webhook)).map((item) => item.event_type).sort();
    expect(await types(labelled)).toEqual(['deployment.created', 'deployment.created', 'stack.created', 'stack.deleted']);
    expect(await types(created)).toEqual(['agent.registered']);
    expect(await types(about)).toEqual(['agent.deregistered']);
    const [first] = await deliveries(created);
    expect(JSON.parse(first?.payload ?? '')).toEqual({
      id: first?.event_id,
      event_type: 'agent.registered',
      timestamp: expect.stringMatching(/Z$/),
      data: {
        agent_id: agent.id,
        name: expect.any(String),
        cluster_name: 'test',
        status: 'ACTIVE',
        created_at: expect.stringMatching(/Z$/),
      },
    });
  });

  it('of an agent is told as applied or failed', async () => {
    const sink = await startWebhookSink();
    const agent = await broker.agent(unique('agent'));
    const webhook = await subscribe(sink.url, { event_types: ['deployment.*'], filters: { agent_id: agent.id } });
    const { id } = await broker.publish(unique('stack'), YAML);
    const [object] = (await broker.api<{ id: string }[]>('GET', `/api/v1/stacks/${id}/deployment-objects`)).body;
    for (const status of ['SUCCESS', 'FAILURE']) {
      const body = { agent_id: agent.id, deployment_object_id: object?.id, event_type: 'APPLY', status, message: 'said' };
      expect((await broker.api('POST', `/api/v1/agents/${agent.id}/events`, body)).status).toBe(201);
    }
    await expect.poll(() => sink.received.length).toBe(2);
    const told = (await deliveries(webhook)).map(({ event_type, payload }) => [event_type, JSON.parse(payload).data]);
    expect(told).toEqual([
      ['deployment.failed', expect.objectContaining({ agent_id: agent.id, stack_id: id, status: 'FAILURE', message: 'said' })],
      ['deployment.applied', expect.objectContaining({ deployment_object_id: object?.id, status: 'SUCCESS' })],
    ]);
  });

  it('of a dry run is none', async () => {
    const webhook = await subscribe('http://127.0.0.1:9/', { event_types: ['agent.registered'] });
    await broker.api('POST', '/api/v1/agents?dry_run=true', { name: unique('agent'), cluster_name: 'test' });
    expect(await deliveries(webhook)).toEqual([]);
    await broker.api('DELETE', `/api/v1/webhooks/${webhook.id}`);
  });
});
