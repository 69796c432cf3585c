import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, readlink, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import pg from 'pg';
import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { abortable } from '#lib/signal.ts';
import { type Account, closedDirectory, serverAccount } from './account.ts';
import { type Binaries, findBinaries, runProgram, serverMajorVersion } from './binaries.ts';
import { lockDirectory } from './lock.ts';

/** What the embedded server is started with. */
export interface EmbeddedPostgresOptions {
  /** Holds the cluster and what belongs to it; made when absent. Not to be shared by two brokers. */
  readonly dataDir: string;
  readonly log: Logger;
  readonly clock: Clock;
  /** Programs of an installed PostgreSQL (15 or newer) instead of the bundled ones. */
  readonly binDir?: string;
  /** Further server settings; they win over ours. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** A running server that belongs to us. Disposing stops it: at once for its clients, orderly for its files. */
export interface EmbeddedPostgres extends AsyncDisposable {
  /** Connection URI (a Unix socket, no password: the socket's directory is closed to others). */
  readonly url: string;
  /** Process id of the postmaster. */
  readonly pid: number;
  /** Resolves with a description when the server ends although nobody disposed it; otherwise never. */
  readonly exit: Promise<string>;
}

const SUPERUSER = 'brokkr';
const DATABASE = 'brokkr';
/** Names the socket file; nothing listens on it unless `settings` say so. */
const DEFAULT_PORT = '5432';
/** `sun_path` holds 108 bytes with its end mark (unix(7)). */
const SOCKET_PATH_MAX = 107;
/** Recovery after a crash replays the log first; minutes are possible on a slow disk. */
const START_TIMEOUT_MS = 300_000;
const STOP_TIMEOUT_MS = 30_000;

/**
 * Why `dataDir` cannot hold the embedded server, or undefined: as root the server runs under an unprivileged account,
 * which must be able to enter every directory above it.
 */
export async function dataDirProblem(dataDir: string): Promise<string | undefined> {
  const account = await serverAccount();
  const closed = account && (await closedDirectory(resolve(dataDir, '..'), account));
  if (!closed) return undefined;
  return `the embedded PostgreSQL runs as ${account.name} (uid ${account.uid}) because the broker is root, and ${account.name} may not enter ${closed}: choose another data directory, run as an ordinary user, or set DATABASE_URL`;
}

/**
 * Starts a real PostgreSQL in `dataDir`: makes the cluster on first use, takes over after a broker that was killed (its
 * server is stopped first), listens on a Unix socket only. Rejects with a clear text when the directory is held by
 * another broker, was written by another major version, or cannot be used by the server's account.
 */
export async function openEmbeddedPostgres(options: EmbeddedPostgresOptions, signal: AbortSignal): Promise<EmbeddedPostgres> {
  signal.throwIfAborted();
  const dataDir = resolve(options.dataDir);
  const account = await serverAccount();
  await mkdir(dataDir, { recursive: true });
  const problem = await dataDirProblem(dataDir);
  if (problem) throw new Error(problem);
  if (account && (await closedDirectory(dataDir, account))) await chmod(dataDir, 0o711);
  await using cleanup = new AsyncDisposableStack();
  cleanup.use(await lockDirectory(dataDir));
  const binaries = await findBinaries({ binDir: options.binDir, workDir: dataDir, account });
  const cluster = join(dataDir, 'cluster');
  await prepareCluster(cluster, binaries, account);
  await clearLeftover(cluster, options, signal);
  const port = options.settings?.port ?? DEFAULT_PORT;
  const socketDir = await prepareSocketDir(dataDir, port, account);
  cleanup.defer(() => rm(socketDir, { recursive: true, force: true }));

  const { child, tail, ended } = spawnServer(cluster, socketDir, binaries, account, options);
  cleanup.defer(() => stopServer(child, ended, options.clock));
  await Promise.race([
    waitUntilReady(socketDir, Number(port), options.clock, signal),
    ended.then((reason) =>
      Promise.reject(new Error(`the embedded PostgreSQL in ${dataDir} did not start, ${reason}: ${tail.join(' | ')}`)),
    ),
  ]);

  const owned = cleanup.move();
  let disposed = false;
  options.log.info({ dataDir, pid: child.pid }, 'embedded postgresql started');
  return {
    url: `postgresql://${SUPERUSER}@:${port}/${DATABASE}?host=${encodeURIComponent(socketDir)}`,
    pid: child.pid ?? 0,
    exit: new Promise((report) => void ended.then((reason) => disposed || report(reason))),
    async [Symbol.asyncDispose]() {
      disposed = true;
      await owned.disposeAsync();
    },
  };
}

/** Makes the cluster when there is none: in a draft directory, renamed when complete, so a kill leaves no half. */
async function prepareCluster(cluster: string, binaries: Binaries, account: Account | undefined): Promise<void> {
  const major = await serverMajorVersion(binaries, account);
  const written = await readFile(join(cluster, 'PG_VERSION'), 'utf8').then(
    (text) => text.trim(),
    () => undefined,
  );
  if (written !== undefined) {
    if (Number(written) === major) return;
    throw new Error(
      `${cluster} was written by PostgreSQL ${written}, this is ${major}: dump it with ${written} and restore it, or set DATABASE_URL`,
    );
  }
  const entries = await readdir(cluster).catch(() => []);
  if (entries.length > 0) throw new Error(`${cluster} is not empty and not a PostgreSQL cluster`);
  const draft = `${cluster}.draft`;
  await rm(draft, { recursive: true, force: true });
  await mkdir(draft, { mode: 0o700 });
  if (account) await chown(draft, account.uid, account.gid);
  const args = [
    '-D',
    draft,
    '-U',
    SUPERUSER,
    '--auth-local=trust',
    '--auth-host=reject',
    '--no-locale',
    '-E',
    'UTF8',
    '--data-checksums',
  ];
  const { code, output } = await runProgram(binaries.initdb, args, binaries.env, account);
  if (code !== 0) throw new Error(`cannot make a PostgreSQL cluster in ${cluster}: ${output.trim()}`);
  await rm(cluster, { recursive: true, force: true });
  await rename(draft, cluster);
}

/**
 * Stops the server that a killed broker left behind, and removes a lock file whose process id now belongs to somebody
 * else. A process is the cluster's when it works in its directory; the server's own check covers the rest.
 */
async function clearLeftover(cluster: string, { log, clock }: EmbeddedPostgresOptions, signal: AbortSignal): Promise<void> {
  const lockFile = join(cluster, 'postmaster.pid');
  const pid = Number((await readFile(lockFile, 'utf8').catch(() => '')).split('\n')[0]);
  if (!(pid > 0)) return;
  const working = await processesIn(cluster);
  if (working.includes(pid)) {
    log.warn({ pid }, 'stopping the postgresql left by a broker that was killed');
    process.kill(pid, 'SIGINT'); // fast shutdown
  }
  const until = clock.monotonic() + STOP_TIMEOUT_MS;
  while ((await processesIn(cluster)).length > 0) {
    if (clock.monotonic() > until) throw new Error(`the PostgreSQL left in ${cluster} (process ${pid}) does not stop`);
    await clock.sleep(20, signal);
  }
  await rm(lockFile, { force: true });
}

async function processesIn(directory: string): Promise<readonly number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const places = await Promise.all(pids.map((pid) => readlink(`/proc/${pid}/cwd`).catch(() => undefined)));
  return pids.filter((_, index) => places[index] === directory).map(Number);
}

async function prepareSocketDir(dataDir: string, port: string, account: Account | undefined): Promise<string> {
  let socketDir = join(dataDir, 'run');
  if (Buffer.byteLength(`${socketDir}/.s.PGSQL.${port}`) > SOCKET_PATH_MAX) {
    socketDir = await mkdtemp(join(tmpdir(), 'brokkr-')); // mode 0700
  } else {
    await rm(socketDir, { recursive: true, force: true }); // held by nobody: we have the lock and the server is down
    await mkdir(socketDir, { mode: 0o700 });
  }
  if (account) await chown(socketDir, account.uid, account.gid);
  return socketDir;
}

interface Server {
  readonly child: ChildProcess;
  /** The last lines it wrote. */
  readonly tail: readonly string[];
  /** How it ended. */
  readonly ended: Promise<string>;
}

function spawnServer(
  cluster: string,
  socketDir: string,
  binaries: Binaries,
  account: Account | undefined,
  options: EmbeddedPostgresOptions,
): Server {
  const settings: Record<string, string> = {
    listen_addresses: '',
    port: DEFAULT_PORT,
    unix_socket_directories: socketDir,
    unix_socket_permissions: '0700',
    logging_collector: 'off',
    log_line_prefix: '',
    timezone: 'UTC',
    ...options.settings,
  };
  const args = ['-D', cluster, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
  const identity = account ? { uid: account.uid, gid: account.gid } : {};
  // its own session: a Ctrl-C at the terminal must reach the broker, which stops the server after its own drain
  const child = spawn(binaries.postgres, args, {
    env: binaries.env,
    cwd: '/',
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
    ...identity,
  });
  const tail: string[] = [];
  createInterface({ input: child.stderr }).on('line', (line) => {
    tail.push(line);
    if (tail.length > 20) tail.shift();
    if (line.startsWith('PANIC:')) options.log.error({ line }, 'postgresql reports');
    else options.log.debug({ line }, 'postgresql reports');
  });
  const ended = new Promise<string>((done) => {
    child.once('error', (error) => done(errorText(error)));
    child.once('exit', (code, name) => done(name ? `ended by ${name}` : `ended with code ${code}`));
  });
  return { child, tail, ended };
}

async function waitUntilReady(socketDir: string, port: number, clock: Clock, signal: AbortSignal): Promise<void> {
  using deadline = clock.deadline(START_TIMEOUT_MS, signal);
  for (;;) {
    const client = new pg.Client({ host: socketDir, port, user: SUPERUSER, database: 'postgres', ssl: false });
    client.on('error', () => undefined);
    try {
      await client.connect();
      const { rowCount } = await client.query('select from pg_database where datname = $1', [DATABASE]);
      if (rowCount === 0) await client.query(`create database ${DATABASE}`);
      return;
    } catch (error) {
      const code = (error as { readonly code?: unknown }).code;
      if (code !== 'ENOENT' && code !== 'ECONNREFUSED' && code !== 'ECONNRESET' && code !== '57P03') throw error;
    } finally {
      await client.end().catch(() => undefined);
    }
    await clock.sleep(20, deadline.signal);
  }
}

/** Fast shutdown (clients are disconnected, files written); after 30 s immediate shutdown, after 60 s SIGKILL. */
async function stopServer(child: ChildProcess, ended: Promise<string>, clock: Clock): Promise<void> {
  for (const name of ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const) {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
    child.kill(name);
    using deadline = clock.deadline(STOP_TIMEOUT_MS, new AbortController().signal);
    const stopped = await abortable(ended, deadline.signal).then(
      () => true,
      () => false,
    );
    if (stopped) return;
  }
}
