import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from '#lib/log.ts';
import type { Database, Queryable } from './database.ts';

interface Migration {
  readonly id: number;
  readonly name: string;
  readonly sql: string;
  readonly checksum: string;
}

interface AppliedRow {
  readonly id: number;
  readonly name: string;
  readonly checksum: string;
}

/** The files that come with the code. */
const MIGRATIONS_DIR = join(import.meta.dirname, 'migrations');

/**
 * Brings the database's schema to the version of the code: applies the files `NNNN_name.sql` that are not recorded in
 * `schema_migration`, in order, each in its own transaction, and returns the names applied. Replicas may do this at the
 * same time: each step holds the schema's lock and looks again what is left. Refuses a database that is newer than the
 * code, and one whose applied migrations differ from the files. Files must run inside a transaction and name no schema.
 */
export async function migrate(
  db: Database,
  { log, directory = MIGRATIONS_DIR }: { readonly log: Logger; readonly directory?: string },
  signal: AbortSignal,
): Promise<readonly string[]> {
  const migrations = await readMigrations(directory);
  return await db.session(async (session) => {
    const done: string[] = [];
    for (;;) {
      signal.throwIfAborted();
      await session.query('begin');
      const name = await applyNext(session, db.lockKey('migrate'), migrations);
      await session.query('commit'); // a failure before it closes the session, which rolls back
      if (name === undefined) return done;
      log.info({ migration: name }, 'migration applied');
      done.push(name);
    }
  }, signal);
}

/** One step under the lock; undefined when nothing is left. */
async function applyNext(tx: Queryable, lockKey: string, migrations: readonly Migration[]): Promise<string | undefined> {
  await tx.query('select pg_advisory_xact_lock($1)', [lockKey]);
  await tx.query(
    `create table if not exists schema_migration (
       id integer primary key, name text not null, checksum text not null, applied_at timestamptz not null default now())`,
  );
  const applied = await tx.query<AppliedRow>('select id, name, checksum from schema_migration order by id');
  for (const row of applied) {
    const file = migrations.find((migration) => migration.id === row.id);
    if (!file)
      throw new Error(
        `the database has migration ${row.name}, which this program does not know: it was written by a newer version`,
      );
    if (file.checksum !== row.checksum) throw new Error(`migration ${file.name} differs from the one applied to this database`);
  }
  const next = migrations.find((migration) => !applied.some((row) => row.id === migration.id));
  if (!next) return undefined;
  try {
    await tx.query(next.sql);
  } catch (error) {
    throw new Error(`migration ${next.name} failed: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  await tx.query('insert into schema_migration (id, name, checksum) values ($1, $2, $3)', [next.id, next.name, next.checksum]);
  return next.name;
}

async function readMigrations(directory: string): Promise<readonly Migration[]> {
  const files = (await readdir(directory)).filter((file) => file.endsWith('.sql')).sort();
  const migrations = await Promise.all(
    files.map(async (file) => {
      const id = /^(\d{4})_[a-z0-9_]+\.sql$/.exec(file)?.[1];
      if (!id) throw new Error(`${file} is not named like 0001_name.sql`);
      const sql = await readFile(join(directory, file), 'utf8');
      return { id: Number(id), name: file.slice(0, -4), sql, checksum: createHash('sha256').update(sql).digest('hex') };
    }),
  );
  for (const [index, migration] of migrations.entries()) {
    if (migrations[index - 1]?.id === migration.id) throw new Error(`two migrations are numbered ${migration.id}`);
  }
  return migrations;
}
