import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { helmNames } from '../../hack/helm/helm.ts';
import { type Kube, useKube } from '../kube.ts';
import { type ChartName, chartPath, type Helm, merged, NEEDED, openHelm, type Rendered } from './helm.ts';
import { MATRIX } from './matrix.ts';

/** Kinds of operators that the test's API server has not; they are compared instead. */
const FOREIGN = ['Certificate', 'ServiceMonitor', 'PodMonitor', 'PrometheusRule'];
const CASES = (Object.keys(MATRIX) as ChartName[]).flatMap((chart) =>
  Object.entries(MATRIX[chart]).map(([what, values]) => ({ chart, what, values })),
);

let kube: Kube;
let namespace: string;
let folder: string;
beforeAll(async () => {
  kube = await useKube();
  namespace = await kube.namespace('charts');
  folder = await mkdtemp(join(tmpdir(), 'brokkr-charts-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Applies objects as a dry run of the server, which refuses unknown and repeated fields. */
async function dryRun(objects: readonly Rendered[]): Promise<string[]> {
  const file = join(folder, 'objects.json');
  await writeFile(file, JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }));
  const flags = ['--server-side', '--dry-run=server', '--validate=strict', '--output=name'];
  return (await kube.kubectl('apply', ...flags, '--filename', file)).trim().split('\n');
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
});
