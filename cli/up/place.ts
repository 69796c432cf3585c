import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { hashPak, mintKey } from '#lib/pak.ts';
import type { Env } from '../contexts.ts';
import { CliError } from '../failure.ts';

/** Where `brokkr up` keeps everything: one folder for the data of its processes, their logs and their keys. */
export interface Place {
  readonly dir: string;
  path(...parts: string[]): string;
}

/**
 * Opens the folder: the one given, or `$XDG_DATA_HOME/brokkr` (`~/.local/share/brokkr`). For root `/var/lib/brokkr`: the
 * database runs under another account, which could not enter root's home.
 */
export async function openPlace(given: string | undefined, env: Env): Promise<Place> {
  const isRoot = process.getuid?.() === 0;
  const own = () =>
    isRoot ? '/var/lib/brokkr' : join(env.XDG_DATA_HOME || join(env.HOME || homedir(), '.local', 'share'), 'brokkr');
  const dir = resolve(given ?? own());
  try {
    await mkdir(join(dir, 'logs'), { recursive: true, mode: isRoot ? 0o755 : 0o700 });
  } catch (error) {
    throw new CliError('no_data_dir', `cannot create ${dir}`, { hint: 'choose another with --data-dir', cause: error });
  }
  return { dir, path: (...parts) => join(dir, ...parts) };
}

/** The admin key of this folder's broker and its hash; minted at the first start. */
export async function adminKey(place: Place): Promise<{ readonly pak: string; readonly hash: string }> {
  const present = await readSecret(place.path('admin.key'));
  const hash = present === undefined ? undefined : hashPak(present);
  if (present !== undefined && hash !== undefined) return { pak: present, hash };
  const minted = mintKey();
  await writeSecret(place.path('admin.key'), minted.pak);
  return minted;
}

/** A secret's file without its line end; undefined when there is none. */
export async function readSecret(path: string): Promise<string | undefined> {
  return (await readFile(path, 'utf8').catch(() => undefined))?.trim();
}

/** Writes a file that only we may read, whole or not at all. */
export async function writeSecret(path: string, text: string): Promise<void> {
  const partial = `${path}.${process.pid}`;
  await writeFile(partial, `${text}\n`, { mode: 0o600 });
  await chmod(partial, 0o600);
  await rename(partial, path);
}
