import { beforeAll, describe, expect, it } from 'vitest';
import { useKube } from '../kube.ts';
import { beginTrace } from '../otlp/caller.ts';
import { type OtlpReceiver, type ReceivedSpan, startOtlpReceiver } from '../otlp/receiver.ts';
import { testDatabase } from '../postgres.ts';
import { startBroker } from '../processes.ts';
import { startWebhookSink, type WebhookSink } from '../webhook-sink.ts';
import { type AgentRecord, configMap, healthyAt, type Rig, rigOn, until } from './rig.ts';

// Issue 6, acceptance 6: one trace from a publication to each object and each webhook, through real processes.

let receiver: OtlpReceiver;
let sink: WebhookSink;
let rig: Rig;

beforeAll(async () => {
  [receiver, sink] = await Promise.all([startOtlpReceiver(), startWebhookSink()]);
  const { url } = await testDatabase();
  const env = { ...receiver.settings('0', 'broker'), BROKKR__BROKER__WEBHOOK_ALLOWED_NETWORKS: '127.0.0.0/8' };
  rig = rigOn(await useKube(), await startBroker({ databaseUrl: url, env }), url);
  const body = { name: 'all', url: sink.url, event_types: ['*'] };
  expect((await rig.broker.api('POST', '/api/v1/webhooks', body)).status).toBe(201);
});

async function publish(
  name: string,
  yaml: string,
  { label }: AgentRecord,
  headers: Readonly<Record<string, string>>,
): Promise<{ readonly id: string; readonly generation: number }> {
  const path = `/api/v1/stacks/by-name/${name}/apply?label=${label}`;
  const { status, body } = await rig.broker.api<{ stack: { id: string; generation: number } }>('PUT', path, yaml, {
    'content-type': 'application/yaml',
    ...headers,
  });
  expect(status).toBe(200);
  return body.stack;
}

/** `service: span` of every ancestor up to the caller's span, nearest first. */
function ancestry(spans: readonly ReceivedSpan[], { parentSpanId }: ReceivedSpan): readonly string[] {
  const parent = spans.find(({ spanId }) => spanId === parentSpanId);
  return parent ? [`${parent.service}: ${parent.name}`, ...ancestry(spans, parent)] : [parentSpanId];
}

/** The spans of a trace as `service: span`, each with its ancestors, sorted. */
function chains(spans: readonly ReceivedSpan[]): readonly string[] {
  return spans.map((span) => [`${span.service}: ${span.name}`, ...ancestry(spans, span)].join(' < ')).toSorted();
}

/** Waits for spans with these ancestors; answers all of the trace that has arrived. */
function arrived(traceId: string, wanted: readonly (readonly string[])[]): Promise<readonly ReceivedSpan[]> {
  return receiver.trace(traceId, (spans) => wanted.every((chain) => chains(spans).includes(chain.join(' < '))));
}

/** What the sink was sent in a trace: event type and the span that sent it. */
function deliveries(traceId: string) {
  return sink.received.flatMap(({ headers }) => {
    const [, trace, span] = String(headers.traceparent).split('-');
    return trace === traceId ? [{ type: String(headers['x-brokkr-event-type']), span }] : [];
  });
}

const APPLY = 'broker: PUT /api/v1/stacks/by-name/{name}/apply';

describe.each(['stream', 'poll'])('a publication, by %s', (tier) => {
  // N-029, N-069
  it('is one trace to each object applied and pruned, and to each webhook', async () => {
    const agent = await rig.register();
    await rig.start(agent, { env: { ...receiver.settings('0', 'agent'), BROKKR__AGENT__TRANSPORT: tier } });
    const namespace = await rig.kube.namespace('traced');
    const service = `apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: ${namespace}}\nspec: {ports: [{port: 80}]}\n`;
    const first = beginTrace();
    const stack = await publish(`traced-${tier}`, `${configMap(namespace, 'a')}---\n${service}`, agent, first.headers);
    const around = [`agent: sync stack`, 'agent: take generation', APPLY, first.spanId];
    const wanted = [
      [APPLY, first.spanId],
      ['agent: apply ConfigMap', ...around],
      ['agent: apply Service', ...around],
      ['agent: sync stack', ...around.slice(1)],
      ['agent: take generation', ...around.slice(2)],
      ['broker: deliver deployment.applied', 'broker: store event', ...around],
      ['broker: deliver deployment.created', APPLY, first.spanId],
      ['broker: deliver stack.created', APPLY, first.spanId],
      ['broker: store event', ...around],
    ].map((chain) => chain.join(' < '));
    const spans = await receiver.trace(first.traceId, ({ length }) => length >= wanted.length);
    expect(chains(spans)).toEqual(wanted.toSorted());
    expect(spans.find(({ name }) => name === 'apply Service')?.attributes).toEqual({
      'brokkr.object.api_version': 'v1',
      'brokkr.object.kind': 'Service',
      'brokkr.object.name': 's',
      'k8s.namespace.name': namespace,
      'brokkr.result': 'created',
    });
    expect(spans.filter(({ error }) => error !== undefined)).toEqual([]);
    const sent = spans.filter(({ kind }) => kind === 'CLIENT').map(({ name, spanId }) => ({ type: name.slice(8), span: spanId }));
    expect(deliveries(first.traceId)).toEqual(expect.arrayContaining(sent));
    expect(deliveries(first.traceId)).toHaveLength(sent.length);

    const second = beginTrace();
    await publish(`traced-${tier}`, configMap(namespace, 'a'), agent, second.headers);
    const pruned = await arrived(second.traceId, [
      ['agent: prune Service', 'agent: sync stack', 'agent: take generation', APPLY, second.spanId],
    ]);
    expect(pruned.map(({ name }) => name)).not.toContain('apply ConfigMap');

    const third = beginTrace();
    await rig.broker.api('DELETE', `/api/v1/stacks/${stack.id}`, undefined, third.headers);
    const deletion = ['broker: DELETE /api/v1/stacks/{id}', third.spanId];
    await arrived(third.traceId, [
      ['agent: prune ConfigMap', 'agent: remove stack', ...deletion],
      ['broker: deliver stack.deleted', ...deletion],
      ['broker: deliver deployment.applied', 'broker: store event', 'agent: remove stack', ...deletion],
    ]);
  }, 90_000);
});

describe('a publication', () => {
  it('that is not sampled leaves no span with anybody, whatever the rate of the agent', async () => {
    const agent = await rig.register();
    await rig.start(agent, { env: receiver.settings('1', 'eager-agent') });
    const unsampled = beginTrace({ sampled: false });
    const yaml = configMap(await rig.kube.namespace('untraced'), 'a');
    const stack = await publish('untraced', yaml, agent, unsampled.headers);
    await rig.status(stack.id, healthyAt(stack.generation));
    const sampled = beginTrace();
    await publish('untraced', `${yaml}immutable: true\n`, agent, sampled.headers);
    await receiver.trace(sampled.traceId, (spans) => spans.some(({ name }) => name === 'sync stack'));
    expect(receiver.spans.filter(({ traceId }) => traceId === unsampled.traceId)).toEqual([]);
    const [untold] = sink.received.filter(({ body }) => body.includes(stack.id));
    expect(untold?.headers).not.toHaveProperty('traceparent');
  });

  it('keeps its trace through an agent that makes none', async () => {
    const agent = await rig.register();
    await rig.start(agent);
    const { traceId, spanId, headers } = beginTrace();
    await publish('passed-on', configMap(await rig.kube.namespace('passed-on'), 'a'), agent, headers);
    await arrived(traceId, [['broker: deliver deployment.applied', 'broker: store event', APPLY, spanId]]);
  });

  it('goes on in the webhooks that agents send', async () => {
    const agent = await rig.register();
    const env = { ...receiver.settings('0', 'sending-agent'), BROKKR__AGENT__WEBHOOK_ALLOWED_NETWORKS: '127.0.0.0/8' };
    await rig.start(agent, { env });
    const inside = await startWebhookSink();
    const body = { name: 'inside', url: inside.url, event_types: ['deployment.created'], target_labels: [agent.label] };
    expect((await rig.broker.api('POST', '/api/v1/webhooks', body)).status).toBe(201);
    const { traceId, spanId, headers } = beginTrace();
    await publish('sent-by-agents', configMap(await rig.kube.namespace('inside'), 'a'), agent, headers);
    const spans = await arrived(traceId, [['sending-agent: deliver deployment.created', APPLY, spanId]]);
    const sent = spans.find(({ service, name }) => service === 'sending-agent' && name.startsWith('deliver'));
    expect(inside.received.map((request) => request.headers.traceparent)).toEqual([`00-${traceId}-${sent?.spanId}-01`]);
  });

  it('names objects that fail, and says nothing of what is in them', async () => {
    const agent = await rig.register();
    await rig.start(agent, { env: receiver.settings('0', 'agent') });
    const namespace = await rig.kube.namespace('failing');
    const secret = `apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: ${namespace}}\nstringData: {password: hunter2}\n`;
    const missing = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: ${namespace}-missing}\ndata: {key: hunter2}\n`;
    const { traceId, headers } = beginTrace();
    await publish('failing', `${secret}---\n${missing}`, agent, headers);
    const spans = await receiver.trace(traceId, (found) =>
      ['apply ConfigMap', 'deliver deployment.failed'].every((name) => found.some((span) => span.name === name)),
    );
    expect(spans.find(({ name }) => name === 'apply ConfigMap')).toMatchObject({
      error: 'namespace_not_found',
      attributes: { 'brokkr.result': 'error' },
    });
    expect(JSON.stringify(spans)).not.toContain('hunter2');
  });

  it('is behind a correction of drift no more: that is a trace of its own, at the rate of the agent', async () => {
    const agent = await rig.register();
    await rig.start(agent, { env: receiver.settings('1', 'watchful-agent') });
    const namespace = await rig.kube.namespace('drifting');
    const stack = await publish('drifting', configMap(namespace, 'a'), agent, {});
    await rig.status(stack.id, healthyAt(stack.generation));
    const path = `/api/v1/namespaces/${namespace}/configmaps/a`;
    await rig.kube.request('PATCH', path, { data: { key: 'other' } }, { 'content-type': 'application/merge-patch+json' });
    const [sync] = await until(
      async () => receiver.spans.filter(({ service, name }) => service === 'watchful-agent' && name === 'sync stack'),
      ({ length }) => length > 0,
    );
    expect(sync).toMatchObject({
      parentSpanId: '',
      attributes: { 'brokkr.attempt.type': 'DRIFT', 'brokkr.stack.name': 'drifting' },
    });
    await receiver.trace(sync?.traceId ?? '', (spans) => spans.some(({ name }) => name === 'store event'));
  });
});
