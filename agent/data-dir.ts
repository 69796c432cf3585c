import { mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BrokkrError, errorText } from '#lib/errors.ts';

/** Agents of one machine that may share a data directory's name. */
const MAX_DIRECTORIES = 8;

/** A directory that no other live process uses. */
export interface DataDir extends AsyncDisposable {
  readonly path: string;
}

/**
 * Takes the first of the directories that can be written and that no live process holds; a taken one is followed by the
 * same name with `-2`, `-3` and so on. What a killed process left in one is found again by the next.
 */
export async function openDataDir(candidates: readonly string[]): Promise<DataDir> {
  const problems: string[] = [];
  for (const candidate of candidates) {
    for (let number = 1; number <= MAX_DIRECTORIES; number++) {
      const path = number === 1 ? candidate : `${candidate}-${number}`;
      try {
        await mkdir(path, { recursive: true, mode: 0o700 });
        const lock = join(path, 'lock');
        if (!(await takeLock(lock))) continue;
        return { path, [Symbol.asyncDispose]: () => rm(lock, { force: true }) };
      } catch (error) {
        problems.push(errorText(error));
        break;
      }
    }
  }
  throw new BrokkrError('invalid_request', `no data directory can be used: ${problems.join('; ')}`);
}

/** A small file of ours, or undefined when it is missing or unreadable. */
export async function readJson(path: string): Promise<Readonly<Record<string, unknown>> | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(path, 'utf8'));
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** Replaces a small file at once. */
export async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFile(`${path}.new`, JSON.stringify(value), { mode: 0o600 });
  await rename(`${path}.new`, path);
}

async function takeLock(path: string): Promise<boolean> {
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      const file = await open(path, 'wx', 0o600);
      await file.write(String(process.pid));
      await file.close();
      return true;
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
      const holder = Number(await readFile(path, 'utf8').catch(() => ''));
      if (holder !== process.pid && isAlive(holder)) return false; // our own number: a container that started again
      await rm(path, { force: true });
    }
  }
  return false;
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
