import { renameSync, writeFileSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '#lib/clock.ts';
import { commandLineMentions, type Program, processIdentity } from './processes.ts';

interface PidFile {
  readonly owner: { readonly pid: number; readonly identity: string };
  readonly pids: readonly number[];
}

/** Records which of these programs run on a state directory and for whom. */
export async function recordPrograms(dir: string, programs: ReadonlyMap<string, Program>): Promise<void> {
  const identity = (await processIdentity(process.pid)) ?? '';
  const pids = [...programs.values()].filter((program) => program.running()).map(({ pid }) => pid);
  const file: PidFile = { owner: { pid: process.pid, identity }, pids };
  const path = join(dir, 'pids.json');
  writeFileSync(`${path}.tmp`, JSON.stringify(file)); // not interleaved with another start, and whole or not at all
  renameSync(`${path}.tmp`, path);
}

/** Forgets the record: call when every program has ended. */
export async function forgetPrograms(dir: string): Promise<void> {
  await rm(join(dir, 'pids.json'), { force: true });
}

/**
 * Kills the programs a dead owner left on this state directory, after making sure by their command line that they are
 * those. Throws when the owner lives: two control planes must not share a directory.
 */
export async function killLeftovers(dir: string, signal: AbortSignal): Promise<void> {
  const text = await readFile(join(dir, 'pids.json'), 'utf8').catch(() => undefined);
  if (text === undefined) return;
  const { owner, pids } = JSON.parse(text) as PidFile;
  if ((await processIdentity(owner.pid)) === owner.identity) {
    throw new Error(`the control plane in ${dir} is in use by process ${owner.pid}`);
  }
  for (const pid of pids) {
    if (!(await commandLineMentions(pid, dir))) continue;
    kill(pid);
    while ((await processIdentity(pid)) !== undefined) await systemClock.sleep(20, signal);
  }
  await forgetPrograms(dir);
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // it ended by itself
  }
}
