import pg from 'pg';
import { backoffMs } from '#lib/backoff.ts';
import type { Clock } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { abortable } from '#lib/signal.ts';
import { type ConnectFailure, connectError, connectFailure } from './failure.ts';
import { type TlsSetting, tlsSettings } from './tls.ts';
import { type ConnectionTarget, endpointText } from './uri.ts';

/** How every connection of this process is set up. */
export interface SessionOptions {
  /** Becomes the only entry of `search_path`; see `assertSchemaName`. */
  readonly schema: string;
  /** Ends a statement on the server after this time. */
  readonly statementTimeoutMs: number;
  /** Bound of one connection attempt. */
  readonly attemptTimeoutMs: number;
  /** Shown in `pg_stat_activity`, unless the URI names one. */
  readonly applicationName: string;
}

interface Deps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
}

/** Failures that time can cure: the server may be starting, or its address not published yet. */
const CURABLE: ReadonlySet<ConnectFailure> = new Set([
  'nxdomain',
  'dns',
  'refused',
  'unreachable',
  'timeout',
  'reset',
  'unavailable',
]);
/** `NULLS NOT DISTINCT` appeared in 15. */
const MINIMUM_VERSION = 15;
const IDLE_IN_TRANSACTION_MS = 60_000;

/** Throws unless `name` can be a schema of ours: a plain identifier of at most 63 characters, none of PostgreSQL's own. */
export function assertSchemaName(name: string): void {
  if (!/^[A-Za-z_][A-Za-z0-9_]{0,62}$/.test(name)) {
    throw new Error('the database schema name must be 1 to 63 letters, digits and underscores, not beginning with a digit');
  }
  if (/^pg_/i.test(name) || name.toLowerCase() === 'information_schema')
    throw new Error(`the database schema name ${name} is reserved by PostgreSQL`);
}

/**
 * Finds out how to reach the target and returns the settings that worked, after checking the server's version and
 * making the schema if it is absent. Tries again with backoff for `patienceMs` while time may help; a wrong password,
 * certificate, database or schema fails at once. Rejects with a `database_unavailable` naming the endpoint and reason.
 *
 * Under `sslmode` allow and prefer, whether TLS is used is decided here, once, and kept until the process ends.
 */
export async function resolveConnection(
  target: ConnectionTarget,
  session: SessionOptions,
  patienceMs: number,
  deps: Deps,
  signal: AbortSignal,
): Promise<pg.ClientConfig> {
  const settings = await tlsSettings(target);
  const until = deps.clock.monotonic() + patienceMs;
  for (let attempt = 0; ; attempt++) {
    signal.throwIfAborted();
    try {
      const prepare = (client: pg.Client) => prepareServer(client, target, session.schema);
      return (await tryEach(target, session, settings, prepare, signal)).config;
    } catch (error) {
      signal.throwIfAborted();
      const reason = error instanceof BrokkrError ? (error.details?.reason as ConnectFailure) : undefined;
      const waitMs = backoffMs(attempt, { baseMs: 250, capMs: 3_000 }, deps.random) + 50;
      const leftMs = until - deps.clock.monotonic();
      if (!reason || !CURABLE.has(reason) || leftMs <= 0) throw error;
      deps.log.warn(
        { endpoint: endpointText(target), code: reason, error: (error as Error).message },
        'the database cannot be reached yet, trying again',
      );
      await deps.clock.sleep(Math.min(waitMs, leftMs), signal); // the last try is made when the time is over
    }
  }
}

/** Logs in once and changes nothing. Returns what the server said of itself, or rejects as `resolveConnection` does. */
export async function tryConnection(target: ConnectionTarget, session: SessionOptions, signal: AbortSignal): Promise<string> {
  const inspect = async (client: pg.Client) => {
    const { version, creatable } = await inspectServer(client, target, session.schema);
    if (creatable === false)
      throw connectError(
        'schema',
        target,
        new Error(`user ${target.user} may not create schema ${session.schema}, which is missing`),
      );
    return version;
  };
  const { config, value } = await tryEach(target, session, await tlsSettings(target), inspect, signal);
  return `PostgreSQL ${value} ${config.ssl ? 'with' : 'without'} TLS`;
}

async function tryEach<T>(
  target: ConnectionTarget,
  session: SessionOptions,
  settings: readonly TlsSetting[],
  work: (client: pg.Client) => Promise<T>,
  signal: AbortSignal,
): Promise<{ readonly config: pg.ClientConfig; readonly value: T }> {
  let failure: ConnectFailure = 'unavailable';
  let cause: unknown;
  for (const ssl of settings) {
    const config = clientConfig(target, session, ssl);
    const client = new pg.Client({ ...config, ssl: ssl && { ...ssl } }); // it makes the key of what it gets unreadable for copies
    client.on('error', () => undefined); // reported by the call under way
    try {
      await abortable(client.connect(), signal);
      return { config, value: await work(client) };
    } catch (error) {
      if (error instanceof BrokkrError) throw error;
      failure = connectFailure(error);
      cause = error;
      if (CURABLE.has(failure)) break; // as libpq: no second way to a server that is not there
    } finally {
      void client.end().catch(() => undefined);
    }
  }
  throw connectError(failure, target, cause);
}

/** Whether the server can be used. `creatable`: whether a schema that is missing could be made; undefined when it is there. */
async function inspectServer(client: pg.Client, target: ConnectionTarget, schema: string) {
  const state = `select current_setting('server_version_num')::int / 10000 as version,
    (select has_schema_privilege(oid, 'usage') from pg_namespace where nspname = $1) as usable,
    has_database_privilege(current_database(), 'create') as creatable`;
  const { rows } = await client.query<{ version: number; usable: boolean | null; creatable: boolean }>(state, [schema]);
  const { version = 0, usable = null, creatable = false } = rows[0] ?? {};
  if (version < MINIMUM_VERSION)
    throw connectError('version', target, new Error(`it is PostgreSQL ${version}, at least ${MINIMUM_VERSION} is needed`));
  if (usable === false)
    throw connectError('schema', target, new Error(`user ${target.user} has no usage right on schema ${schema}`));
  return { version, creatable: usable ? undefined : creatable };
}

async function prepareServer(client: pg.Client, target: ConnectionTarget, schema: string): Promise<void> {
  const { creatable } = await inspectServer(client, target, schema);
  if (creatable === undefined) return;
  try {
    await client.query(`create schema if not exists "${schema}"`);
  } catch (error) {
    const { code } = error as { readonly code?: unknown };
    if (code !== '23505' && code !== '42P06') throw connectError('schema', target, error); // else: another broker was faster
  }
}

function clientConfig(target: ConnectionTarget, session: SessionOptions, ssl: TlsSetting): pg.ClientConfig {
  const parameters: Record<string, string> = {
    search_path: `"${session.schema}"`,
    TimeZone: 'UTC',
    statement_timeout: String(session.statementTimeoutMs),
    idle_in_transaction_session_timeout: String(IDLE_IN_TRANSACTION_MS),
  };
  const own = Object.entries(parameters).map(([name, value]) => `-c ${name}=${value}`);
  return {
    host: target.host,
    port: target.port,
    user: target.user,
    ...(target.password !== undefined && { password: target.password }),
    database: target.database,
    ssl,
    ...(ssl !== false && target.sslNegotiation === 'direct' && { sslnegotiation: 'direct' }),
    application_name: target.applicationName ?? session.applicationName,
    options: [target.options, ...own].filter(Boolean).join(' '), // the later one wins: ours
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    connectionTimeoutMillis: session.attemptTimeoutMs,
  };
}
