import { BrokkrError } from '#lib/errors.ts';
import type { Page } from '../api/page.ts';
import type { Queryable } from '../database.ts';

/** A subscription as read. Times are text, `timestampMs` reads them. */
export interface SubscriptionRow {
  readonly id: string;
  readonly name: string;
  readonly event_types: readonly string[];
  readonly filter_agent_id: string | null;
  readonly filter_stack_id: string | null;
  readonly filter_labels: readonly string[];
  /** Agents that have all of these send its deliveries; the broker when there are none. */
  readonly target_labels: readonly string[];
  readonly enabled: boolean;
  readonly disabled_reason: string | null;
  readonly max_retries: number;
  readonly timeout_seconds: number;
  readonly has_auth_header: boolean;
  readonly sealed: Buffer;
  readonly key_id: string | null;
  readonly created_by: string | null;
  readonly version: number;
  readonly created_at: string;
  readonly updated_at: string;
}

/** What people set of a subscription. */
export type SubscriptionFields = Omit<SubscriptionRow, 'id' | 'created_by' | 'version' | 'created_at' | 'updated_at'>;

const COLUMNS = `id, name, event_types, filter_agent_id, filter_stack_id, filter_labels, target_labels, enabled, disabled_reason,
  max_retries, timeout_seconds, has_auth_header, sealed, key_id, created_by, version, created_at, updated_at`;

/** A subscription. Throws `webhook_not_found`. */
export async function getSubscription(tx: Queryable, id: string): Promise<SubscriptionRow> {
  return one(await tx.query<SubscriptionRow>(`select ${COLUMNS} from webhook_subscription where id = $1`, [id]), id);
}

/** The same, locked until the transaction ends. */
export async function lockSubscription(tx: Queryable, id: string): Promise<SubscriptionRow> {
  return one(await tx.query<SubscriptionRow>(`select ${COLUMNS} from webhook_subscription where id = $1 for update`, [id]), id);
}

/** Subscriptions, newest first. */
export async function listSubscriptions(tx: Queryable, { fetch, after }: Page): Promise<SubscriptionRow[]> {
  return await tx.query<SubscriptionRow>(
    `select ${COLUMNS} from webhook_subscription
     where $2::timestamptz is null or (created_at, id) < ($2, $3::uuid)
     order by created_at desc, id desc limit $1`,
    [fetch, after?.createdAt ?? null, after?.id ?? null],
  );
}

/** Adds a subscription. */
export async function insertSubscription(
  tx: Queryable,
  { id, createdBy, ...fields }: SubscriptionFields & { readonly id: string; readonly createdBy: string },
): Promise<SubscriptionRow> {
  const rows = await tx.query<SubscriptionRow>(
    `insert into webhook_subscription (id, name, event_types, filter_agent_id, filter_stack_id, filter_labels, target_labels, enabled,
       disabled_reason, max_retries, timeout_seconds, has_auth_header, sealed, key_id, created_by)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) returning ${COLUMNS}`,
    [id, ...valuesOf(fields), createdBy],
  );
  return one(rows, id);
}

/** Writes all fields. Lock the row first (`lockSubscription`). */
export async function updateSubscription(tx: Queryable, id: string, fields: SubscriptionFields): Promise<SubscriptionRow> {
  const rows = await tx.query<SubscriptionRow>(
    `update webhook_subscription set name = $2, event_types = $3, filter_agent_id = $4, filter_stack_id = $5, filter_labels = $6,
       target_labels = $7, enabled = $8, disabled_reason = $9, max_retries = $10, timeout_seconds = $11, has_auth_header = $12,
       sealed = $13, key_id = $14,
       version = version + 1, updated_at = now()
     where id = $1 returning ${COLUMNS}`,
    [id, ...valuesOf(fields)],
  );
  return one(rows, id);
}

/** Takes an endpoint out that wants nothing more; false when it was disabled already. */
export async function disableSubscription(tx: Queryable, id: string, reason: string): Promise<boolean> {
  const rows = await tx.query(
    `update webhook_subscription set enabled = false, disabled_reason = $2, version = version + 1, updated_at = now()
     where id = $1 and enabled returning 1`,
    [id, reason],
  );
  return rows.length > 0;
}

/** Subscriptions whose secrets are not encrypted with this key; null for those not encrypted. */
export async function listSealedOtherwise(tx: Queryable, keyId: string | null): Promise<SubscriptionRow[]> {
  return await tx.query<SubscriptionRow>(
    `select ${COLUMNS} from webhook_subscription where key_id is distinct from $1 order by id for update`,
    [keyId],
  );
}

/** Replaces what is sealed, and nothing that people see. */
export async function updateSealed(
  tx: Queryable,
  id: string,
  { sealed, key_id }: Pick<SubscriptionRow, 'sealed' | 'key_id'>,
): Promise<void> {
  await tx.query('update webhook_subscription set sealed = $2, key_id = $3 where id = $1', [id, sealed, key_id]);
}

/** Deletes a subscription with its deliveries. */
export async function deleteSubscription(tx: Queryable, id: string): Promise<void> {
  await tx.query('delete from webhook_subscription where id = $1', [id]);
}

function valuesOf(fields: SubscriptionFields): unknown[] {
  return [
    fields.name,
    fields.event_types,
    fields.filter_agent_id,
    fields.filter_stack_id,
    fields.filter_labels,
    fields.target_labels,
    fields.enabled,
    fields.disabled_reason,
    fields.max_retries,
    fields.timeout_seconds,
    fields.has_auth_header,
    fields.sealed,
    fields.key_id,
  ];
}

function one(rows: readonly SubscriptionRow[], id: string): SubscriptionRow {
  const [row] = rows;
  if (!row) throw new BrokkrError('webhook_not_found', `no webhook ${id}`, { details: { webhook_id: id } });
  return row;
}
