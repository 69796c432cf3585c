import { createHash } from 'node:crypto';
import { type EntityManager, IsolationLevel, MikroORM, type Options, PostgreSqlDriver } from '@mikro-orm/postgresql';
import pg from 'pg';
import { backoffMs } from '#lib/backoff.ts';
import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { abortable } from '#lib/signal.ts';
import { assertSchemaName, resolveConnection } from './postgres/connect.ts';
import { databaseError, isConflict } from './postgres/failure.ts';
import { listenForever, type OnNotify } from './postgres/listen.ts';
import { guardPool } from './postgres/pool-guard.ts';
import { type PostgresEnvironment, parseConnectionUri } from './postgres/uri.ts';

/** Settings of the database. */
export interface DatabaseConfig {
  /** PostgreSQL connection URI; `sslmode` and the rest mean what libpq means by them. */
  readonly url: string;
  /** Everything of this instance is in this schema; made when absent. Several instances may share a database. */
  readonly schema: string;
  /** Connections of the pool, besides one for each `listen`. */
  readonly poolMax: number;
  /** Bound of one statement. A statement may lower it for itself (`set local`), not raise it: use `session`. */
  readonly statementTimeoutMs: number;
  /** Bound of waiting for a free connection of the pool, and of making one. */
  readonly acquireTimeoutMs: number;
  /** How long to go on trying at start-up. */
  readonly connectTimeoutMs: number;
}

/** What the database needs from its process. */
export interface DatabaseDeps {
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: () => number;
  /** The variables libpq would read (`PGSSLMODE` and so on). */
  readonly environment: PostgresEnvironment;
  /** Entity schemas made with `defineEntity`; without schema names. */
  readonly entities: NonNullable<Options['entities']>;
}

/** Anything that runs SQL: the database itself or a transaction. Store functions take this. */
export interface Queryable {
  /**
   * Runs one statement and returns its rows. Placeholders are `$1`, `$2`, …; values travel apart from the text. Values
   * come back as `pg` gives them, but timestamps, dates and `int8` as text (`timestampMs`, `BigInt`). Errors are those
   * of `databaseError`, except inside a transaction, where they are translated as the transaction ends.
   */
  query<T extends object = Record<string, unknown>>(sql: string, parameters?: readonly unknown[]): Promise<T[]>;
}

/** One transaction: `query` and `em` see the same uncommitted state. `em` writes its changes at `em.flush()` or commit. */
export interface Transaction extends Queryable {
  /** A unit of work inside this transaction. Its own raw SQL (`em.execute`) uses `?` placeholders. */
  readonly em: EntityManager;
}

/** How a transaction runs. */
export interface TransactionOptions {
  /** `read committed` when absent. */
  readonly isolation?: 'repeatable read' | 'serializable';
  readonly readOnly?: boolean;
}

/** The open database. */
export interface Database extends Queryable, AsyncDisposable {
  readonly schema: string;
  /** A fresh unit of work outside any transaction: one a request, never held for a stream's life. */
  em(): EntityManager;
  /**
   * Runs `work` in one transaction and commits. A serialization failure or deadlock runs it again, at most
   * `TRANSACTION_ATTEMPTS` times in all: effects outside the database belong after the commit. Errors as `databaseError`.
   */
  transaction<T>(work: (tx: Transaction) => Promise<T>, options?: TransactionOptions): Promise<T>;
  /**
   * Runs `work` on a connection of its own, outside the pool and without a time limit for statements: for migrations
   * and long maintenance. The connection is closed afterwards, and at once when `signal` aborts.
   */
  session<T>(work: (session: Queryable) => Promise<T>, signal: AbortSignal): Promise<T>;
  /** Calls `onNotify` for notifications of `name` until `signal` aborts; reconnects by itself. See `OnNotify`. */
  listen(name: string, onNotify: OnNotify, signal: AbortSignal): Promise<void>;
  /** Wakes the listeners of `name` in this schema; at most 7,999 bytes of payload (PostgreSQL's limit). */
  notify(name: string, payload: string): Promise<void>;
  /** The key for `pg_advisory…lock($1)` of a lock called `name`, different in every schema. */
  lockKey(name: string): string;
  /** Connections of the pool now. */
  poolUse(): { readonly inUse: number; readonly idle: number; readonly waiting: number };
  /** Resolves when the database answers within `timeoutMs`, else rejects. */
  ping(timeoutMs: number, signal: AbortSignal): Promise<void>;
}

/** How often a transaction is run at most when it meets others. */
const TRANSACTION_ATTEMPTS = 3;
/** The server ends a statement at its timeout; this much later the connection counts as dead. */
const SILENCE_MARGIN_MS = 5_000;
const CONFLICT_BACKOFF = { baseMs: 10, capMs: 100 };

/**
 * Connects (patiently, see `connectTimeoutMs`), makes the schema, and returns the database. Does not migrate. Rejects
 * with a `database_unavailable` whose message names host and port and whose `details.reason` is a `ConnectFailure`.
 */
export async function openDatabase(config: DatabaseConfig, deps: DatabaseDeps, signal: AbortSignal): Promise<Database> {
  assertSchemaName(config.schema);
  const target = parseConnectionUri(config.url, deps.environment);
  const session = {
    schema: config.schema,
    statementTimeoutMs: config.statementTimeoutMs,
    attemptTimeoutMs: config.acquireTimeoutMs,
    applicationName: 'brokkr-broker',
  };
  const client = await resolveConnection(target, session, config.connectTimeoutMs, deps, signal);
  const { orm, pool } = await openPool(client, config, deps);
  const em = orm.em;
  const name = (what: string) => scopedName(config.schema, what);

  const query: Queryable['query'] = async <T extends object>(sql: string, parameters: readonly unknown[] = []) => {
    try {
      return (await pool.query<T>(sql, [...parameters])).rows;
    } catch (error) {
      throw databaseError(error);
    }
  };
  return {
    schema: config.schema,
    em: () => em.fork(),
    query,
    transaction: (work, options = {}) => runTransaction(em, work, options, deps),
    session: (work, stop) => runSession(client, work, stop),
    listen: (what, onNotify, stop) => listenForever(name(what), onNotify, { ...deps, config: client }, stop),
    notify: async (what, payload) => void (await query('select pg_notify($1, $2)', [name(what), payload])),
    lockKey: (what) => createHash('sha256').update(`${config.schema}/${what}`).digest().readBigInt64BE().toString(),
    poolUse: () => ({ inUse: pool.totalCount - pool.idleCount, idle: pool.idleCount, waiting: pool.waitingCount }),
    async ping(timeoutMs, stop) {
      using deadline = deps.clock.deadline(timeoutMs, stop);
      await abortable(query('select 1'), deadline.signal);
    },
    async [Symbol.asyncDispose]() {
      await orm.close(true);
      if (!pool.ending) await pool.end(); // the ORM ends the pool only if it has run a statement of its own
    },
  };
}

/** Milliseconds since the epoch of a `timestamptz` as `query` returns it (text, in UTC). */
export function timestampMs(text: string): number {
  return Date.parse(`${text.slice(0, 10)}T${text.slice(11).replace(/\+00$/, 'Z')}`);
}

async function runSession<T>(config: pg.ClientConfig, work: (session: Queryable) => Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const client = new pg.Client(config);
  client.on('error', () => undefined); // reported by the statement under way
  const onAbort = () => void client.end().catch(() => undefined);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    await client.connect();
    await client.query('set statement_timeout = 0');
    await client.query('set idle_in_transaction_session_timeout = 0');
    return await work({
      query: async <R extends object>(sql: string, parameters: readonly unknown[] = []) =>
        (await client.query<R>(sql, [...parameters])).rows,
    });
  } catch (error) {
    signal.throwIfAborted();
    throw databaseError(error);
  } finally {
    signal.removeEventListener('abort', onAbort);
    await client.end().catch(() => undefined);
  }
}

async function openPool(client: pg.ClientConfig, config: DatabaseConfig, { log, entities }: DatabaseDeps) {
  const orm = await MikroORM.init({
    driver: PostgreSqlDriver,
    entities,
    discovery: { warnWhenNoEntities: false },
    dbName: client.database ?? '',
    // the ORM would read neither host directories nor sslmode from a URL: everything goes to the driver as it is
    driverOptions: { ...client, min: 0, max: config.poolMax, idleTimeoutMillis: 30_000 },
    ensureDatabase: false,
    colors: false,
    logger: (message) => log.debug({ message }, 'the object mapper reports'),
  });
  const pool: pg.Pool = await orm.em.getConnection().getNativeClient();
  guardPool(pool, config.statementTimeoutMs + SILENCE_MARGIN_MS);
  return { orm, pool };
}

async function runTransaction<T>(
  em: EntityManager,
  work: (tx: Transaction) => Promise<T>,
  options: TransactionOptions,
  { clock, random, log }: DatabaseDeps,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await em.fork().transactional((own) => work({ em: own, query: queryIn(own) }), {
        ...(options.isolation && { isolationLevel: ISOLATION[options.isolation] }),
        ...(options.readOnly && { readOnly: true }),
      });
    } catch (error) {
      if (!isConflict(error) || attempt === TRANSACTION_ATTEMPTS) throw databaseError(error);
      log.debug({ attempt }, 'transaction met another one, running it again');
      await clock.sleep(backoffMs(attempt, CONFLICT_BACKOFF, random), new AbortController().signal);
    }
  }
}

const ISOLATION = { 'repeatable read': IsolationLevel.REPEATABLE_READ, serializable: IsolationLevel.SERIALIZABLE } as const;

/** The part of the ORM's open transaction (a Kysely one) that runs a statement with real parameters. */
interface RawTransaction {
  executeQuery(query: object): Promise<{ readonly rows: unknown[] }>;
}

function queryIn(em: EntityManager): Queryable['query'] {
  return async <T extends object>(sql: string, parameters: readonly unknown[] = []) => {
    const open = em.getTransactionContext() as unknown as RawTransaction;
    const query = { kind: 'RawNode', sqlFragments: [sql], parameters: [] };
    const { rows } = await open.executeQuery({ sql, parameters: [...parameters], query, queryId: { queryId: sql } });
    return rows as T[];
  };
}

function scopedName(schema: string, what: string): string {
  return `brokkr_${createHash('sha256').update(schema).digest('hex').slice(0, 16)}_${what}`;
}
