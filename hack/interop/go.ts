import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { findGo } from '../kube/toolchain.ts';
import { ROOT } from '../process.ts';
import { cacheDir, cachedTool, type ToolOptions } from './cache.ts';
import { command } from './command.ts';
import { contractFiles, generateStubs } from './stubs.ts';

/** The same for every Go program here, so that they share the compiled packages. No debug data: a sixth less time. */
export const goFlags: readonly string[] = ['-trimpath', '-gcflags=all=-dwarf=false', '-ldflags=-s -w'];

/** The user's environment without what would change the result. */
export function goEnvironment(env: ToolOptions['env']): ToolOptions['env'] {
  return { ...env, GOTOOLCHAIN: 'local', CGO_ENABLED: '0', GOFLAGS: '-mod=readonly -buildvcs=false', GOWORK: 'off' };
}

const sourceDir = join(ROOT, 'test/interop/go');
const sources = ['go.mod', 'go.sum', 'main.go'] as const;
/** Named in go.mod as tools, so that go.sum pins them. */
const plugins = ['google.golang.org/protobuf/cmd/protoc-gen-go', 'google.golang.org/grpc/cmd/protoc-gen-go-grpc'] as const;
/** The module path in go.mod. */
const modulePath = 'brokkr.test/interop';

/**
 * The path of the Go client of test/interop/go, compiled against stubs that buf writes with Go's own plugins. All of it
 * happens in the cache; made again when the contract or the client changes.
 */
export async function buildGoClient(options: ToolOptions, signal: AbortSignal): Promise<string> {
  const texts = await Promise.all(sources.map((file) => readFile(join(sourceDir, file), 'utf8')));
  const dir = await cachedTool(
    {
      name: 'interop-go',
      inputs: [...texts, ...(await contractFiles()), ...goFlags],
      cost: 'up to two minutes the first time',
      build: (target) => build(target, options, signal),
    },
    options,
    signal,
  );
  return join(dir, 'client');
}

async function build(target: string, { env, progress }: ToolOptions, signal: AbortSignal): Promise<void> {
  const go = await findGo({ env, cacheDir: cacheDir(env), progress }, signal);
  const inTarget = { env: goEnvironment(env), cwd: target };
  for (const file of sources) await cp(join(sourceDir, file), join(target, file));
  await command(go, ['build', ...goFlags, '-o', `${target}/`, ...plugins], inTarget, signal);
  const template = join(target, 'buf.gen.json');
  await writeFile(
    template,
    JSON.stringify({
      version: 'v2',
      managed: { enabled: true, override: [{ file_option: 'go_package_prefix', value: `${modulePath}/gen` }] },
      plugins: plugins.map((plugin) => ({
        local: join(target, plugin.slice(plugin.lastIndexOf('/') + 1)),
        out: 'gen',
        opt: 'paths=source_relative',
      })),
    }),
  );
  await generateStubs({ template, out: target, env }, signal);
  await command(go, ['build', ...goFlags, '-o', 'client', '.'], inTarget, signal);
}
