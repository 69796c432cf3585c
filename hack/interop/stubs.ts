import { readdir, readFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { ROOT } from '../process.ts';
import { command } from './command.ts';

/** Paths and texts of the contract with its vendored imports: what stubs in any language depend on. */
export async function contractFiles(): Promise<readonly string[]> {
  const found: string[] = [];
  for (const folder of ['proto/brokkr', 'proto/vendor']) {
    for (const entry of await readdir(join(ROOT, folder), { recursive: true, withFileTypes: true })) {
      if (entry.name.endsWith('.proto')) found.push(join(entry.parentPath, entry.name));
    }
  }
  found.sort();
  return Promise.all(found.map(async (path) => `${path.slice(ROOT.length)}\n${await readFile(path, 'utf8')}`));
}

/** What to generate. */
export interface StubOptions {
  /** A buf.gen file. */
  readonly template: string;
  /** The folder its `out` paths start from. */
  readonly out: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** Runs buf from node_modules on the contract and its vendored imports; needs no network. */
export async function generateStubs({ template, out, env }: StubOptions, signal: AbortSignal): Promise<void> {
  const path = [join(ROOT, 'node_modules/.bin'), env.PATH ?? ''].join(delimiter);
  await command('buf', ['generate', '--template', template, '--output', out], { env: { ...env, PATH: path }, cwd: ROOT }, signal);
}
