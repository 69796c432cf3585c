import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { Health, Phase } from '#proto/brokkr/v1/content_pb.js';
import { NackCode } from '#proto/brokkr/v1/sync_pb.js';
import { connectAgent, hello } from '../test/agent-client.ts';
import { type InProcessBroker, startInProcessBroker } from '../test/in-process-broker.ts';
import { metricsText, scrape } from '../test/scrape.ts';
import { YAML } from '../test/webhook-rig.ts';
import { startWebhookSink } from '../test/webhook-sink.ts';

let broker: InProcessBroker;
beforeAll(async () => {
  broker = await startInProcessBroker({ env: { BROKKR__BROKER__WEBHOOK_ALLOWED_NETWORKS: '127.0.0.0/8' } });
});

/** What a metric has gained since `before`, once that is `gained`. */
async function gained(name: string, before: ReadonlyMap<string, number>, by: number): Promise<void> {
  const gain = async () => ((await scrape(broker.url)).get(name) ?? 0) - (before.get(name) ?? 0);
  await expect.poll(gain, { message: name }).toBe(by);
}

describe('the metrics of a broker', () => {
  it('count requests by method of the API, however they come, and nothing that a client makes up', async () => {
    const before = await scrape(broker.url);
    await broker.api('GET', '/api/v1/stacks');
    await broker.api('POST', '/brokkr.v1.StackService/ListStacks', {});
    await fetch(`${broker.url}/api/v1/stacks`);
    await fetch(`${broker.url}/no/such/path`, { method: 'PROPFIND' });
    const list = 'endpoint="/brokkr.v1.StackService/ListStacks"';
    await gained(`http_requests_total{${list},method="GET",status="200"}`, before, 1);
    await gained(`http_requests_total{${list},method="POST",status="200"}`, before, 1);
    await gained(`http_requests_total{${list},method="GET",status="401"}`, before, 1);
    await gained('http_requests_total{endpoint="none",method="other",status="404"}', before, 1);
    await gained(`http_request_duration_seconds_count{${list},method="GET"}`, before, 2);
    expect(await metricsText(broker.url)).not.toContain('no/such');
  });

  it('count connections and bytes', async () => {
    const before = await scrape(broker.url);
    await broker.publish('large', `${YAML}data: {key: "${'x'.repeat(100_000)}"}\n`);
    const after = await scrape(broker.url);
    const gain = (name: string) => (after.get(name) ?? 0) - (before.get(name) ?? 0);
    expect(gain('network_bytes_total{direction="in"}')).toBeGreaterThan(100_000);
    expect(gain('network_bytes_total{direction="in"}')).toBeLessThan(110_000);
    expect(gain('network_bytes_total{direction="out"}')).toBeGreaterThan(5_000); // the page of the scrape before, and the answer
    expect(after.get('connections')).toBeGreaterThanOrEqual(1);
    expect(after.get('connections_accepted_total')).toBeGreaterThanOrEqual(after.get('connections') ?? 0);
    expect(after.get('tcp_segments_total{sent="first"}')).toBeGreaterThan(0);
    expect(after.has('tcp_segments_total{sent="again"}')).toBe(true);
  });

  it('count sessions, what they refuse, and how long deliveries take', async () => {
    const agent = await broker.agent('measured', ['measured']);
    const before = await scrape(broker.url);
    using client = connectAgent(broker.url, agent.pak);
    client.send(hello());
    await client.take('welcome');
    await gained('sessions{transport="stream"}', before, 1);
    const stack = await broker.publish('measured', YAML, ['measured']);
    const upsert = await client.take('upsert');
    client.send({ case: 'nack', value: { stackId: stack.id, code: NackCode.BASE_UNKNOWN } });
    await client.take('upsert');
    const received = { stackId: stack.id, receivedGeneration: 1n, receivedManifestDigest: upsert.manifestDigest };
    client.send({ case: 'status', value: { items: [{ ...received, phase: Phase.RECEIVED }] } });
    await gained('delivery_duration_seconds_count{stage="received"}', before, 1);
    const applied = { ...received, appliedGeneration: 1n, phase: Phase.APPLIED, health: Health.HEALTHY };
    client.send({ case: 'status', value: { items: [applied] } });
    await gained('delivery_duration_seconds_count{stage="healthy"}', before, 1);
    client.send({ case: 'status', value: { items: [applied] } });
    client.send({
      case: 'events',
      value: { bootId: 'b', events: [{ seq: 1n, attemptId: 'a', eventType: 'APPLY', success: true }] },
    });
    await client.take('eventsAck'); // stored after the status before it
    const after = await scrape(broker.url);
    const gain = (name: string) => (after.get(name) ?? 0) - (before.get(name) ?? 0);
    expect(gain('delivery_duration_seconds_count{stage="received"}')).toBe(1);
    expect(gain('delivery_duration_seconds_count{stage="applied"}')).toBe(1);
    expect(gain('delivery_duration_seconds_sum{stage="applied"}')).toBeGreaterThan(0);
    expect(gain('delivery_duration_seconds_sum{stage="applied"}')).toBeLessThan(30);
    expect(gain('sessions_opened_total{transport="stream"}')).toBe(1);
    expect(gain('refused_frames_total{reason="base_unknown"}')).toBe(1);
    await broker.api('PUT', `/api/v1/agents/${agent.id}`, { status: 'INACTIVE' });
    await client.take('goAway');
    using again = connectAgent(broker.url, agent.pak);
    again.send(hello());
    await again.ended;
    await gained('sessions_refused_total{code="agent_inactive"}', before, 1);
    await gained('sessions{transport="stream"}', before, 0);
  });

  it('do not count the age of old generations as delivery times of a new agent', async () => {
    const stack = await broker.publish('older', YAML, ['older']);
    const agent = await broker.agent('late', ['older']);
    const before = await scrape(broker.url);
    using client = connectAgent(broker.url, agent.pak);
    client.send(hello());
    const { manifestDigest } = await client.take('upsert');
    const item = { stackId: stack.id, receivedGeneration: 1n, receivedManifestDigest: manifestDigest, phase: Phase.RECEIVED };
    client.send({ case: 'status', value: { items: [item] } });
    const status = async () =>
      (await broker.api<{ agents: { phase: string }[] }>('GET', `/api/v1/stacks/${stack.id}/status`)).body.agents[0]?.phase;
    await expect.poll(status).toBe('received');
    const name = 'delivery_duration_seconds_count{stage="received"}';
    expect((await scrape(broker.url)).get(name)).toBe(before.get(name));
  });

  it('count attempts of webhooks, and lookups of names', async () => {
    const sink = await startWebhookSink((response) => void response.writeHead(500).end());
    const before = await scrape(broker.url);
    const url = sink.url.replace('127.0.0.1', 'localhost');
    const hook = { name: 'counted', url, event_types: ['deployment.created'], max_retries: 0 };
    expect((await broker.api('POST', '/api/v1/webhooks', hook)).status).toBe(201);
    await broker.publish('hooked', YAML);
    await gained('webhook_attempts_total{result="5xx"}', before, 1);
    await gained('dns_lookup_duration_seconds_count', before, 1);
    await gained('webhook_decrypt_failures_total', before, 0);
  });

  it('are all on the reference page', async () => {
    const declared = [...(await metricsText(broker.url)).matchAll(/^# TYPE (brokkr_\w+) (\w+)$/gm)];
    const rows = declared.map(([, name, type]) => `| \`${name}\` | ${type} |`);
    const page = await readFile('docs/reference/broker-metrics.md', 'utf8');
    expect(rows.length).toBeGreaterThan(30);
    expect(rows.filter((row) => !page.includes(row))).toEqual([]);
  });
});
