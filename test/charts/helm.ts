import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { dump } from 'js-yaml';
import { findHelm, type HelmName } from '../../hack/helm/helm.ts';
import { command } from '../../hack/interop/command.ts';
import type { Value } from '../../lib/object.ts';
import { documentsOf } from '../flows/flow-rig.ts';

/** One of our charts; also the name of the release. */
export type ChartName = 'brokkr-broker' | 'brokkr-agent';

/** The folder of a chart. */
export function chartPath(chart: ChartName): string {
  return fileURLToPath(new URL(`../../deploy/charts/${chart}`, import.meta.url));
}

/** Values without which a chart is refused: whoever installs has to give them. */
export const NEEDED: Readonly<Record<ChartName, object>> = {
  'brokkr-broker': {},
  'brokkr-agent': { broker: { existingSecret: 'agent-key' } },
};

/** What is rendered for; a Helm built from its module assumes 1.20 otherwise. */
const KUBE_VERSION = 'v1.36.3';

/** A Helm of a test, with a home of its own. */
export interface Helm extends AsyncDisposable {
  /** Runs helm with values in a file (`-f`) and returns its stdout; rejects with its output when it fails. */
  run(args: readonly string[], values?: object): Promise<string>;
  /** What a release with the chart's name in `namespace` renders to; `values` come on top of `NEEDED`. */
  render(chart: ChartName, values: object, namespace?: string): Promise<Rendered[]>;
}

/** A rendered object, as far as tests read it. */
// biome-ignore lint/suspicious/noExplicitAny: test code reads Kubernetes objects without declaring them
export type Rendered = any;

/** Opens Helm; builds it on the machine's first use, which takes minutes. `kubeconfigPath` is for commands that reach a cluster. */
export async function openHelm(name: HelmName, kubeconfigPath = '/dev/null'): Promise<Helm> {
  const { signal } = new AbortController(); // the build is bounded by the hook, each command by its test
  const progress = (line: string) => process.stderr.write(`helm: ${line}\n`);
  const path = await findHelm(name, { env: process.env, progress }, signal);
  const home = await mkdtemp(join(tmpdir(), 'brokkr-helm-'));
  const env = { HOME: home, PATH: '/usr/bin:/bin', KUBECONFIG: kubeconfigPath };
  let files = 0;
  const run: Helm['run'] = async (args, values) => {
    if (values === undefined) return command(path, args, { env }, signal);
    const file = join(home, `values-${files++}.yaml`);
    await writeFile(file, dump(values));
    return command(path, [...args, '--values', file], { env }, signal);
  };
  return {
    run,
    async render(chart, values, namespace = 'brokkr') {
      const args = ['template', chart, chartPath(chart), '--namespace', namespace, '--kube-version', KUBE_VERSION];
      return documentsOf(await run(args, merged(NEEDED[chart], values))).filter((each: Value) => each !== null);
    },
    async [Symbol.asyncDispose]() {
      await rm(home, { recursive: true, force: true });
    },
  };
}

/** Two trees of values, as Helm merges them: mappings key by key, all else from `over`. */
export function merged(base: object, over: object): object {
  const isTree = (value: unknown): value is object => typeof value === 'object' && value !== null && !Array.isArray(value);
  const under = base as Record<string, unknown>;
  const entries = Object.entries(over).map(([key, value]) => {
    const below = under[key];
    return [key, isTree(value) && isTree(below) ? merged(below, value) : value];
  });
  return { ...base, ...Object.fromEntries(entries) };
}
