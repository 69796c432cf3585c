/**
 * Unpacks Debian's Prometheus into the cache: `$(node hack/prometheus/prometheus.ts promtool) check rules FILE`. Installs nothing; it needs
 * libc alone.
 */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { cachedTool, type ToolOptions } from '../interop/cache.ts';
import { command } from '../interop/command.ts';

/** Programs of the package. */
export type PrometheusProgram = 'prometheus' | 'promtool';

/** The path of a program, from the package in apt's sources; with lists of its own, for apt's may be missing or old. */
export async function findPrometheus(program: PrometheusProgram, options: ToolOptions, signal: AbortSignal): Promise<string> {
  const dir = await cachedTool(
    {
      name: 'prometheus',
      inputs: ['debian'],
      cost: 'a minute',
      async build(target) {
        const run = { env: options.env, cwd: target };
        const own = join(target, 'apt');
        for (const folder of ['lists/partial', 'cache/archives/partial']) await mkdir(join(own, folder), { recursive: true });
        const settings = [`Dir::State::lists=${own}/lists`, `Dir::Cache=${own}/cache`, 'APT::Sandbox::User=root'];
        const flags = ['--quiet', ...settings.flatMap((setting) => ['--option', setting])];
        await command('apt-get', ['update', ...flags], run, signal);
        await command('apt-get', ['download', ...flags, 'prometheus'], run, signal);
        const [file = ''] = (await readdir(target)).filter((name) => name.endsWith('.deb'));
        await command('dpkg-deb', ['--extract', file, '.'], run, signal);
        await Promise.all([rm(join(target, file)), rm(own, { recursive: true })]);
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
