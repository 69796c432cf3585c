/**
 * Builds grpcurl into the cache: `$(node hack/interop/grpcurl.ts) -plaintext 127.0.0.1:3000 list`. Prints its path.
 */
import { join } from 'node:path';
import { findGo } from '../kube/toolchain.ts';
import { cacheDir, cachedTool, type ToolOptions } from './cache.ts';
import { command } from './command.ts';
import { goEnvironment, goFlags } from './go.ts';

const version = 'v1.9.4';
const source = `github.com/fullstorydev/grpcurl/cmd/grpcurl@${version}`;
/** The last -ldflags counts. */
const flags = [...goFlags, `-ldflags=-s -w -X main.version=${version}`];

/** The path of grpcurl, built from its Go module on first use: one to four minutes on two cores. */
export async function findGrpcurl(options: ToolOptions, signal: AbortSignal): Promise<string> {
  const dir = await cachedTool(
    {
      name: 'grpcurl',
      inputs: [source, ...flags],
      cost: 'one to four minutes',
      async build(target) {
        const go = await findGo({ env: options.env, cacheDir: cacheDir(options.env), progress: options.progress }, signal);
        await command(go, ['install', ...flags, source], { env: { ...goEnvironment(options.env), GOBIN: target } }, signal);
      },
    },
    options,
    signal,
  );
  return join(dir, 'grpcurl');
}

if (import.meta.main) {
  const progress = (line: string) => console.error(line);
  console.log(await findGrpcurl({ env: process.env, progress }, new AbortController().signal));
}
