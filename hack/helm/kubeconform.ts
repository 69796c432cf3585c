import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { cacheDir, cachedTool, type ToolOptions } from '../interop/cache.ts';
import { command } from '../interop/command.ts';
import { goEnvironment } from '../interop/go.ts';
import { findGo } from '../kube/toolchain.ts';
import { findGoTool } from './go-tool.ts';

/** The path of kubeconform, which checks objects against schemas. */
export function findKubeconform(options: ToolOptions, signal: AbortSignal): Promise<string> {
  const source = 'github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0';
  return findGoTool({ name: 'kubeconform', source, cost: 'a minute' }, options, signal);
}

/** Modules with definitions of kinds of operators that charts make objects of, and the files. */
const DEFINITIONS = [
  {
    module: 'github.com/prometheus-operator/prometheus-operator@v0.85.0',
    folder: 'example/prometheus-operator-crd',
    files: ['servicemonitors', 'podmonitors', 'prometheusrules'].map((kind) => `monitoring.coreos.com_${kind}.yaml`),
  },
  { module: 'github.com/cert-manager/cert-manager@v1.19.1', folder: 'deploy/crds', files: ['cert-manager.io_certificates.yaml'] },
] as const;

/** The files of CustomResourceDefinitions of the operators, taken out of their Go modules on first use. */
export async function findDefinitions(options: ToolOptions, signal: AbortSignal): Promise<readonly string[]> {
  const dir = await cachedTool(
    {
      name: 'definitions',
      inputs: [JSON.stringify(DEFINITIONS)],
      cost: 'half a minute',
      async build(target) {
        const go = await findGo({ env: options.env, cacheDir: cacheDir(options.env), progress: options.progress }, signal);
        for (const { module, folder, files } of DEFINITIONS) {
          const env = { ...goEnvironment(options.env), GOFLAGS: '-mod=mod' };
          const said = await command(go, ['mod', 'download', '-json', module], { env, cwd: target }, signal);
          const { Dir } = JSON.parse(said) as { readonly Dir: string };
          for (const file of files) await cp(join(Dir, folder, file), join(target, file));
        }
      },
    },
    options,
    signal,
  );
  return DEFINITIONS.flatMap(({ files }) => files.map((file) => join(dir, file)));
}
