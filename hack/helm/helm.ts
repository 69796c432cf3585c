/**
 * Builds Helm 4 and Helm 3 into the cache: `$(node hack/helm/helm.ts helm4) lint deploy/charts/brokkr-broker`. Prints the path, of both without a name.
 */
import type { ToolOptions } from '../interop/cache.ts';
import { findGoTool } from './go-tool.ts';

/** Packages to build; both ask for Go 1.26, as the control plane does. */
const packages = { helm4: 'helm.sh/helm/v4/cmd/helm@v4.3.1', helm3: 'helm.sh/helm/v3/cmd/helm@v3.22.0' } as const;

/** One of the generations of Helm that charts are used with. */
export type HelmName = keyof typeof packages;

/** Both, newest first. */
export const helmNames = Object.keys(packages) as readonly HelmName[];

/** The path of Helm, built from its Go module on first use: about two minutes each on two cores. */
export function findHelm(name: HelmName, options: ToolOptions, signal: AbortSignal): Promise<string> {
  return findGoTool({ name, source: packages[name], cost: 'two to four minutes' }, options, signal);
}

if (import.meta.main) {
  const progress = (line: string) => console.error(line);
  const wanted = process.argv.slice(2);
  for (const name of helmNames.filter((each) => wanted.length === 0 || wanted.includes(each))) {
    console.log(await findHelm(name, { env: process.env, progress }, new AbortController().signal));
  }
}
