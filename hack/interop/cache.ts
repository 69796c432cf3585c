import { createHash } from 'node:crypto';
import { access, mkdir, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#lib/clock.ts';
import { tryLock } from '../kube/build-lock.ts';

/** Where to look and whom to tell. */
export interface ToolOptions {
  /** `XDG_CACHE_HOME` moves the cache; handed on to the programs that build. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Told what is being made and how long that may take; one call a line. */
  readonly progress: (line: string) => void;
}

/** A tool to be made once a machine. */
export interface Recipe {
  /** Names the tool in the cache and in progress lines. */
  readonly name: string;
  /** Everything the result depends on: versions, sources. A change makes another tool. */
  readonly inputs: readonly string[];
  /** What to expect, for example `about a minute`. */
  readonly cost: string;
  /** Fills the folder. */
  build(dir: string): Promise<void>;
}

/** The cache of everything this checkout builds for itself. */
export function cacheDir(env: ToolOptions['env']): string {
  return join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'brokkr');
}

/**
 * The folder of a tool, `$XDG_CACHE_HOME/brokkr/tools-<name>-<hash>`, made on first use. Processes that want it at the same
 * time wait for the one that makes it. What an interrupted build left behind is thrown away by the next.
 */
export async function cachedTool(
  { name, inputs, cost, build }: Recipe,
  { env, progress }: ToolOptions,
  signal: AbortSignal,
): Promise<string> {
  const hash = createHash('sha256')
    .update(JSON.stringify([inputs, process.platform, process.arch]))
    .digest('hex')
    .slice(0, 12);
  const dir = join(cacheDir(env), `tools-${name}-${hash}`);
  const finished = join(dir, '.finished');
  if (await exists(finished)) return dir;
  await mkdir(cacheDir(env), { recursive: true });
  await using _lock = await waitForLock(`${dir}.lock`, () => progress(`another process makes ${name}: waiting for it`), signal);
  if (await exists(finished)) return dir;
  progress(`making ${name}, once on this machine, ${cost}`);
  const began = systemClock.monotonic();
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir);
  await build(dir);
  await writeFile(finished, '');
  progress(`made ${name} in ${Math.round((systemClock.monotonic() - began) / 1000)} s`);
  return dir;
}

/** Waits without bound while another process builds; the end of that process frees the lock. */
async function waitForLock(path: string, onBusy: () => void, signal: AbortSignal) {
  for (let told = false; ; told = true) {
    const lock = await tryLock(path);
    if (lock !== undefined) return lock;
    if (!told) onBusy();
    await systemClock.sleep(500, signal);
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
