import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { installPackages } from './debian.ts';

const PROGRAMS = '/usr/lib/postgresql';

/** Set to `debian`, every server of the tests is Debian's (`npm run test:system`); otherwise the bundled one. */
export const SERVER_VARIABLE = 'BROKKR_TEST_POSTGRES';

/** The programs that the servers of this run are started with; none: the bundled ones. */
export async function serverPrograms(): Promise<{ readonly binDir?: string }> {
  return process.env[SERVER_VARIABLE] === 'debian' ? { binDir: await debianPrograms() } : {};
}

/** The programs of Debian's newest PostgreSQL, installed when they are missing (needs root). */
export async function debianPrograms(): Promise<string> {
  const versions = async () =>
    (await readdir(PROGRAMS).catch(() => [])).filter((name) => /^\d+$/.test(name)).sort((a, b) => Number(b) - Number(a));
  if ((await versions()).length === 0) await installPackages('postgresql');
  const [newest] = await versions();
  if (newest === undefined) throw new Error(`no PostgreSQL below ${PROGRAMS} after installing Debian's package`);
  return join(PROGRAMS, newest, 'bin');
}
