/**
 * Builds the programs that `npm run bench -- apply` compares the agent with: `node hack/peers/peers.ts` prints their paths.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cacheDir, cachedTool, type ToolOptions } from '../interop/cache.ts';
import { command } from '../interop/command.ts';
import { goEnvironment, goFlags } from '../interop/go.ts';
import { findGo } from '../kube/toolchain.ts';

/** Package to build, from the Go module in the folder of the same name. */
const packages = { flux: '.', kapp: 'carvel.dev/kapp/cmd/kapp' } as const;

/** One of the programs. `flux KUBECONFIG FILE NAMESPACE` applies once; `kapp` is the command line of that name. */
export type PeerName = keyof typeof packages;

/** The path of a peer, built on first use: about two minutes each on two cores. */
export async function findPeer(name: PeerName, options: ToolOptions, signal: AbortSignal): Promise<string> {
  const source = join(import.meta.dirname, name);
  const files = (await readdir(source)).sort();
  const texts = await Promise.all(files.map((file) => readFile(join(source, file), 'utf8')));
  const dir = await cachedTool(
    {
      name: `peer-${name}`,
      inputs: [...texts, packages[name], ...goFlags],
      cost: 'about two minutes',
      async build(target) {
        const go = await findGo({ env: options.env, cacheDir: cacheDir(options.env), progress: options.progress }, signal);
        const args = ['build', ...goFlags, '-o', join(target, name), packages[name]];
        await command(go, args, { env: goEnvironment(options.env), cwd: source }, signal);
      },
    },
    options,
    signal,
  );
  return join(dir, name);
}

if (import.meta.main) {
  const progress = (line: string) => console.error(line);
  for (const name of Object.keys(packages) as PeerName[]) {
    console.log(await findPeer(name, { env: process.env, progress }, new AbortController().signal));
  }
}
