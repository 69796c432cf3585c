import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createLog } from '../lib/log.ts';
import { type TestDatabase, testDatabase } from '../test/postgres.ts';
import type { Database } from './database.ts';
import { migrate } from './migrate.ts';

const log = createLog('test', { level: 'fatal' });
const signal = new AbortController().signal;
const database: TestDatabase = await testDatabase({ empty: true });
let directory: string;
let db: Database;
let schemas = 0;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'brokkr-migrations-'));
  put('0001_first', 'create table a (id integer primary key); insert into a values (1);');
  put('0002_second', 'alter table a add column text text; create index a_text on a (text);');
  db = await database.open({ schema: `migrated_${++schemas}` });
});
afterEach(() => rmSync(directory, { recursive: true }));

function put(name: string, sql: string): void {
  writeFileSync(join(directory, `${name}.sql`), sql);
}

describe('migrate', () => {
  it('applies what is missing, in order, once', async () => {
    expect(await migrate(db, { log, directory }, signal)).toEqual(['0001_first', '0002_second']);
    put('0003_third', `insert into a values (3, 'three')`);
    expect(await migrate(db, { log, directory }, signal)).toEqual(['0003_third']);
    expect(await migrate(db, { log, directory }, signal)).toEqual([]);
    expect(await db.query('select id from a order by id')).toEqual([{ id: 1 }, { id: 3 }]);
    expect(await db.query('select id, name from schema_migration order by id')).toHaveLength(3);
  });

  it('lets replicas migrate at the same time', async () => {
    const other = await database.open({ schema: db.schema });
    const done = await Promise.all([db, other, db, other].map((each) => migrate(each, { log, directory }, signal)));
    expect(done.flat().sort()).toEqual(['0001_first', '0002_second']);
  });

  it('keeps instances in other schemas out of it', async () => {
    await migrate(db, { log, directory }, signal);
    const other = await database.open({ schema: `migrated_${++schemas}` });
    expect(await migrate(other, { log, directory }, signal)).toHaveLength(2);
  });

  it('leaves nothing of a migration that fails, and keeps those before', async () => {
    put('0003_broken', 'create table half (id integer); select nonsense;');
    await expect(migrate(db, { log, directory }, signal)).rejects.toThrow(/0003_broken failed.*nonsense/);
    await expect(db.query('select from half')).rejects.toThrow(/does not exist/);
    expect(await db.query('select from schema_migration')).toHaveLength(2);
    put('0003_broken', 'create table whole (id integer)');
    expect(await migrate(db, { log, directory }, signal)).toEqual(['0003_broken']);
  });

  it('refuses a changed file and a database that is newer than the code', async () => {
    await migrate(db, { log, directory }, signal);
    put('0001_first', 'create table a (id bigint primary key);');
    await expect(migrate(db, { log, directory }, signal)).rejects.toThrow(/0001_first differs/);
    rmSync(join(directory, '0002_second.sql'));
    put('0001_first', 'create table a (id integer primary key); insert into a values (1);');
    await expect(migrate(db, { log, directory }, signal)).rejects.toThrow(/0002_second, which this program does not know.*newer/);
  });

  it('refuses names without a number and numbers used twice', async () => {
    put('0002_again', 'select 1');
    await expect(migrate(db, { log, directory }, signal)).rejects.toThrow(/two migrations are numbered 2/);
    put('third', 'select 1');
    await expect(migrate(db, { log, directory }, signal)).rejects.toThrow(/third.sql is not named/);
  });

  it('is not ended by the statement timeout of requests', async () => {
    const hasty = await database.open({ schema: db.schema, statementTimeoutMs: 100 });
    put('0003_slow', 'select pg_sleep(0.3)');
    expect(await migrate(hasty, { log, directory }, signal)).toHaveLength(3);
  });
});
