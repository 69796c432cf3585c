import { readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { load } from 'js-yaml';
import { beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../../hack/kube/ports.ts';
import { NackCode } from '../../proto/gen/brokkr/v1/sync_pb.js';
import { connectAgent, hello } from '../agent-client.ts';
import { createAuthority } from '../certificate-authority.ts';
import { configMap, healthyAt, type Rig, startRig, until } from '../e2e/rig.ts';
import { curlGateway, say, startGateway } from '../gateway-rig.ts';
import { type TestProcess, temporaryDirectory } from '../processes.ts';
import { metricsText, scrape } from '../scrape.ts';
import { startWebhookSink } from '../webhook-sink.ts';
import { startPrometheus, type TestPrometheus } from './prometheus.ts';
import { promtool } from './promtool.ts';

const CHARTS = ['brokkr-broker', 'brokkr-agent'].map((chart) => resolve('deploy/charts', chart));
const RULES = CHARTS.map((chart) => join(chart, 'alerts.yaml'));
const MERGE = { 'content-type': 'application/merge-patch+json' };

let rig: Rig;
let prometheus: TestPrometheus;
/** Pages of metrics: broker, the agent that streams, the one that polls, gateway. */
let pages: readonly string[];

/** Expressions of a rule file without the comparison at the end: what they measure. */
async function measured(file: string): Promise<string[]> {
  const { groups } = load(await readFile(file, 'utf8')) as { groups: { rules: { expr: string }[] }[] };
  return groups.flatMap(({ rules }) => rules.map(({ expr }) => expr.replace(/ (==|>|<) [\d.* ]+$/, '')));
}

/** Queries of the dashboards of a chart, with Grafana's variable filled in. */
async function queries(chart: string): Promise<string[]> {
  const folder = join(chart, 'dashboards');
  const texts = await Promise.all((await readdir(folder)).map((file) => readFile(join(folder, file), 'utf8')));
  const panels = texts.flatMap((text) => (JSON.parse(text) as { panels: { targets?: { expr: string }[] }[] }).panels);
  return panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr.replaceAll('$__rate_interval', '2m')));
}

async function healthUrl(agent: TestProcess): Promise<string> {
  const { address } = await agent.line(({ msg }) => msg === 'health port is open');
  return `http://${String(address).replace('0.0.0.0', '127.0.0.1')}`;
}

/** A gateway with TLS, an agent that polls through it from before it was there, so that its first connections fail, and one that streams. */
async function startAgents() {
  const authority = await createAuthority('gateway authority');
  const certificate = join(await temporaryDirectory(), 'gateway');
  await authority.issue(certificate, { hosts: ['localhost', '127.0.0.1'] });
  const port = await freePort();
  const [polling, streaming] = [await rig.register(), await rig.register()];
  const brokerUrl = `https://localhost:${port}`;
  const env = { BROKKR__AGENT__CA_FILE: authority.certFile };
  const poll = { ...env, BROKKR__AGENT__TRANSPORT: 'poll', BROKKR__AGENT__POLLING_INTERVAL: '1s' };
  const pollingUrl = await healthUrl(await rig.start(polling, { brokerUrl, env: poll }));
  await until(
    () => scrape(pollingUrl),
    (values) => [...values.keys()].some((name) => name.startsWith('agent_connection_failures_total')),
    60_000,
  );
  const listen = { BROKKR__GATEWAY__LISTEN: `127.0.0.1:${port}` };
  const gateway = await startGateway([certificate], [rig.broker.url, 'http://127.0.0.1:1'], listen);
  const streamingUrl = await healthUrl(await rig.start(streaming, { brokerUrl, env }));
  return { authority, gateway, polling, pollingUrl, streaming, streamingUrl };
}

/** Webhooks of which some fail, refused keys, sessions and frames, plain HTTP on the port of TLS. */
async function causeTrouble({ authority, gateway }: Awaited<ReturnType<typeof startAgents>>): Promise<void> {
  const sink = await startWebhookSink((response, _, index) => void response.writeHead(index % 2 === 0 ? 500 : 204).end());
  const url = sink.url.replace('127.0.0.1', 'localhost');
  await rig.broker.api('POST', '/api/v1/webhooks', { name: 'sink', url, event_types: ['*'] });
  await fetch(`${rig.broker.url}/api/v1/stacks`, { headers: { authorization: 'nonsense' } });
  await say('curl', ['-sS', `http://127.0.0.1:${gateway.port}/`]);
  await curlGateway(authority.certFile, gateway.port, '/api/v1/stacks');

  const scripted = await rig.register();
  await rig.publish('unwanted', configMap(scripted.namespace, 'x'), scripted.label);
  using client = connectAgent(rig.broker.url, scripted.pak);
  client.send(hello());
  const { stackId } = await client.take('upsert');
  client.send({ case: 'nack', value: { stackId, code: NackCode.BASE_UNKNOWN } });
  await rig.broker.api('PUT', `/api/v1/agents/${scripted.id}`, { status: 'INACTIVE' });
  await client.take('goAway');
  using again = connectAgent(rig.broker.url, scripted.pak);
  again.send(hello());
  await again.ended;
}

/** A stack that comes, is changed by others until that is a fight, and loses an object; and one that is refused. */
async function work(record: Awaited<ReturnType<Rig['register']>>, url: string, name: string): Promise<void> {
  const { namespace, label } = record;
  const both = `${configMap(namespace, 'contested')}---\n${configMap(namespace, 'b')}`;
  const { id } = await rig.publish(name, both, label);
  await rig.status(id, healthyAt(1), 120_000);
  const path = `/api/v1/namespaces/${namespace}/configmaps/contested`;
  for (let edit = 0; edit < 3; edit++) {
    await rig.kube.request('PATCH', path, { data: { key: `theirs-${edit}` } }, MERGE);
    const corrected = 'agent_drift_corrected_total{kind="ConfigMap"}';
    await until(
      () => scrape(url),
      (values) => values.get(corrected) === edit + 1,
    );
  }
  await rig.kube.request('PATCH', path, { data: { key: 'theirs' } }, MERGE);
  await until(
    () => scrape(url),
    (values) => values.get('agent_drift_fights_total{kind="ConfigMap"}') === 1,
  );
  const service = `apiVersion: v1\nkind: Service\nmetadata: {name: wrong, namespace: ${namespace}}\nspec: {clusterIP: 1.2.3.4, ports: [{port: 80}]}\n`;
  const refused = await rig.publish(`${name}-refused`, service, label);
  await rig.status(refused.id, ({ phase }) => phase === 'failed' || phase === 'refused', 60_000);
  await rig.publish(name, configMap(namespace, 'contested'), label);
}

beforeAll(async () => {
  rig = await startRig({ BROKKR__BROKER__WEBHOOK_ALLOWED_NETWORKS: '127.0.0.0/8,::1/128' });
  const agents = await startAgents();
  const { gateway: ingress, polling, pollingUrl, streaming, streamingUrl } = agents;
  pages = [rig.broker.url, streamingUrl, pollingUrl, ingress.adminUrl];
  const [broker = '', first = '', second = '', gateway = ''] = pages.map((page) => new URL(page).host);
  const jobs = { 'brokkr-broker': [broker], 'brokkr-agent': [first, second], 'brokkr-gateway': [gateway] };
  prometheus = await startPrometheus(jobs, RULES);
  await causeTrouble(agents);
  await Promise.all([work(streaming, streamingUrl, 'streamed'), work(polling, pollingUrl, 'polled')]);
});

describe('Prometheus, in front of a broker, agents and a gateway at work', () => {
  // N-026, N-027, N-143, W-050
  it('scrapes all of them, and finds nothing wrong with their pages', async () => {
    const targets = async () => {
      const { activeTargets } = await prometheus.api<{ activeTargets: { labels: { job: string }; health: string }[] }>('targets');
      return activeTargets.map(({ labels, health }) => `${labels.job} ${health}`).toSorted();
    };
    await expect.poll(targets).toEqual(['brokkr-agent up', 'brokkr-agent up', 'brokkr-broker up', 'brokkr-gateway up']);
    for (const page of pages) {
      const text = await metricsText(page);
      expect(text.length).toBeGreaterThan(5_000);
      expect(await promtool(['check', 'metrics'], text)).toEqual({ code: 0, text: '' });
    }
  });

  // W-051, W-052
  it('has data for every query of every dashboard, and for what every alert measures', async () => {
    const all = (await Promise.all([...CHARTS.map((chart) => queries(chart)), ...RULES.map((file) => measured(file))])).flat();
    expect(all.length).toBeGreaterThan(120);
    let without = all;
    const look = async () => {
      const found = await Promise.all(without.map(async (expr) => ((await prometheus.query(expr)).length > 0 ? [] : [expr])));
      without = found.flat();
      return without;
    };
    await expect.poll(look, { timeout: 45_000, interval: 1_000 }).toEqual([]);
  });

  it('evaluates every alert without an error', async () => {
    const health = async () => {
      const { groups } = await prometheus.api<{ groups: { rules: { name: string; health: string }[] }[] }>('rules');
      return groups.flatMap(({ rules }) =>
        rules.flatMap((rule) => (rule.health === 'ok' ? [] : [`${rule.name} ${rule.health}`])),
      );
    };
    await expect.poll(health).toEqual([]);
  });

  it('sees what is so', async () => {
    const value = async (expr: string) => Number((await prometheus.query(expr))[0]?.value[1]);
    await expect.poll(() => value('max(brokkr_active_agents)')).toBe(2);
    await expect.poll(() => value('max(brokkr_stacks)')).toBe(5);
    await expect.poll(() => value('max(brokkr_agents{state="inactive"})')).toBe(1);
    await expect.poll(() => value('sum(brokkr_sessions{transport="poll"})')).toBe(1);
    await expect.poll(() => value('sum(brokkr_agent_session_up)')).toBe(2);
    expect(await value('sum(brokkr_agent_connection_failures_total{to="broker",kind="refused"})')).toBeGreaterThan(0);
    expect(await value('min(brokkr_agent_broker_certificate_expiry_seconds) / 86400')).toBeCloseTo(2, 0);
    expect(await value('sum(brokkr_webhook_attempts_total{result="5xx"})')).toBeGreaterThan(0);
    expect(await value('sum(brokkr_sessions_refused_total{code="agent_inactive"})')).toBeGreaterThan(0);
  });
});
