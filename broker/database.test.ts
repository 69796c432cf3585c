import { defineEntity, p } from '@mikro-orm/postgresql';
import { beforeAll, describe, expect, it } from 'vitest';
import { type TestDatabase, testDatabase } from '../test/postgres.ts';
import { type Database, timestampMs } from './database.ts';
import { databaseError } from './postgres/failure.ts';

const Thing = defineEntity({
  name: 'Thing',
  tableName: 'thing',
  properties: { id: p.integer().primary(), name: p.string().unique(), at: p.datetime().nullable() },
});
const TABLE = `create table thing (id serial primary key, name text not null constraint thing_name_key unique check (name <> 'bad'), at timestamptz);
  create table part (id serial primary key, thing_id integer not null constraint part_thing_fk references thing)`;

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await testDatabase({ empty: true });
  db = await database.open({}, { entities: [Thing] });
  await db.query(TABLE);
});

describe('queries and transactions', () => {
  it('keeps a flush and raw SQL in one transaction, both ways', async () => {
    const seen = await db.transaction(async (tx) => {
      tx.em.create(Thing, { name: 'by entity' });
      await tx.em.flush();
      await tx.query('insert into thing (name) values ($1)', ['by sql']);
      const rows = await tx.query<{ name: string }>('select name from thing order by id');
      const found = await tx.em.findOneOrFail(Thing, { name: 'by sql' });
      const outside = await db.query('select 1 from thing');
      return { rows: rows.map((row) => row.name), found: found.name, outside: outside.length };
    });
    expect(seen).toEqual({ rows: ['by entity', 'by sql'], found: 'by sql', outside: 0 });
    expect(await db.query('select from thing')).toHaveLength(2);
  });

  it('rolls back both when the work fails', async () => {
    const before = await db.query('select from thing');
    const failing = db.transaction(async (tx) => {
      tx.em.create(Thing, { name: 'lost' });
      await tx.em.flush();
      await tx.query(`insert into thing (name) values ('lost too')`);
      throw new Error('changed my mind');
    });
    await expect(failing).rejects.toThrow('changed my mind');
    expect(await db.query('select from thing')).toHaveLength(before.length);
  });

  it('names violated constraints, from SQL and from a flush', async () => {
    await db.query(`insert into thing (name) values ('once')`);
    await expect(db.query(`insert into thing (name) values ('once')`)).rejects.toMatchObject({
      code: 'unique_violation',
      details: { constraint: 'thing_name_key' },
    });
    await expect(db.transaction(async (tx) => void tx.em.create(Thing, { name: 'once' }))).rejects.toMatchObject({
      code: 'unique_violation',
      details: { constraint: 'thing_name_key' },
    });
    await expect(db.query('insert into part (thing_id) values (0)')).rejects.toMatchObject({
      code: 'foreign_key_violation',
      details: { constraint: 'part_thing_fk' },
    });
    await expect(db.query(`insert into thing (name) values ('bad')`)).rejects.toMatchObject({
      code: 'check_violation',
      details: { constraint: 'thing_name_check' },
    });
    await expect(db.query('insert into thing (name) values (null)')).rejects.toMatchObject({
      code: 'not_null_violation',
      details: { constraint: 'name' },
    });
    const bug = await db.query('select nonsense').catch((error: unknown) => error);
    expect(databaseError(bug)).toBe(bug);
  });

  it('runs a transaction again when another one got in its way', async () => {
    await db.query(`insert into thing (id, name) values (100, 'counter')`);
    let runs = 0;
    await db.transaction(
      async (tx) => {
        runs++;
        await tx.query('select name from thing where id = 100');
        if (runs === 1) await db.query(`update thing set name = 'counter 1' where id = 100`);
        await tx.query(`update thing set name = name || ' and 2' where id = 100`);
      },
      { isolation: 'repeatable read' },
    );
    expect(runs).toBe(2);
    expect(await db.query('select name from thing where id = 100')).toEqual([{ name: 'counter 1 and 2' }]);
  });

  it('refuses writes in a read-only transaction', async () => {
    await expect(db.transaction((tx) => tx.query(`insert into thing (name) values ('no')`), { readOnly: true })).rejects.toThrow(
      /read-only/,
    );
  });

  it('ends a statement that takes too long', async () => {
    await using slow = await database.open({ statementTimeoutMs: 100 });
    await expect(slow.query('select pg_sleep(20)')).rejects.toMatchObject({ code: 'deadline_exceeded' });
    await expect(
      slow.session((session) => session.query('select pg_sleep(0.3)'), new AbortController().signal),
    ).resolves.toHaveLength(1);
  });

  it('returns timestamps as text in UTC that timestampMs reads', async () => {
    const [row] = await db.query<{ at: string; whole: string }>(
      `select '2026-01-02T03:04:05.678901+02'::timestamptz as at, '2026-01-02T03:04:05Z'::timestamptz as whole`,
    );
    expect(timestampMs(row?.at ?? '')).toBe(Date.UTC(2026, 0, 2, 1, 4, 5, 678));
    expect(timestampMs(row?.whole ?? '')).toBe(Date.UTC(2026, 0, 2, 3, 4, 5));
  });
});

describe('pool', () => {
  it('serves 200 parallel queries with five connections and says so', async () => {
    await using pooled = await database.open({ poolMax: 5 });
    const running = Array.from({ length: 200 }, () =>
      pooled.query<{ pid: number }>('select pg_backend_pid() as pid, pg_sleep(0.005)'),
    );
    expect(pooled.poolUse()).toEqual({ inUse: 5, idle: 0, waiting: 195 });
    const rows = (await Promise.all(running)).flat();
    expect(rows).toHaveLength(200);
    expect(new Set(rows.map((row) => row.pid)).size).toBe(5);
    expect(pooled.poolUse()).toEqual({ inUse: 0, idle: 5, waiting: 0 });
  });

  it('gives up waiting for a connection after the limit', async () => {
    await using pooled = await database.open({ poolMax: 1, acquireTimeoutMs: 100 });
    const holding = pooled.query('select pg_sleep(0.5)');
    await expect(pooled.query('select 1')).rejects.toMatchObject({ code: 'database_unavailable' });
    await holding;
    await expect(pooled.query('select 1')).resolves.toHaveLength(1);
  });
});

describe('schemas', () => {
  it('keeps two instances in one database apart', async () => {
    const [one, two] = await Promise.all([database.open({ schema: 'tenant_one' }), database.open({ schema: 'Tenant_Two' })]);
    for (const tenant of [one, two]) await tenant.query('create table secret (text text)');
    await one.query(`insert into secret values ('of one')`);
    expect(await two.query('select * from secret')).toEqual([]);
    expect(await one.query('select * from secret')).toEqual([{ text: 'of one' }]);
    await expect(two.query('select * from thing')).rejects.toThrow(/does not exist/);
    expect(one.lockKey('migrate')).not.toBe(two.lockKey('migrate'));
  });

  it('does not wake the listeners of another schema', async () => {
    const [one, two] = await Promise.all([database.open({ schema: 'tenant_one' }), database.open({ schema: 'Tenant_Two' })]);
    const stop = new AbortController();
    const heard: string[] = [];
    const { promise: second, resolve: heardSecond } = Promise.withResolvers<void>();
    const { promise: ready, resolve: connected } = Promise.withResolvers<void>();
    const listening = one.listen(
      'feed',
      (payload) => {
        if (payload === undefined) connected();
        else heard.push(payload);
        if (payload === 'second') heardSecond();
      },
      stop.signal,
    );
    await ready;
    await two.notify('feed', 'foreign');
    await one.notify('feed', 'first');
    await one.notify('feed', 'second');
    await second;
    stop.abort();
    await listening;
    expect(heard).toEqual(['first', 'second']);
  });

  it('lets several brokers make the same schema at once', async () => {
    await Promise.all(Array.from({ length: 4 }, () => database.open({ schema: 'made_together' })));
  });

  it.each([
    'a"; drop table thing; --',
    'a b',
    "x'",
    'a-b',
    '',
    '1a',
    'pg_temp',
    'PG_X',
    'information_schema',
    'x'.repeat(64),
    'a\n',
    'ä',
  ])('refuses the schema name %j', async (schema) => {
    await expect(database.open({ schema })).rejects.toThrow(/schema name/);
  });
});
