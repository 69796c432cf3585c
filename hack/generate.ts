/**
 * Writes every generated file: `node hack/generate.ts`. With `--check` it changes nothing and exits with 1 naming the files
 * that are not current; with `--baseline` it also writes proto/baseline.binpb, the contract that `buf breaking` compares
 * with (that file changes only together with CHANGELOG.md).
 */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { BASELINE, writeBaseline } from './breaking.ts';
import { generateMonitoring } from './generate-monitoring.ts';
import { generateNetwork } from './generate-network.ts';
import { generateOptions } from './generate-options.ts';
import { generateReference } from './generate-reference.ts';
import { generateValues } from './generate-values.ts';
import { ROOT, run } from './process.ts';

/** Makes files: path in the checkout → text. Pure but for reading the checkout. */
type Generator = () => Promise<ReadonlyMap<string, string>>;

/** Folders in which every file is generated; what no generator writes there is removed. */
const OWNED_FOLDERS = ['proto/gen', 'deploy/charts/brokkr-broker/dashboards', 'deploy/charts/brokkr-agent/dashboards'] as const;

/** Add a `hack/generate-NAME.ts` that exports a `Generator` here. */
const GENERATORS: readonly Generator[] = [
  generateProto,
  generateReference,
  generateOptions,
  generateValues,
  generateNetwork,
  generateMonitoring,
];

async function generateProto(): Promise<ReadonlyMap<string, string>> {
  const out = await mkdtemp(join(tmpdir(), 'brokkr-generate-'));
  try {
    const { code, stdout, stderr } = await run('buf', ['generate', '--output', out]);
    if (code !== 0) throw new Error(`buf generate failed\n${stdout}${stderr}`);
    return await readFolder(out, 'proto/gen');
  } finally {
    await rm(out, { recursive: true, force: true });
  }
}

async function readFolder(root: string, folder: string): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  const entries = await readdir(join(root, folder), { recursive: true, withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    files.set(path.slice(root.length + 1), await readFile(path, 'utf8'));
  }
  return files;
}

/** The files that differ from what would be generated: path → text, undefined where the file should not be there. */
async function outdated(): Promise<ReadonlyMap<string, string | undefined>> {
  const wanted = new Map<string, string>();
  for (const generate of GENERATORS) {
    for (const [path, text] of await generate()) wanted.set(path, text);
  }
  const changes = new Map<string, string | undefined>();
  for (const [path, text] of wanted) {
    const present = await readFile(join(ROOT, path), 'utf8').catch(() => undefined);
    if (present !== text) changes.set(path, text);
  }
  for (const folder of OWNED_FOLDERS) {
    for (const path of (await readFolder(ROOT, folder)).keys()) {
      if (!wanted.has(path)) changes.set(path, undefined);
    }
  }
  return changes;
}

async function write(changes: ReadonlyMap<string, string | undefined>): Promise<void> {
  for (const [path, text] of changes) {
    const file = join(ROOT, path);
    if (text === undefined) {
      await rm(file);
    } else {
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, text);
    }
    console.log(`${text === undefined ? 'removed' : 'wrote'} ${path}`);
  }
}

const changes = await outdated();
if (process.argv.includes('--check')) {
  for (const path of changes.keys()) console.log(`not current: ${path}`);
  if (changes.size > 0) console.log('run npm run generate');
  process.exitCode = changes.size > 0 ? 1 : 0;
} else {
  await write(changes);
  if (process.argv.includes('--baseline')) {
    await writeBaseline();
    console.log(`wrote ${BASELINE}`);
  }
}
