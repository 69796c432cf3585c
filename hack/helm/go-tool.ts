import { basename, join } from 'node:path';
import { cacheDir, cachedTool, type ToolOptions } from '../interop/cache.ts';
import { command } from '../interop/command.ts';
import { goEnvironment, goFlags } from '../interop/go.ts';
import { findGo } from '../kube/toolchain.ts';

/** A program that is one package of a Go module. */
export interface GoTool {
  readonly name: string;
  /** `package@version`. */
  readonly source: string;
  /** What to expect of the build, for example `a minute`. */
  readonly cost: string;
}

/** The path of the program, built from its Go module on first use. */
export async function findGoTool({ name, source, cost }: GoTool, options: ToolOptions, signal: AbortSignal): Promise<string> {
  const dir = await cachedTool(
    {
      name,
      inputs: [source, ...goFlags],
      cost,
      async build(target) {
        const go = await findGo({ env: options.env, cacheDir: cacheDir(options.env), progress: options.progress }, signal);
        await command(go, ['install', ...goFlags, source], { env: { ...goEnvironment(options.env), GOBIN: target } }, signal);
      },
    },
    options,
    signal,
  );
  return join(dir, basename(source.split('@')[0] ?? ''));
}
