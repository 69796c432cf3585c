import type { Queryable } from '../database.ts';

/** A key about to be stored. */
export interface NewKey {
  readonly role: 'admin' | 'agent' | 'generator';
  readonly agentId?: string;
  readonly generatorId?: string;
  readonly name: string;
  readonly hash: string;
  readonly shortToken: string;
  readonly readOnly?: boolean;
  readonly expiresAt?: Date;
}

/** A key as stored. Times are text, `timestampMs` reads them. */
export interface KeyRow {
  readonly id: string;
  readonly role: 'admin' | 'agent' | 'generator';
  readonly agent_id: string | null;
  readonly generator_id: string | null;
  readonly name: string;
  readonly short_token: string;
  readonly read_only: boolean;
  readonly expires_at: string | null;
  readonly last_used_at: string | null;
  readonly created_at: string;
  readonly revoked_at: string | null;
}

const COLUMNS =
  'id, role, agent_id, generator_id, name, short_token, read_only, expires_at, last_used_at, created_at, revoked_at';

/** Stores a key and returns its row. */
export async function insertKey(tx: Queryable, key: NewKey): Promise<KeyRow> {
  const [row] = await tx.query<KeyRow>(
    `insert into api_key (role, agent_id, generator_id, name, hash, short_token, read_only, expires_at)
     values ($1, $2, $3, $4, $5, $6, $7, $8) returning ${COLUMNS}`,
    [
      key.role,
      key.agentId ?? null,
      key.generatorId ?? null,
      key.name,
      key.hash,
      key.shortToken,
      key.readOnly ?? false,
      key.expiresAt ?? null,
    ],
  );
  if (!row) throw new Error('insert returned no row');
  return row;
}

/** Which keys to revoke: all of one identity. */
export type KeyOwner = { readonly agentId: string } | { readonly generatorId: string } | { readonly role: 'admin' };

/**
 * Ends all working keys of an identity now, or lets them expire after a grace. Call before inserting the new one.
 * Returns how many there were.
 */
export async function revokeKeys(
  tx: Queryable,
  owner: KeyOwner,
  { graceSeconds = 0 }: { readonly graceSeconds?: number } = {},
): Promise<number> {
  const where = 'agentId' in owner ? 'agent_id = $1' : 'generatorId' in owner ? 'generator_id = $1' : 'role = $1';
  const value = 'agentId' in owner ? owner.agentId : 'generatorId' in owner ? owner.generatorId : owner.role;
  const set =
    graceSeconds > 0
      ? `expires_at = least(coalesce(expires_at, 'infinity'), now() + make_interval(secs => $2))`
      : 'revoked_at = now() + make_interval(secs => $2)';
  const rows = await tx.query(`update api_key set ${set} where ${where} and revoked_at is null returning id`, [
    value,
    graceSeconds,
  ]);
  return rows.length;
}

/** Revokes one key and returns it; undefined when there is none that works. */
export async function revokeKey(tx: Queryable, id: string): Promise<KeyRow | undefined> {
  const rows = await tx.query<KeyRow>(
    `update api_key set revoked_at = now() where id = $1 and revoked_at is null returning ${COLUMNS}`,
    [id],
  );
  return rows[0];
}

/** Keys, newest first. */
export async function listKeys(
  tx: Queryable,
  { fetch, after }: { readonly fetch: number; readonly after: { readonly createdAt: string; readonly id: string } | undefined },
): Promise<KeyRow[]> {
  return await tx.query<KeyRow>(
    `select ${COLUMNS} from api_key
     where $2::timestamptz is null or (created_at, id) < ($2, $3)
     order by created_at desc, id desc limit $1`,
    [fetch, after?.createdAt ?? null, after?.id ?? null],
  );
}

/** A working key found by hash, with the state of its identity. */
export interface ResolvedKey {
  readonly id: string;
  readonly role: 'admin' | 'agent' | 'generator';
  readonly agent_id: string | null;
  readonly generator_id: string | null;
  readonly read_only: boolean;
  readonly expires_at: string | null;
  readonly agent_status: string | null;
}

/** The key with this hash, unless revoked, expired, or of a deleted or inactive identity. One index lookup. */
export async function findKeyByHash(tx: Queryable, hash: string): Promise<ResolvedKey | undefined> {
  const rows = await tx.query<ResolvedKey>(
    `select k.id, k.role, k.agent_id, k.generator_id, k.read_only, k.expires_at, a.status as agent_status
     from api_key k
     left join agent a on a.id = k.agent_id
     left join generator g on g.id = k.generator_id
     where k.hash = $1 and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())
       and (k.agent_id is null or a.deleted_at is null)
       and (k.generator_id is null or (g.deleted_at is null and g.is_active))`,
    [hash],
  );
  return rows[0];
}

/** Notes the use of keys, to the minute, in one statement; generators are active then too. */
export async function touchKeys(tx: Queryable, ids: readonly string[]): Promise<void> {
  await tx.query(
    `with used as (
       update api_key set last_used_at = now()
       where id = any($1) and (last_used_at is null or last_used_at < now() - interval '1 minute') returning generator_id
     )
     update generator g set last_active_at = now() from used where g.id = used.generator_id`,
    [ids],
  );
}

/** True when there is an admin key that works. */
export async function hasAdminKey(tx: Queryable): Promise<boolean> {
  const rows = await tx.query(`select from api_key where role = 'admin' and revoked_at is null limit 1`);
  return rows.length > 0;
}

/** Tenants: live generators that are not built in. */
export async function listTenants(tx: Queryable): Promise<{ readonly id: string; readonly name: string }[]> {
  return await tx.query('select id, name from generator where deleted_at is null and not is_system order by name limit 1000');
}
