import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { helmNames } from '../../hack/helm/helm.ts';
import { findDefinitions, findKubeconform } from '../../hack/helm/kubeconform.ts';
import { say } from '../gateway-rig.ts';
import { type Kube, useKube } from '../kube.ts';
import { type ChartName, chartPath, type Helm, merged, NEEDED, openHelm, type Rendered } from './helm.ts';
import { MATRIX } from './matrix.ts';
import { SCHEMA_LOCATION, writeSchemas } from './schemas.ts';

/** Kinds of operators that the test's API server has not: their schemas alone judge them. */
const FOREIGN = ['Certificate', 'ServiceMonitor', 'PodMonitor', 'PrometheusRule'];
const CASES = (Object.keys(MATRIX) as ChartName[]).flatMap((chart) =>
  Object.entries(MATRIX[chart]).map(([what, values]) => ({ chart, what, values })),
);

let kube: Kube;
let namespace: string;
let folder: string;
let kubeconform: string;
beforeAll(async () => {
  kube = await useKube();
  namespace = await kube.namespace('charts');
  folder = await mkdtemp(join(tmpdir(), 'brokkr-charts-'));
  const tools = { env: process.env, progress: (line: string) => process.stderr.write(`charts: ${line}\n`) };
  const { signal } = new AbortController(); // the builds are bounded by the hook
  kubeconform = await findKubeconform(tools, signal);
  const { body } = await kube.request('GET', '/openapi/v2');
  await writeSchemas(folder, body, await findDefinitions(tools, signal));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Applies objects as a dry run of the server, which refuses unknown and repeated fields. */
async function dryRun(objects: readonly Rendered[]): Promise<string[]> {
  const file = join(folder, 'objects.json');
  await writeFile(file, JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }));
  const flags = ['--server-side', '--dry-run=server', '--validate=strict', '--output=name'];
  return (await kube.kubectl('apply', ...flags, '--filename', file)).trim().split('\n');
}

/** What kubeconform says against each object; empty when nothing. */
async function judged(objects: readonly Rendered[]): Promise<string[]> {
  const flags = ['-strict', '-output', 'json', '-schema-location', `${folder}/${SCHEMA_LOCATION}`];
  const { code, text } = await say(kubeconform, flags, objects.map((each) => JSON.stringify(each)).join('\n---\n'));
  const { resources } = JSON.parse(text) as { resources: readonly { kind: string; name: string; msg: string }[] };
  expect(code).toBe(resources.length === 0 ? 0 : 1);
  return resources.map(({ kind, name, msg }) => `${kind} ${name}: ${msg}`).toSorted();
}

describe.each(helmNames)('%s', (name) => {
  let helm: Helm;
  beforeAll(async () => {
    helm = await openHelm(name);
  });
  afterAll(() => helm?.[Symbol.asyncDispose]());

  it.each(CASES)('renders $chart with $what to what the API server takes', async ({ chart, values }) => {
    expect(await helm.run(['lint', '--strict', chartPath(chart)], merged(NEEDED[chart], values))).toContain('0 chart(s) failed');
    const objects = await helm.render(chart, values, namespace);
    const own = objects.filter(({ kind }) => !FOREIGN.includes(kind));
    expect(own.length).toBeGreaterThanOrEqual(4);
    expect(await dryRun(own)).toHaveLength(own.length);
    expect(await judged(objects)).toEqual([]);
  });
});

it('notices a field that does not exist', async () => {
  const service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'x', namespace },
    spec: { ports: [{ port: 1 }], prots: [] },
  };
  await expect(dryRun([service])).rejects.toThrow('unknown field');
  const monitor = {
    apiVersion: 'monitoring.coreos.com/v1',
    kind: 'ServiceMonitor',
    metadata: { name: 'm' },
    spec: { selector: {}, endpoints: [{ prot: 'http' }] },
  };
  expect(await judged([service, monitor])).toEqual([
    expect.stringMatching(/^Service x: .*additional properties 'prots' not allowed/),
    expect.stringMatching(/^ServiceMonitor m: .*additional properties 'prot' not allowed/),
  ]);
});
