import { BrokkrError, type JsonValue } from '#lib/errors.ts';
import type { Queryable } from '../database.ts';
import { actorId, type Principal } from './principal.ts';

/** Who did what, for the audit log. */
export interface AuditEntry {
  /** The caller; undefined for the broker itself. */
  readonly principal: Principal | undefined;
  readonly action: string;
  readonly resourceType: string;
  readonly resourceId: string | undefined;
  readonly details?: Readonly<Record<string, JsonValue>> | undefined;
  readonly ipAddress?: string | undefined;
  readonly userAgent?: string | undefined;
}

/** What changed, for the feed: a stack (head, rules, deletion), an agent (rules, status), a key, the broker itself. */
export type Change =
  | { readonly kind: 'stack'; readonly stackId: string }
  | { readonly kind: 'agent'; readonly agentId: string }
  | { readonly kind: 'key'; readonly agentId?: string }
  | { readonly kind: 'broker' };

/** Writes audit rows. Call in the transaction of the change. */
export async function insertAudit(tx: Queryable, entries: readonly AuditEntry[]): Promise<void> {
  for (const entry of entries) {
    await tx.query(
      `insert into audit_log (actor_type, actor_id, key_id, action, resource_type, resource_id, details, ip_address, user_agent)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
      [
        entry.principal?.kind ?? 'system',
        (entry.principal && actorId(entry.principal)) ?? null,
        entry.principal?.keyId ?? null,
        entry.action,
        entry.resourceType,
        entry.resourceId ?? null,
        entry.details === undefined ? null : JSON.stringify(entry.details),
        entry.ipAddress ?? null,
        entry.userAgent?.slice(0, 256) ?? null,
      ],
    );
  }
}

/** Writes change-log rows, last in the transaction. The row takes the transaction's id; readers wait for older ones to end. */
export async function insertChanges(tx: Queryable, changes: readonly Change[]): Promise<void> {
  const seen = new Set<string>();
  for (const change of changes) {
    const stackId = change.kind === 'stack' ? change.stackId : null;
    const agentId = change.kind === 'agent' || change.kind === 'key' ? (change.agentId ?? null) : null;
    const key = `${change.kind}/${stackId}/${agentId}`;
    if (seen.has(key)) continue;
    seen.add(key);
    await tx.query('insert into change_log (kind, stack_id, agent_id) values ($1, $2, $3)', [change.kind, stackId, agentId]);
  }
}

/** Identity of a request that may be repeated. */
export interface Idempotency {
  readonly actor: string;
  readonly key: string;
  readonly method: string;
  readonly requestHash: Uint8Array;
}

/** An answer given before. */
export interface RememberedAnswer {
  /** Encoded message. */
  readonly response: Uint8Array;
  readonly etag: string | undefined;
}

/**
 * Claims the key, or returns the answer given under it before. Waits for a concurrent holder: its row is locked until
 * that transaction ends. Throws `idempotency_key_reused` when the key was used for another request.
 */
export async function recallAnswer(
  tx: Queryable,
  { actor, key, method, requestHash }: Idempotency,
): Promise<RememberedAnswer | undefined> {
  const claimed = await tx.query(
    `insert into idempotency_key (actor, key, method, request_hash, response) values ($1, $2, $3, $4, '')
     on conflict (actor, key) do nothing returning key`,
    [actor, key, method, requestHash],
  );
  if (claimed.length > 0) return undefined;
  const rows = await tx.query<{ method: string; request_hash: Buffer; response: Buffer; headers: { readonly etag?: string } }>(
    'select method, request_hash, response, headers from idempotency_key where actor = $1 and key = $2',
    [actor, key],
  );
  const row = rows[0];
  if (!row) return undefined; // removed by age in this instant; the request simply runs
  if (row.method !== method || !row.request_hash.equals(requestHash)) {
    throw new BrokkrError('idempotency_key_reused', `idempotency key ${key} was used for another request`);
  }
  return { response: row.response, etag: row.headers.etag };
}

/** Stores the answer under the claimed key. */
export async function rememberAnswer(
  tx: Queryable,
  { actor, key }: Idempotency,
  { response, etag }: RememberedAnswer,
): Promise<void> {
  await tx.query('update idempotency_key set response = $3, headers = $4 where actor = $1 and key = $2', [
    actor,
    key,
    response,
    JSON.stringify(etag === undefined ? {} : { etag }),
  ]);
}

/** Lets what the transaction does to webhooks belong to a trace (`webhook_queue`). */
export async function setTraceparent(tx: Queryable, traceparent: string): Promise<void> {
  await tx.query(`select set_config('brokkr.traceparent', $1, true)`, [traceparent]);
}
