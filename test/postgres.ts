import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll } from 'vitest';
import { type Database, type DatabaseConfig, type DatabaseDeps, openDatabase } from '../broker/database.ts';
import { type EmbeddedPostgres, openEmbeddedPostgres } from '../broker/postgres/supervisor.ts';
import { parseConnectionUri } from '../broker/postgres/uri.ts';
import { systemClock } from '../lib/clock.ts';
import { createLog } from '../lib/log.ts';
import { serverPrograms } from './debian-postgresql.ts';
import { CONTROL_SOCKET_VARIABLE, type RunPostgres, withDatabase } from './global-postgres.ts';

/** A database of the test file's own. */
export interface TestDatabase {
  /** Connection URI, for `DATABASE_URL` or `openDatabase`. */
  readonly url: string;
  readonly name: string;
  /** Opens it with settings fit for tests; `changes` win. Dispose it, or leave it to the end of the file. */
  open(changes?: Partial<DatabaseConfig>, deps?: Partial<DatabaseDeps>): Promise<Database>;
  /** A copy of it as it is now, as a backup restored later would be. Nobody may be connected meanwhile. */
  snapshot(): Promise<{ readonly url: string }>;
}

const cleanups: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
  cleanups.length = 0;
});

/** A fresh database on the run's server, cloned from the migrated template; dropped at the end of the test file. */
export async function testDatabase({ empty = false }: { readonly empty?: boolean } = {}): Promise<TestDatabase> {
  const run = await runPostgres();
  if (run.templateError && !empty) throw new Error(`the template database was not made: ${run.templateError}`);
  const name = `t_${randomBytes(6).toString('hex')}`;
  await administer(run.url, `create database ${name} template ${empty ? 'template0' : run.template}`);
  cleanups.push(() => administer(run.url, `drop database if exists ${name} with (force)`));
  const url = withDatabase(run.url, name);
  return { url, name, open: (changes, deps) => openTestDatabase(url, changes, deps), snapshot: () => snapshot(run, name) };
}

async function snapshot(run: RunPostgres, of: string): Promise<{ readonly url: string }> {
  const name = `t_${randomBytes(6).toString('hex')}`;
  await administer(run.url, `create database ${name} template ${of}`);
  cleanups.push(() => administer(run.url, `drop database if exists ${name} with (force)`));
  return { url: withDatabase(run.url, name) };
}

/** Opens any database by URI with settings fit for tests; closed at the end of the file if nobody did before. */
export async function openTestDatabase(
  url: string,
  changes: Partial<DatabaseConfig> = {},
  deps: Partial<DatabaseDeps> = {},
): Promise<Database> {
  const config = {
    url,
    schema: 'public',
    poolMax: 5,
    statementTimeoutMs: 20_000,
    acquireTimeoutMs: 10_000,
    connectTimeoutMs: 10_000,
    ...changes,
  };
  const defaults = {
    log: createLog('test', { level: 'fatal' }),
    clock: systemClock,
    random: Math.random,
    environment: {},
    entities: [],
  };
  const db = await openDatabase(config, { ...defaults, ...deps }, new AbortController().signal);
  cleanups.push(async () => db[Symbol.asyncDispose]());
  return db;
}

/** A server of the test's own, for outages. Disposing stops it and removes its files. */
export interface OwnPostgres extends AsyncDisposable {
  /** URI of its database, valid again after every `start`. */
  readonly url: string;
  /** Process id of the server now. */
  pid(): number;
  /** Orderly stop; clients are disconnected. */
  stop(): Promise<void>;
  /** Starts it again on the same files and address. */
  start(): Promise<void>;
}

/** Starts a server that no other test uses; `settings` are server settings. */
export async function startOwnPostgres(settings: Readonly<Record<string, string>> = {}): Promise<OwnPostgres> {
  const dataDir = await mkdtemp(join(tmpdir(), 'brokkr-own-pg-'));
  const log = createLog('test', { level: 'fatal' });
  const programs = await serverPrograms();
  const open = () =>
    openEmbeddedPostgres(
      { ...programs, dataDir, log, clock: systemClock, settings: { fsync: 'off', ...settings } },
      AbortSignal.timeout(60_000),
    );
  let server: EmbeddedPostgres | undefined = await open().catch(async (error: unknown) => {
    await rm(dataDir, { recursive: true, force: true });
    throw error;
  });
  const { url } = server;
  const stop = async () => {
    await server?.[Symbol.asyncDispose]();
    server = undefined;
  };
  const dispose = async () => {
    await stop();
    await rm(dataDir, { recursive: true, force: true });
  };
  cleanups.push(dispose);
  return {
    url,
    pid: () => server?.pid ?? 0,
    stop,
    async start() {
      server ??= await open();
    },
    [Symbol.asyncDispose]: dispose,
  };
}

let asked: Promise<RunPostgres> | undefined;

function runPostgres(): Promise<RunPostgres> {
  asked ??= new Promise<RunPostgres>((resolve, reject) => {
    const path = process.env[CONTROL_SOCKET_VARIABLE];
    if (!path) throw new Error('test/global-postgres.ts is not among the global setups of this vitest run');
    let text = '';
    const socket = connect(path);
    socket.on('data', (chunk) => {
      text += chunk.toString('utf8');
    });
    socket.on('error', reject);
    socket.on('end', () => {
      const answer = JSON.parse(text) as RunPostgres & { readonly error?: string };
      if (answer.error) reject(new Error(answer.error));
      else resolve(answer);
    });
  });
  return asked;
}

async function administer(url: string, sql: string): Promise<void> {
  const { host, port, user, database } = parseConnectionUri(url, {});
  const client = new pg.Client({ host, port, user, database, ssl: false });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}
