import { readFile, rm, writeFile } from 'node:fs/promises';
import { processIdentity } from './processes.ts';

/** A lock file held by this process. */
export interface BuildLock extends AsyncDisposable {
  readonly path: string;
}

/**
 * Takes the lock at `path`, or returns undefined while a living process holds it. A lock whose owner is gone is taken
 * over. Two processes that find the same dead owner at the same instant may both get it: harmless here, because each
 * binary is renamed into place whole; the second build only wastes time.
 */
export async function tryLock(path: string): Promise<BuildLock | undefined> {
  const mine = `${process.pid} ${await processIdentity(process.pid)}`;
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      await writeFile(path, mine, { flag: 'wx' });
      return { path, [Symbol.asyncDispose]: () => rm(path, { force: true }) };
    } catch (error) {
      if (!isExisting(error)) throw error;
    }
    if (await ownerAlive(path)) return undefined;
    await rm(path, { force: true });
  }
  return undefined;
}

async function ownerAlive(path: string): Promise<boolean> {
  const text = await readFile(path, 'utf8').catch(() => '');
  const [pid, identity] = text.split(' ');
  return identity !== undefined && (await processIdentity(Number(pid))) === identity;
}

function isExisting(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EEXIST';
}
