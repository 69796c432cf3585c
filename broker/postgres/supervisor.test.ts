import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../lib/clock.ts';
import { createLog } from '../../lib/log.ts';
import { openTestDatabase } from '../../test/postgres.ts';
import { serverAccount } from './account.ts';
import { findBinaries, runProgram, serverMajorVersion } from './binaries.ts';
import { lockDirectory } from './lock.ts';
import { type EmbeddedPostgresOptions, openEmbeddedPostgres } from './supervisor.ts';

const log = createLog('test', { level: 'fatal' });
const settings = { fsync: 'off' };
const isRoot = process.getuid?.() === 0;
let base: string;
let dataDir: string;

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'brokkr-supervisor-'));
  await chmod(base, 0o755);
  dataDir = join(base, 'postgres');
});
afterEach(() => rm(base, { recursive: true, force: true }));

const open = (changes: Partial<EmbeddedPostgresOptions> = {}) =>
  openEmbeddedPostgres({ dataDir, log, clock: systemClock, settings, ...changes }, AbortSignal.timeout(60_000));

/** False also for a zombie, which nobody collects in a container without an init process. */
async function isRunning(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  return stat !== undefined && !/\) Z /.test(stat);
}

/** A broker in a process of its own: opens the server, prints its pid, and waits to be killed. */
async function otherBroker() {
  const text = `import { openEmbeddedPostgres } from ${JSON.stringify(join(import.meta.dirname, 'supervisor.ts'))};
    import { systemClock } from '#lib/clock.ts'; import { createLog } from '#lib/log.ts';
    const server = await openEmbeddedPostgres({ dataDir: ${JSON.stringify(dataDir)}, log: createLog('x', { level: 'fatal' }), clock: systemClock, settings: { fsync: 'on' } }, new AbortController().signal);
    console.log(server.pid); setInterval(() => undefined, 1000);`;
  const cwd = join(import.meta.dirname, '..');
  const child = spawn(process.execPath, ['--input-type=module', '-e', text], { cwd, stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return {
    brokerPid: child.pid ?? 0,
    serverPid: Number(line),
    async kill() {
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

describe('embedded PostgreSQL', () => {
  it('makes a cluster, keeps its data over a restart, and leaves no process', async () => {
    let pid: number;
    {
      await using server = await open();
      pid = server.pid;
      await using db = await openTestDatabase(server.url);
      await db.query('create table kept (text text)');
      await db.query(`insert into kept values ('here')`);
      const [facts] = await db.query<{ listen: string; checksums: string }>(
        `select current_setting('listen_addresses') as listen, current_setting('data_checksums') as checksums`,
      );
      expect(facts).toEqual({ listen: '', checksums: 'on' });
    }
    expect(await isRunning(pid)).toBe(false);
    expect((await readdir(dataDir)).sort()).toEqual(['cluster']);
    await using again = await open();
    await using db = await openTestDatabase(again.url);
    expect(await db.query('select * from kept')).toEqual([{ text: 'here' }]);
  });

  it('takes over after a broker that was killed, with every acknowledged row', async () => {
    const killed = await otherBroker();
    const url = `postgresql://brokkr@/brokkr?host=${encodeURIComponent(join(dataDir, 'run'))}`;
    {
      await using db = await openTestDatabase(url);
      await db.query('create table kept (id integer)');
      await db.query('insert into kept select generate_series(1, 100)');
      await killed.kill();
    }
    expect(await isRunning(killed.serverPid)).toBe(true);
    await using server = await open();
    expect(server.pid).not.toBe(killed.serverPid);
    expect(await isRunning(killed.serverPid)).toBe(false);
    await using db = await openTestDatabase(server.url);
    expect(await db.query('select from kept')).toHaveLength(100);
  });

  it('refuses a directory that a live broker holds, naming it', async () => {
    const other = await otherBroker();
    await expect(open()).rejects.toThrow(`in use by another broker (process ${other.brokerPid})`);
    await other.kill();
    await using server = await open(); // free as soon as the holder is gone
    expect(server.pid).toBeGreaterThan(0);
  });

  it('starts although the lock file names a process that is somebody else', async () => {
    await (await open())[Symbol.asyncDispose]();
    await writeFile(join(dataDir, 'cluster', 'postmaster.pid'), `${process.pid}\n${join(dataDir, 'cluster')}\n1\n5432\n\n\n`);
    await using server = await open();
    expect(server.pid).toBeGreaterThan(0);
  });

  it('begins anew after a kill in the middle of making the cluster', async () => {
    await mkdir(join(dataDir, 'cluster.draft', 'base'), { recursive: true });
    await using server = await open();
    expect(server.pid).toBeGreaterThan(0);
  });

  it('reports when the server dies, and not when it is stopped', async () => {
    const server = await open();
    process.kill(server.pid, 'SIGQUIT');
    expect(await server.exit).toMatch(/ended/);
    await server[Symbol.asyncDispose]();
    const stopped = await open();
    await stopped[Symbol.asyncDispose]();
    const silent = Symbol('silent');
    expect(await Promise.race([stopped.exit, Promise.resolve(silent)])).toBe(silent);
  });

  it('uses a short socket directory when the path is too long', async () => {
    dataDir = join(base, 'x'.repeat(100));
    await using server = await open();
    await using db = await openTestDatabase(server.url);
    expect(await db.query('select 1 as one')).toEqual([{ one: 1 }]);
    expect(decodeURIComponent(server.url)).toContain(join(tmpdir(), 'brokkr-'));
  });

  it('refuses a cluster of another major version, and a directory that is none', async () => {
    await mkdir(join(dataDir, 'cluster'), { recursive: true });
    await writeFile(join(dataDir, 'cluster', 'PG_VERSION'), '14\n');
    await expect(open()).rejects.toThrow(/was written by PostgreSQL 14, this is 18/);
    await rm(join(dataDir, 'cluster', 'PG_VERSION'));
    await writeFile(join(dataDir, 'cluster', 'precious'), 'x');
    await expect(open()).rejects.toThrow(/not empty and not a PostgreSQL cluster/);
    expect(await readFile(join(dataDir, 'cluster', 'precious'), 'utf8')).toBe('x');
  });

  it('repeats what the server said when it does not start', async () => {
    await expect(open({ settings: { shared_buffers: 'nonsense' } })).rejects.toThrow(/did not start.*shared_buffers/);
  });

  it.runIf(isRoot)('says which directory the server account may not enter', async () => {
    await chmod(base, 0o700);
    await expect(open()).rejects.toThrow(`may not enter ${base}`);
  });
});

describe('bundled programs', () => {
  /** A copy of the package as npm leaves it when install scripts are off. */
  async function barePackage(): Promise<string> {
    const whole = await findBinaries({ binDir: undefined, workDir: base, account: undefined });
    const native = join(whole.postgres, '..', '..');
    const root = join(base, 'package');
    await cp(native, join(root, 'native'), { recursive: true, verbatimSymlinks: true });
    await cp(join(native, '..', 'package.json'), join(root, 'package.json'));
    const links = JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8')) as { target: string }[];
    await Promise.all(links.map((link) => rm(join(root, link.target), { force: true })));
    return root;
  }

  it('get their library links in the data directory when the install script did not run', async () => {
    const packageRoot = await barePackage();
    const binaries = await findBinaries({ binDir: undefined, workDir: base, account: undefined, packageRoot });
    expect(binaries.env.LD_LIBRARY_PATH).toContain(join(base, 'lib'));
    expect(await serverMajorVersion(binaries, undefined)).toBe(18);
    expect(await runProgram(binaries.initdb, ['--version'], binaries.env, undefined)).toMatchObject({ code: 0 });
    await expect(serverMajorVersion({ ...binaries, env: {} }, undefined)).rejects.toThrow(/cannot run.*shared libraries/);
  });

  it.runIf(isRoot)('are copied where the server account may not enter the package', async () => {
    const packageRoot = await barePackage();
    await chmod(packageRoot, 0o700);
    await mkdir(dataDir);
    const account = await serverAccount();
    const binaries = await findBinaries({ binDir: undefined, workDir: dataDir, account, packageRoot });
    expect(binaries.postgres).toContain(dataDir);
    expect(await serverMajorVersion(binaries, account)).toBe(18);
  });
});

describe('directory lock', () => {
  it('has one holder at a time, and names it', async () => {
    {
      await using _held = await lockDirectory(base);
      await expect(lockDirectory(base)).rejects.toThrow(`process ${process.pid}`);
    }
    await using _again = await lockDirectory(base);
  });
});
