import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT, run } from './process.ts';

/** The contract as last agreed: an image of both modules, without comments. */
export const BASELINE = 'proto/baseline.binpb';

/** Makes today's contract the baseline. Throws with buf's words when it does not compile. */
export async function writeBaseline(): Promise<void> {
  const { code, stderr } = await run('buf', ['build', '--exclude-source-info', '--output', BASELINE]);
  if (code !== 0) throw new Error(`buf build failed\n${stderr}`);
}

/**
 * What in the contract under `root` breaks users of the baseline, in buf's words; vendored files do not count. Image is
 * compared with image, because a workspace of two modules cannot be compared with the one image that it is built into.
 */
export async function checkBreaking(root: string): Promise<readonly string[]> {
  const folder = await mkdtemp(join(tmpdir(), 'brokkr-image-'));
  try {
    const image = join(folder, 'image.binpb');
    const build = await run('buf', ['build', '--output', image], root);
    if (build.code !== 0) return [build.stderr];
    const against = join(ROOT, BASELINE);
    const compare = await run('buf', ['breaking', image, '--against', against, '--path', 'brokkr', '--config', 'buf.yaml'], root);
    return compare.code === 0 ? [] : [`${compare.stdout}${compare.stderr}`];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * The baseline moves only together with a changelog line: in the work tree of the checkout `root` and in every commit.
 * Nothing to say where there is no git.
 */
export async function checkBaselineHistory(root: string): Promise<readonly string[]> {
  if (!existsSync(join(root, BASELINE))) return [`${BASELINE} is missing: node hack/generate.ts --baseline`];
  const paths = ['--', BASELINE, 'CHANGELOG.md'];
  const status = await run('git', ['status', '--porcelain', '--untracked-files=all', ...paths], root);
  if (status.code !== 0) return [];
  const problems: string[] = [];
  if (status.stdout.includes(BASELINE) && !status.stdout.includes('CHANGELOG.md')) {
    problems.push(`${BASELINE} has changed in the work tree: say in CHANGELOG.md what changed in the contract`);
  }
  const log = await run('git', ['log', '--no-merges', '--format=commit %h', '--name-only', ...paths], root);
  for (const entry of log.stdout.split(/^commit /m)) {
    if (!entry.includes(BASELINE) || entry.includes('CHANGELOG.md')) continue;
    problems.push(`commit ${entry.slice(0, entry.indexOf('\n'))} changed ${BASELINE} without CHANGELOG.md`);
  }
  return problems;
}

/** Removes fields from a copy of our contract and returns a line when the comparison does not mind. */
export async function checkPlantedBreakage(): Promise<readonly string[]> {
  const copy = await mkdtemp(join(tmpdir(), 'brokkr-breaking-'));
  try {
    await cp(join(ROOT, 'buf.yaml'), join(copy, 'buf.yaml'));
    await cp(join(ROOT, 'proto'), join(copy, 'proto'), { recursive: true });
    const fields = await removeFields(join(copy, 'proto/brokkr/v1'));
    const reported = (await checkBreaking(copy)).join('\n');
    const found = fields.some((field) => reported.includes(`with name "${field}"`));
    return found ? [] : [`removed the fields [${fields.join(', ')}], but none was reported`, reported];
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}

/**
 * Removes the first scalar field of every file (a new file may not be in the baseline yet) and returns their names. The
 * options stay whole: without them the others do not compile.
 */
async function removeFields(folder: string): Promise<string[]> {
  const removed: string[] = [];
  for (const name of await readdir(folder)) {
    if (name === 'options.proto') continue;
    const text = await readFile(join(folder, name), 'utf8');
    const match = /^ {2}(?:repeated |optional )?(?:string|bytes|bool|u?int(?:32|64)) (\w+) = \d+;\n/m.exec(text);
    if (!match?.[1]) continue;
    await writeFile(join(folder, name), text.replace(match[0], ''));
    removed.push(match[1]);
  }
  return removed;
}

/** Moves the baseline without a changelog line in a repository of its own and returns a line when that goes unnoticed. */
export async function checkPlantedBaseline(): Promise<readonly string[]> {
  const copy = await mkdtemp(join(tmpdir(), 'brokkr-baseline-'));
  const git = (...args: readonly string[]) =>
    run(
      'git',
      ['-c', 'user.name=planted', '-c', 'user.email=planted@localhost', '-c', 'core.hooksPath=/dev/null', ...args],
      copy,
    );
  try {
    await git('init', '--quiet');
    await mkdir(join(copy, 'proto'));
    await writeFile(join(copy, BASELINE), 'one');
    await writeFile(join(copy, 'CHANGELOG.md'), 'one');
    await git('add', '.');
    await git('commit', '--quiet', '--message', 'both');
    const clean = await checkBaselineHistory(copy);
    await writeFile(join(copy, BASELINE), 'two');
    const inTree = await checkBaselineHistory(copy);
    await git('commit', '--quiet', '--all', '--message', 'baseline only');
    const inHistory = await checkBaselineHistory(copy);
    const found = clean.length === 0 && inTree.length === 1 && inHistory.length === 1;
    return found ? [] : [`expected 0, 1 and 1 problems, got ${JSON.stringify([clean, inTree, inHistory])}`];
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}
