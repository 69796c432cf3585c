import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openDatabase } from '../broker/database.ts';
import { migrate } from '../broker/migrate.ts';
import { type EmbeddedPostgres, openEmbeddedPostgres } from '../broker/postgres/supervisor.ts';
import { systemClock } from '../lib/clock.ts';
import { createLog, type Logger } from '../lib/log.ts';
import { serverPrograms } from './debian-postgresql.ts';

/** What a test process is told when it asks for the run's server. */
export interface RunPostgres {
  /** URI of the maintenance database. */
  readonly url: string;
  /** Database to clone: migrated when migrations exist. */
  readonly template: string;
  /** Why it is not migrated: then only empty databases are to be had. */
  readonly templateError?: string;
}

/** Names the control socket to the test processes, which inherit our environment. */
export const CONTROL_SOCKET_VARIABLE = 'BROKKR_TEST_POSTGRES_SOCKET';

const TEMPLATE = 'brokkr_template';
const MIGRATIONS = join(import.meta.dirname, '..', 'broker', 'migrations');

/** Vitest global setup: offers one PostgreSQL for the run, started when the first test file asks. Returns the teardown. */
export async function setup(): Promise<() => Promise<void>> {
  const dir = await mkdtemp(join(tmpdir(), 'brokkr-test-pg-'));
  await chmod(dir, 0o755); // the server runs as somebody else when we are root
  const socketPath = join(dir, 'control.sock');
  let running: Promise<{ readonly postgres: EmbeddedPostgres; readonly facts: RunPostgres }> | undefined;
  const control = createServer((socket) => {
    socket.on('error', () => undefined);
    running ??= startForRun(join(dir, 'data'));
    running.then(
      ({ facts }) => socket.end(JSON.stringify(facts)),
      (error: unknown) => socket.end(JSON.stringify({ error: String(error) })),
    );
  });
  control.listen(socketPath);
  await once(control, 'listening');
  process.env[CONTROL_SOCKET_VARIABLE] = socketPath;
  return async () => {
    control.close();
    const started = await running?.catch(() => undefined);
    await started?.postgres[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
    delete process.env[CONTROL_SOCKET_VARIABLE];
  };
}

/** Starts a server for tests (no fsync: it only has to live as long as the run) with the template database. */
async function startForRun(dataDir: string) {
  const signal = AbortSignal.timeout(120_000);
  const log = createLog('test', { level: 'error' });
  const settings = { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off', max_connections: '300' };
  const programs = await serverPrograms();
  const postgres = await openEmbeddedPostgres({ ...programs, dataDir, log, clock: systemClock, settings }, signal);
  const templateError = await makeTemplate(postgres.url, log, signal).then(() => undefined, String);
  return { postgres, facts: { url: postgres.url, template: TEMPLATE, ...(templateError && { templateError }) } };
}

async function makeTemplate(url: string, log: Logger, signal: AbortSignal): Promise<void> {
  const config = { schema: 'public', poolMax: 2, statementTimeoutMs: 60_000, acquireTimeoutMs: 10_000, connectTimeoutMs: 10_000 };
  const deps = { log, clock: systemClock, random: Math.random, environment: {}, entities: [] };
  {
    await using db = await openDatabase({ ...config, url }, deps, signal);
    await db.query(`create database ${TEMPLATE}`);
  }
  if (!existsSync(MIGRATIONS)) return;
  await using db = await openDatabase({ ...config, url: withDatabase(url, TEMPLATE) }, deps, signal);
  await migrate(db, { log }, signal);
}

/** The URI with another database name. */
export function withDatabase(url: string, database: string): string {
  return url.replace(/^([^?]*\/)[^/?]*(\?|$)/, `$1${database}$2`);
}
