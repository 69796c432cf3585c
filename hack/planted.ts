import { cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { run } from './process.ts';

/** Files that break one rule each and say so in their first line; never part of a normal run. */
const PLANTED = 'hack/lint/planted';

interface Report {
  readonly diagnostics: readonly { readonly category: string; readonly location: { readonly path: string } }[];
}

/**
 * Lints a copy of the planted files under our own biome.json and returns a line for every file whose rule stayed silent
 * (or that was reported though it says `nothing`). Proves that the rules work, not only that the tree is clean.
 */
export async function checkPlantedCode(root: string): Promise<readonly string[]> {
  const copy = await mkdtemp(join(tmpdir(), 'brokkr-planted-'));
  try {
    await cp(join(root, PLANTED), copy, { recursive: true });
    for (const file of ['biome.json', 'package.json', 'hack/lint/ambient-time.grit'])
      await cp(join(root, file), join(copy, file));
    const names = await readdir(copy, { recursive: true });
    const { stdout } = await run('biome', ['lint', '--reporter=json', '--max-diagnostics=none', '.'], copy);
    const { diagnostics } = JSON.parse(stdout) as Report;
    const problems: string[] = [];
    for (const name of names.filter((file) => file.endsWith('.ts')).sort()) {
      const expected = /^\/\/ reports: (\S+)\n/.exec(await readFile(join(copy, name), 'utf8'))?.[1];
      const reported = diagnostics
        .filter(({ location }) => relative(copy, join(copy, location.path)) === name)
        .map(({ category }) => category);
      const met = expected === 'nothing' ? reported.length === 0 : reported.includes(expected ?? '');
      if (!met) problems.push(`${PLANTED}/${name}: expected ${expected ?? 'a "// reports:" line'}, got [${reported.join(', ')}]`);
    }
    return problems;
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}
