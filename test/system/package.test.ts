import { execFile } from 'node:child_process';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../../hack/kube/ports.ts';
import { ROOT } from '../../hack/process.ts';
import manifest from '../../package.json' with { type: 'json' };
import { testDatabase } from '../postgres.ts';
import { temporaryDirectory } from '../processes.ts';
import { deliver } from './delivery.ts';

const run = promisify(execFile);

let home: string;
/** Paths in the package. */
let files: readonly string[];

/** A program of the installed package, under the Node that runs us. */
function installed(name: string): [string, string] {
  return [process.execPath, join(home, 'node_modules/brokkr/bin', `${name}.js`)];
}

beforeAll(async () => {
  home = await temporaryDirectory();
  await chmod(home, 0o755); // as root, the database runs as somebody else
  await run(process.execPath, [join(ROOT, 'hack/build.ts')], { cwd: ROOT });
  const packed = await run('npm', ['pack', './dist', '--json', '--pack-destination', home], { cwd: ROOT });
  const [{ filename, files: content }] = JSON.parse(packed.stdout);
  files = content.map(({ path }: { path: string }) => path);
  await writeFile(join(home, 'package.json'), '{"private": true}');
  const quiet = ['--no-audit', '--no-fund', '--ignore-scripts', '--prefer-offline'];
  await run('npm', ['install', '--omit=dev', ...quiet, join(home, filename)], { cwd: home });
});

describe('the npm package, installed with what it depends on', () => {
  it('holds JavaScript and what it reads, and neither sources nor tests', () => {
    expect(files.filter((path) => /\.ts$|test/.test(path))).toEqual([]);
    expect(files).toEqual(expect.arrayContaining(['LICENSE', 'lib/yaml-worker.js', 'broker/migrations/0001_foundation.sql']));
  });

  it('needs no tool of development, and has the versions that were tested of what it names', async () => {
    const lock = async (path: string) => JSON.parse(await readFile(path, 'utf8')).packages;
    const [there, ours] = await Promise.all([
      lock(join(home, 'node_modules/.package-lock.json')),
      lock(join(ROOT, 'package-lock.json')),
    ]);
    for (const name of Object.keys(manifest.dependencies)) {
      expect([name, there[`node_modules/${name}`]?.version]).toEqual([name, ours[`node_modules/${name}`].version]);
    }
    const tools = Object.keys(manifest.devDependencies).filter((name) => !name.startsWith('@types/')); // some of those come with the Kubernetes client
    expect(tools.filter((name) => `node_modules/${name}` in there)).toEqual([]);
  });

  it.each(Object.keys(manifest.bin))('%s prints the version of package.json', async (name) => {
    const [node, file] = installed(name);
    expect((await run(node, [file, '--version'], { cwd: '/' })).stdout).toBe(`${manifest.version}\n`);
  });

  it('carries a publication: broker, gateway, agent', async () => {
    const { url } = await testDatabase({ empty: true });
    const { broker, gateway, agent } = await deliver({
      databaseUrl: url,
      program: installed,
      dataDir: await temporaryDirectory(),
    });
    for (const process_ of [agent, gateway, broker]) expect(await process_.stop()).toBe(0);
  });

  it('has brokkr up, with its database, its control plane and its example', async () => {
    const env = {
      PATH: process.env.PATH,
      HOME: home,
      XDG_CACHE_HOME: process.env.XDG_CACHE_HOME || join(homedir(), '.cache'),
    };
    const [node, file] = installed('brokkr');
    const port = String(await freePort());
    const up = run(node, [file, 'up', '--once', '--data-dir', join(home, 'data'), '--port', port], { cwd: home, env });
    expect((await up).stdout).toMatch(/healthy +\+[\d.]+ m?s/);
  });
});
