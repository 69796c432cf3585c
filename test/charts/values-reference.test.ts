import { readFile } from 'node:fs/promises';
import { load } from 'js-yaml';
import { expect, it } from 'vitest';
import { AGENT_SETTINGS } from '../../agent/config.ts';
import { BROKER_SETTINGS } from '../../broker/config.ts';
import { describeConfig } from '../../lib/config.ts';
import { type ChartName, chartPath } from './helm.ts';

/** Values that the network documentation names; `broker.pak` and the like are those of the agent's chart. */
const DOCUMENTED: Readonly<Record<ChartName, readonly string[]>> = {
  'brokkr-broker': [
    'postgresql.external.port',
    'postgresql.external.schema',
    'postgresql.existingSecret',
    'broker.webhookDeliveryBatchSize',
    'broker.webhookDeliveryIntervalSeconds',
    'telemetry.otlpEndpoint',
    'telemetry.samplingRate',
    'ingress.enabled',
    'ingress.className',
    'ingress.tls',
    'tls.enabled',
    'tls.existingSecret',
    'tls.cert',
    'tls.key',
    'tls.certManager.enabled',
    'tls.certManager.issuer',
    'tls.certManager.issuerKind',
    'networkPolicy.enabled',
    'networkPolicy.allowIngressFrom',
    'networkPolicy.allowMetricsFrom',
    'networkPolicy.allowWebhookEgress',
  ],
  'brokkr-agent': [
    'rbac.clusterWide',
    'rbac.secretAccess.enabled',
    'rbac.secretAccess.readContents',
    'agent.pollingInterval',
    'agent.deploymentHealth.intervalSeconds',
    'broker.url',
    'broker.pak',
    'metrics.enabled',
    'networkPolicy.enabled',
    'networkPolicy.kubernetesApiCidr',
    'networkPolicy.brokerEndpoint',
    'networkPolicy.allowMetricsFrom',
  ],
};
const CHARTS = Object.keys(DOCUMENTED) as ChartName[];

type Tree = Readonly<Record<string, unknown>>;
const isTree = (value: unknown): value is Tree => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Paths of everything in a tree that is not a filled mapping. */
function leaves(tree: Tree, path: readonly string[] = []): string[] {
  return Object.entries(tree).flatMap(([key, value]) => {
    const here = [...path, key];
    return isTree(value) && Object.keys(value).length > 0 ? leaves(value, here) : [here.join('.')];
  });
}

/** The values of the reference page, by chart. */
async function listed(chart: ChartName): Promise<string[]> {
  const page = await readFile('docs/reference/values.md', 'utf8');
  const sections = page.split('\n## ').filter((section) => section.startsWith(chart));
  return sections.flatMap((section) => [...section.matchAll(/^\| `([^`]+)`/gm)].map(([, name = '']) => name));
}

async function valuesOf(folder: string): Promise<Tree> {
  return load(await readFile(`${folder}/values.yaml`, 'utf8')) as Tree;
}

const isCovered = (leaf: string, names: readonly string[]) => names.some((name) => leaf === name || leaf.startsWith(`${name}.`));

it.each(CHARTS)('the reference has every value of %s, and no other', async (chart) => {
  const names = await listed(chart);
  const own = leaves(await valuesOf(chartPath(chart)));
  const bundled =
    chart === 'brokkr-broker' ? leaves(await valuesOf(`${chartPath(chart)}/charts/postgresql`), ['postgresql']) : [];
  const all = [...own, ...bundled];
  expect(all.filter((leaf) => !isCovered(leaf, names))).toEqual([]);
  expect(names.filter((name) => !all.some((leaf) => isCovered(leaf, [name])))).toEqual([]);
  expect(new Set(names).size).toBe(names.length);
});

it.each(CHARTS)('the reference has every value of %s that the network documentation names', async (chart) => {
  const names = await listed(chart);
  expect(DOCUMENTED[chart].filter((name) => !names.includes(name))).toEqual([]);
});

// that it takes every value is seen by rendering the defaults
it.each(CHARTS)('the schema of %s takes nothing that the reference has not', async (chart) => {
  const schema = JSON.parse(await readFile(`${chartPath(chart)}/values.schema.json`, 'utf8')) as Tree;
  const names = await listed(chart);
  const unknown = (part: Tree, path: readonly string[]): string[] =>
    Object.entries(part.properties ?? {}).flatMap(([key, below]) => {
      const here = [...path, key];
      const name = here.join('.');
      if (key === 'global' || isCovered(name, names)) return [];
      if (isTree(below) && isTree(below.properties)) return unknown(below, here);
      return names.some((each) => each.startsWith(`${name}.`)) ? [] : [name]; // a group that has a schema of its own
    });
  expect(unknown(schema, [])).toEqual([]);
});

it.each([
  ['brokkr-broker', 'broker', describeConfig(BROKER_SETTINGS)],
  ['brokkr-agent', 'agent', describeConfig(AGENT_SETTINGS)],
] as const)('no secret of %s is taken as a setting, which a ConfigMap would show', async (chart, group, settings) => {
  const schema = JSON.parse(await readFile(`${chartPath(chart)}/values.schema.json`, 'utf8'));
  const secrets = settings.filter(({ secret }) => secret).map(({ key }) => key);
  expect(secrets.length).toBeGreaterThan(0);
  expect(schema.properties[group].properties.settings.properties).toMatchObject(
    Object.fromEntries(secrets.map((key) => [key, false])),
  );
});
