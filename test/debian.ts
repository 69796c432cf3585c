import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Installs Debian packages; needs root. */
export async function installPackages(...names: readonly string[]): Promise<void> {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  await run('apt-get', ['update', '-q'], { env });
  await run('apt-get', ['install', '-qy', '--no-install-recommends', ...names], { env });
}

/** Installs the packages whose program is missing. `programs`: package by program. */
export async function installPrograms(programs: Readonly<Record<string, string>>): Promise<void> {
  const missing = await Promise.all(
    Object.entries(programs).map(async ([program, name]) =>
      run('sh', ['-c', `command -v ${program}`]).then(
        () => [],
        () => [name],
      ),
    ),
  );
  if (missing.flat().length > 0) await installPackages(...missing.flat());
}
