/**
 * Builds the npm package into `dist`: the modules of the four programs as JavaScript, at the same places as their sources, with
 * the files they read. `npm run build`, then `npm pack ./dist`. A module stays a file, so that what is found by `import.meta` is
 * found in the package; bundles would spare an agent no memory (docs/image.md). Dependencies stay dependencies.
 */
import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { rolldown } from 'rolldown';
import { ROOT } from './process.ts';

const DIST = join(ROOT, 'dist');

/** What starts by itself: the programs, and the thread that `lib/yaml-pool.ts` names in a URL. */
const ENTRIES = ['broker/main.ts', 'agent/main.ts', 'gateway/main.ts', 'cli/main.ts', 'lib/yaml-worker.ts'];

/** What the programs read beside their modules, and what a reader of a package looks for. */
const FILES = [
  'bin',
  'broker/migrations',
  'docs/reference',
  'examples/hello',
  'hack/kube/go.mod',
  'hack/kube/go.sum',
  'hack/kube/stages.yaml',
  'CHANGELOG.md',
  'LICENSE',
  'README.md',
];

async function compile(): Promise<void> {
  const bundle = await rolldown({
    cwd: ROOT,
    input: ENTRIES,
    platform: 'node',
    tsconfig: join(ROOT, 'tsconfig.json'),
    external: (id) => /^[^./#]/.test(id), // a package or a module of Node
  });
  await bundle.write({ dir: DIST, format: 'esm', preserveModules: true, preserveModulesRoot: ROOT });
  await bundle.close();
}

/** The manifest of the package: what concerns the checkout is left out. */
async function writeManifest(): Promise<void> {
  const {
    private: _,
    imports,
    scripts,
    devDependencies,
    ...manifest
  } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as Record<string, unknown>;
  const published = { ...manifest, engines: { node: '>=24' }, exports: { './package.json': './package.json' } };
  await writeFile(join(DIST, 'package.json'), `${JSON.stringify(published, undefined, 2)}\n`);
}

await rm(DIST, { recursive: true, force: true });
await compile();
await Promise.all(FILES.map((file) => cp(join(ROOT, file), join(DIST, file), { recursive: true })));
await writeManifest();
