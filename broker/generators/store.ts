import { type EntityManager, LockMode } from '@mikro-orm/postgresql';
import { BrokkrError } from '#lib/errors.ts';
import type { Page } from '../api/page.ts';
import type { Queryable } from '../database.ts';
import { GeneratorEntity } from './entities.ts';

/** A generator as read. Times are text, `timestampMs` reads them. */
export interface GeneratorRow {
  readonly id: string;
  readonly name: string;
  readonly description: string | null;
  readonly last_active_at: string | null;
  readonly is_active: boolean;
  readonly is_system: boolean;
  readonly version: number;
  readonly created_at: string;
  readonly updated_at: string;
  readonly deleted_at: string | null;
}

const COLUMNS = 'id, name, description, last_active_at, is_active, is_system, version, created_at, updated_at, deleted_at';

/** A live generator. Throws `generator_not_found`. */
export async function getGenerator(tx: Queryable, id: string): Promise<GeneratorRow> {
  const rows = await tx.query<GeneratorRow>(`select ${COLUMNS} from generator where id = $1 and deleted_at is null`, [id]);
  const row = rows[0];
  if (!row) throw new BrokkrError('generator_not_found', `no generator ${id}`, { details: { generator_id: id } });
  return row;
}

/** Live generators but the system one, newest first. */
export async function listGenerators(tx: Queryable, { fetch, after }: Page): Promise<GeneratorRow[]> {
  return await tx.query<GeneratorRow>(
    `select ${COLUMNS} from generator
     where deleted_at is null and not is_system and ($2::timestamptz is null or (created_at, id) < ($2, $3::uuid))
     order by created_at desc, id desc limit $1`,
    [fetch, after?.createdAt ?? null, after?.id ?? null],
  );
}

/** Which of these generators live, and the system one with them. */
export async function selectRegistrable(tx: Queryable, ids: readonly string[]): Promise<string[]> {
  const rows = await tx.query<{ id: string }>(
    'select id from generator where deleted_at is null and (is_system or id = any($1::uuid[]))',
    [ids],
  );
  return rows.map(({ id }) => id);
}

/** True for the built-in generator that is no tenant. */
export async function isSystemGenerator(tx: Queryable, id: string): Promise<boolean> {
  const rows = await tx.query('select from generator where id = $1 and is_system', [id]);
  return rows.length > 0;
}

/** The generator for editing, locked until the transaction ends so that editors queue instead of failing. */
export async function editGenerator(em: EntityManager, id: string) {
  return await em.findOne(GeneratorEntity, { id, deletedAt: null }, { lockMode: LockMode.PESSIMISTIC_WRITE });
}

/** Marks the generator deleted. Lock it first (`editGenerator`). */
export async function softDeleteGenerator(tx: Queryable, id: string): Promise<void> {
  await tx.query('update generator set deleted_at = now(), updated_at = now(), version = version + 1 where id = $1', [id]);
}

/** Live stacks of a generator, locked in order of their ids. */
export async function lockStackIds(tx: Queryable, generatorId: string): Promise<string[]> {
  const rows = await tx.query<{ id: string }>(
    'select id from stack where generator_id = $1 and deleted_at is null order by id for update',
    [generatorId],
  );
  return rows.map(({ id }) => id);
}

/** Takes an agent's direct assignments of a generator's stacks back; returns those stacks. */
export async function deleteTargetsOf(tx: Queryable, agentId: string, generatorId: string): Promise<string[]> {
  const rows = await tx.query<{ stack_id: string }>(
    `delete from agent_target t using stack s
     where t.agent_id = $1 and s.id = t.stack_id and s.generator_id = $2 returning t.stack_id`,
    [agentId, generatorId],
  );
  return rows.map(({ stack_id }) => stack_id);
}
