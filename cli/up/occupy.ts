import { readFile, rm } from 'node:fs/promises';
import { processIdentity } from '#kube/processes.ts';
import type { Clock } from '#lib/clock.ts';
import { CliError } from '../failure.ts';
import { type Place, writeSecret } from './place.ts';

/** A folder that is ours. Disposing gives it back: call when every process has ended. */
export interface Occupied extends AsyncDisposable {
  /** Remembers a process of ours, so that the next start finds it should we be killed. */
  add(pid: number | undefined): Promise<void>;
}

/** A process by its id, which the system uses again, and what tells it from a later one. */
interface Identified {
  readonly pid: number;
  readonly identity: string;
}

interface Occupants {
  readonly owner: Identified;
  readonly children: readonly Identified[];
}

/** Where the kernel has told them that we died, they are ending: a second signal would cut their drain short. */
const BY_THEMSELVES_MS = 2_000;
const AFTER_SIGTERM_MS = 15_000;
const AFTER_SIGKILL_MS = 5_000;
const ASK_AGAIN_MS = 20;

/**
 * Takes the folder for this `brokkr up`. What another one that was killed left running on it is ended first; throws when
 * the other one lives. Without /proc nothing can be told from a later process of the same id, and nothing is ended.
 */
export async function occupy(place: Place, note: (line: string) => void, clock: Clock, signal: AbortSignal): Promise<Occupied> {
  const path = place.path('processes.json');
  const left = await readOccupants(path);
  if (left && (await isRunning(left.owner))) {
    throw new CliError('folder_in_use', `another brokkr up (process ${left.owner.pid}) works in ${place.dir}`, {
      hint: 'choose another folder with --data-dir, and another port with --port',
    });
  }
  await Promise.all((left?.children ?? []).map((child) => end(child, note, clock, signal)));
  const owner = await identified(process.pid);
  const children: Identified[] = [];
  const save = () => writeSecret(path, JSON.stringify({ owner, children } satisfies Occupants));
  await save();
  return {
    async add(pid) {
      if (pid === undefined) return; // it did not start, its end says why
      children.push(await identified(pid));
      await save();
    },
    [Symbol.asyncDispose]: () => rm(path, { force: true }),
  };
}

async function readOccupants(path: string): Promise<Occupants | undefined> {
  const text = await readFile(path, 'utf8').catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as Occupants); // replaced as a whole, so never half a text
}

async function identified(pid: number): Promise<Identified> {
  return { pid, identity: (await processIdentity(pid)) ?? '' };
}

async function isRunning({ pid, identity }: Identified): Promise<boolean> {
  return identity.startsWith('linux:') && (await processIdentity(pid)) === identity;
}

async function end(left: Identified, note: (line: string) => void, clock: Clock, signal: AbortSignal): Promise<void> {
  if (await hasEnded(left, BY_THEMSELVES_MS, clock, signal)) return;
  note(`stopping process ${left.pid}, left by a brokkr up that was killed`);
  kill(left.pid, 'SIGTERM');
  if (await hasEnded(left, AFTER_SIGTERM_MS, clock, signal)) return;
  kill(left.pid, 'SIGKILL');
  if (await hasEnded(left, AFTER_SIGKILL_MS, clock, signal)) return;
  throw new CliError('folder_in_use', `process ${left.pid}, left by a brokkr up that was killed, does not end`);
}

async function hasEnded(left: Identified, limitMs: number, clock: Clock, signal: AbortSignal): Promise<boolean> {
  const until = clock.monotonic() + limitMs;
  while (await isRunning(left)) {
    if (clock.monotonic() > until) return false;
    await clock.sleep(ASK_AGAIN_MS, signal);
  }
  return true;
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // it ended by itself
  }
}
