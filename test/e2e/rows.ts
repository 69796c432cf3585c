import { expect } from 'vitest';
import type { Queryable } from '../../broker/database.ts';

/** Rows of every table of the schema, by table; partitions are counted with their parent. What a refused request must not change. */
export async function rowCounts(db: Queryable): Promise<Readonly<Record<string, number>>> {
  const tables = await db.query<{ name: string }>(
    `select c.relname as name from pg_class c
     where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p') and not c.relispartition order by 1`,
  );
  const counted = tables.map(({ name }) => `select '${name}' as name, count(*)::int as count from ${name}`);
  const rows = await db.query<{ name: string; count: number }>(counted.join(' union all '));
  return Object.fromEntries(rows.map(({ name, count }) => [name, count]));
}

/** Runs `work` and fails when a row was added or removed anywhere. */
export async function storesNothing<T>(db: Queryable, work: () => Promise<T>): Promise<T> {
  const before = await rowCounts(db);
  const result = await work();
  expect(await rowCounts(db)).toEqual(before);
  return result;
}

/** All rows of all tables as text: what a dump of the database would hold. */
export async function dump(db: Queryable): Promise<string> {
  const parts: string[] = [];
  for (const table of Object.keys(await rowCounts(db))) {
    const rows = await db.query<{ row: string }>(`select t::text as row from ${table} t`);
    parts.push(...rows.map(({ row }) => row));
  }
  return parts.join('\n');
}
