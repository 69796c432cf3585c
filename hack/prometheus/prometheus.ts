/**
 * Unpacks Debian's Prometheus into the cache: `$(node hack/prometheus/prometheus.ts promtool) check rules FILE`. Installs nothing; it needs
 * libc alone.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { cachedTool, type ToolOptions } from '../interop/cache.ts';
import { command } from '../interop/command.ts';

/** Programs of the package. */
export type PrometheusProgram = 'prometheus' | 'promtool';

/** The path of a program, from the package that apt finds (`apt-get update` has to have run). */
export async function findPrometheus(program: PrometheusProgram, options: ToolOptions, signal: AbortSignal): Promise<string> {
  const dir = await cachedTool(
    {
      name: 'prometheus',
      inputs: ['debian'],
      cost: 'some seconds',
      async build(target) {
        const run = { env: options.env, cwd: target };
        await command('apt-get', ['download', '--option', 'APT::Sandbox::User=root', 'prometheus'], run, signal);
        const [file = ''] = (await command('find', ['.', '-name', '*.deb'], run, signal)).trim().split('\n');
        await command('dpkg-deb', ['--extract', file, '.'], run, signal);
        await rm(join(target, file));
      },
    },
    options,
    signal,
  );
  return join(dir, 'usr/bin', program);
}

if (import.meta.main) {
  const program = process.argv[2] === 'promtool' ? 'promtool' : 'prometheus';
  const progress = (line: string) => console.error(line);
  console.log(await findPrometheus(program, { env: process.env, progress }, new AbortController().signal));
}
