import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AgentValues, BrokerValues } from '../../flows/chart/network-policy-values.ts';
import {
  AGENT,
  allowed,
  BROKER,
  type BrokkrFlows,
  brokkrFlows,
  clusterWith,
  compiledPolicies,
  PODS,
  TEN_ROWS,
} from '../flows/chart-cells.ts';
import { type Helm, merged, openHelm, type Rendered } from './helm.ts';

/** Rows of the matrix that are there only when their feature is on. */
const TELEMETRY = { telemetry: { enabled: true } };

let helm: Helm;
let flows: BrokkrFlows;
beforeAll(async () => {
  helm = await openHelm('helm4');
  flows = await brokkrFlows();
});
afterAll(() => helm?.[Symbol.asyncDispose]());

/** The policies that the charts render. */
async function rendered(broker: object, agent: object): Promise<Rendered[]> {
  const objects = [
    ...(await helm.render('brokkr-broker', broker, 'brokkr')),
    ...(await helm.render('brokkr-agent', agent, 'brokkr-agent')),
  ];
  return objects.filter(({ kind }) => kind === 'NetworkPolicy');
}

/** Connections between the pods of both charts, others and addresses, in namespaces that deny by default, as compiled flows have it. */
async function connections(broker: object, agent: object): Promise<string[]> {
  const denials = compiledPolicies(flows, BROKER, AGENT).filter(({ metadata }) => metadata.name.endsWith('default-deny'));
  expect(denials).toHaveLength(2);
  return allowed(clusterWith([...(await rendered(broker, agent)), ...denials])).toSorted();
}

const without = (pattern: RegExp) => TEN_ROWS.filter((row) => !pattern.test(row)).toSorted();

describe('the policies of the charts', () => {
  it('are absent unless they are switched on', async () => {
    expect(await rendered({}, {})).toEqual([]);
  });

  it('select the pods of the charts', async () => {
    const objects = [...(await helm.render('brokkr-broker', {})), ...(await helm.render('brokkr-agent', {}, 'brokkr-agent'))];
    const labels = (name: string) =>
      objects.find(({ kind, metadata }) => /Deployment|StatefulSet/.test(kind) && metadata.name === name);
    expect(labels('brokkr-broker').spec.template.metadata.labels).toMatchObject(PODS['brokkr/broker'] ?? {});
    expect(labels('brokkr-broker-postgresql').spec.template.metadata.labels).toMatchObject(PODS['brokkr/db'] ?? {});
    expect(labels('brokkr-agent').spec.template.metadata.labels).toMatchObject(PODS['brokkr-agent/agent'] ?? {});
  });

  it('are one for each kind of pod', async () => {
    const names = (await rendered(BROKER, AGENT)).map(({ metadata }) => `${metadata.namespace}/${metadata.name}`);
    expect(names.toSorted()).toEqual(['brokkr-agent/brokkr-agent', 'brokkr/brokkr-broker', 'brokkr/brokkr-broker-postgresql']);
  });

  it('are the ten rows of the matrix with the documented values and telemetry', async () => {
    expect(await connections(merged(BROKER, TELEMETRY), merged(AGENT, TELEMETRY))).toEqual(TEN_ROWS.toSorted());
  });

  it('lack the rows of what is off', async () => {
    expect(await connections(BROKER, AGENT)).toEqual(without(/TCP\/4317$/));
    const quiet = { metrics: { enabled: false }, ...TELEMETRY };
    expect(await connections(merged(BROKER, quiet), merged(AGENT, quiet))).toEqual(without(/^monitoring/));
    const noWebhooks = { networkPolicy: { allowWebhookEgress: false }, ...TELEMETRY };
    expect(await connections(merged(BROKER, noWebhooks), merged(AGENT, TELEMETRY))).toEqual(
      without(/^brokkr\/broker [^ ]+ TCP\/443$/),
    );
  });

  it('shut nothing and open nothing to others in a namespace that denies nothing by default', async () => {
    const now = allowed(clusterWith(await rendered(merged(BROKER, TELEMETRY), merged(AGENT, TELEMETRY))));
    const ofCharts = (end: string) => /^brokkr\/(broker|db)$|^brokkr-agent\/agent$/.test(end);
    const rows = now.filter((row) => row.split(' ').slice(0, 2).some(ofCharts));
    expect(rows.toSorted()).toEqual(TEN_ROWS.toSorted());
  });

  const stray = { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'default' } } };
  const network = (networkPolicy: object) => ({ networkPolicy });
  it.each<[string, object, object]>([
    ['every peer of allowIngressFrom', network({ allowIngressFrom: [stray, { ipBlock: { cidr: '10.9.9.0/24' } }] }), {}],
    ['ranges with exceptions', network({ allowIngressFrom: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.9.0.0/16'] } }] }), {}],
    ['no allowIngressFrom', network({ allowIngressFrom: [] }), {}],
    ['other scrapers', network({ allowMetricsFrom: [stray] }), network({ allowMetricsFrom: [stray] })],
    ['no scrapers', network({ allowMetricsFrom: [] }), network({ allowMetricsFrom: [] })],
    ['no webhooks', network({ allowWebhookEgress: false }), {}],
    ['an external database', { postgresql: { enabled: false, external: { host: 'db', cidr: '10.9.9.9/32', port: 6432 } } }, {}],
    ['another API server', {}, network({ kubernetesApiCidr: '10.0.0.2/32' })],
    ['an agent without metrics', {}, { metrics: { enabled: false } }],
  ])('agree with the compiled flows, cell by cell: %s', async (_, broker, agent) => {
    const values = { broker: merged(BROKER, broker) as BrokerValues, agent: merged(AGENT, agent) as AgentValues };
    const compiled = allowed(clusterWith(compiledPolicies(flows, values.broker, values.agent))).toSorted();
    expect(await connections(merged(values.broker, TELEMETRY), merged(values.agent, TELEMETRY))).toEqual(compiled);
  });

  it('agree with the compiled flows about a broker by its address', async () => {
    const brokerEndpoint = { ipBlock: { cidr: '203.0.113.0/24' } };
    const agent = { ...AGENT, networkPolicy: { ...AGENT.networkPolicy, brokerEndpoint, brokerPort: 443 } };
    const compiled = allowed(clusterWith(compiledPolicies(flows, BROKER, agent))).toSorted();
    expect(compiled).toContain('brokkr-agent/agent 203.0.113.7 TCP/443');
    expect(await connections(merged(BROKER, TELEMETRY), merged(agent, TELEMETRY))).toEqual(compiled);
  });
});
