import { BrokkrError } from '#lib/errors.ts';
import type { Page } from '../api/page.ts';
import type { Database, Queryable } from '../database.ts';

/** Where a delivery stands. */
export type DeliveryStatus = 'pending' | 'acquired' | 'success' | 'failed' | 'dead';

/** A delivery as read. */
export interface DeliveryRow {
  readonly id: string;
  readonly subscription_id: string;
  readonly event_type: string;
  readonly event_id: string;
  readonly payload: string;
  readonly status: DeliveryStatus;
  readonly due_at: string | null;
  readonly acquired_by: string | null;
  readonly attempts: number;
  readonly last_attempt_at: string | null;
  readonly last_error_kind: string | null;
  readonly last_error: string | null;
  readonly status_code: number | null;
  readonly created_at: string;
  readonly completed_at: string | null;
  /** Target labels, while it waits and no agent that has them all has a session. */
  readonly missing_labels: readonly string[] | null;
}

const COLUMNS = `id, subscription_id, event_type, event_id, payload, status, due_at, acquired_by, attempts, last_attempt_at,
  last_error_kind, last_error, status_code, created_at, completed_at`;

/** What a list of deliveries is narrowed to. */
export interface DeliveryFilter {
  readonly subscriptionId?: string;
  readonly status: DeliveryStatus | undefined;
  readonly offset?: number;
}

/** Deliveries, newest first. */
export async function listDeliveries(
  tx: Queryable,
  { subscriptionId, status, offset = 0 }: DeliveryFilter,
  { fetch, after }: Page,
): Promise<DeliveryRow[]> {
  return await tx.query<DeliveryRow>(
    `with page as materialized (
       select ${COLUMNS} from webhook_delivery
       where ($2::uuid is null or subscription_id = $2) and ($3::text is null or status = $3)
         and ($5::timestamptz is null or (created_at, id) < ($5, $6::uuid))
       order by created_at desc, id desc limit $1 offset $4
     ), stuck as materialized (
       select s.id, s.target_labels from webhook_subscription s
       where s.id in (select subscription_id from page) and s.target_labels <> '{}' and not exists (
         select from agent_label l join agent_session e on e.agent_id = l.agent_id and e.connected_at is not null and e.closed_at is null
         where l.label = s.target_labels[1] and webhook_may_send(l.agent_id, s.target_labels)
           and not exists (select from replica r where r.id = e.replica_id and r.lease_until < now()))
     )
     select p.*, s.target_labels as missing_labels
     from page p left join stuck s on s.id = p.subscription_id and p.status in ('pending', 'failed')
     order by p.created_at desc, p.id desc`,
    [fetch, subscriptionId ?? null, status ?? null, offset, after?.createdAt ?? null, after?.id ?? null],
  );
}

/** Makes a delivery due now with all its attempts, unless it is being sent, and wakes the replicas at commit. Throws `delivery_not_found`. */
export async function replayDelivery(tx: Queryable, id: string): Promise<DeliveryRow> {
  await tx.query(
    `update webhook_delivery set status = 'pending', due_at = now(), attempts = 0, completed_at = null
     where id = $1 and status <> 'acquired'`,
    [id],
  );
  const [row] = await tx.query<DeliveryRow>(`select ${COLUMNS}, null as missing_labels from webhook_delivery where id = $1`, [
    id,
  ]);
  if (!row) throw new BrokkrError('delivery_not_found', `no webhook delivery ${id}`, { details: { delivery_id: id } });
  await tx.query('select webhook_wake()');
  return row;
}

/** A delivery that its holder may send now, with what that needs of its subscription. */
export interface ClaimedDelivery {
  readonly id: string;
  readonly event_id: string;
  readonly event_type: string;
  readonly payload: string;
  /** This attempt included. */
  readonly attempts: number;
  /** W3C trace context of what happened. */
  readonly traceparent: string | null;
  readonly subscription: {
    readonly id: string;
    readonly max_retries: number;
    readonly timeout_seconds: number;
    readonly sealed: Buffer;
    readonly key_id: string | null;
  };
}

/** Who holds deliveries under a lease: a replica, or an agent where the subscription has target labels. */
export interface Holder {
  readonly kind: 'replica' | 'agent';
  readonly id: string;
}

/** Bounds of a claim. */
export interface ClaimBounds {
  /** Rows at most. */
  readonly limit: number;
  readonly leaseMs: number;
}

/** Deliveries of one subscription under way at a time, over all replicas and agents. */
const PER_ENDPOINT = 4;

/**
 * Takes due deliveries under a lease, oldest first; those whose lease ran out are due again. Claims follow one another under a
 * lock, taken in a statement before: what follows must see the claims of whoever held it. `dueMs` is the time until the next
 * delivery is due or a lease is over, by the same clock, so that none falls between; infinite when none waits.
 */
export async function claimDeliveries(
  db: Database,
  holder: Holder,
  { limit, leaseMs }: ClaimBounds,
): Promise<{ readonly deliveries: readonly ClaimedDelivery[]; readonly dueMs: number }> {
  const lockKey = db.lockKey('webhook claim');
  return await db.transaction(async (tx) => {
    await tx.query('select pg_advisory_xact_lock($1)', [lockKey]);
    const rows = await tx.query<Omit<ClaimedDelivery, 'subscription'> & SubscriptionColumns>(CLAIM, [
      holder.id,
      limit,
      PER_ENDPOINT,
      leaseMs / 1000,
      holder.kind === 'agent',
    ]);
    const deliveries = rows.map(({ subscription_id, max_retries, timeout_seconds, sealed, key_id, ...delivery }) => ({
      ...delivery,
      subscription: { id: subscription_id, max_retries, timeout_seconds, sealed, key_id },
    }));
    return { deliveries, dueMs: await nextDueMs(tx) };
  });
}

/** A replica takes what has no target labels, an agent what wants none that it lacks. Leases count from the clock: now() is before the lock. */
const CLAIM = `with busy as (
    select subscription_id, count(*) as sending from webhook_delivery
    where status = 'acquired' and due_at > now() group by subscription_id
  ), due as (
    select d.id, s.id as subscription_id, s.max_retries, s.timeout_seconds, s.sealed, s.key_id
    from webhook_subscription s
    left join busy b on b.subscription_id = s.id
    cross join lateral (
      select w.id, w.due_at from webhook_delivery w where w.subscription_id = s.id and w.due_at <= now()
      order by w.due_at, w.id limit greatest(0, $3 - coalesce(b.sending, 0)) for update skip locked
    ) d
    where s.enabled
      and case when $5 then s.target_labels <> '{}' and webhook_may_send($1, s.target_labels) else s.target_labels = '{}' end
    order by d.due_at, d.id limit $2
  )
  update webhook_delivery d set status = 'acquired', acquired_by = $1, due_at = clock_timestamp() + make_interval(secs => $4),
    attempts = d.attempts + 1, last_attempt_at = now()
  from due where d.id = due.id
  returning d.id, d.event_id, d.event_type, d.payload, d.attempts, d.traceparent,
    due.subscription_id, due.max_retries, due.timeout_seconds, due.sealed, due.key_id`;

interface SubscriptionColumns {
  readonly subscription_id: string;
  readonly max_retries: number;
  readonly timeout_seconds: number;
  readonly sealed: Buffer;
  readonly key_id: string | null;
}

async function nextDueMs(tx: Queryable): Promise<number> {
  const [row] = await tx.query<{ ms: number | null }>(
    'select (extract(epoch from min(due_at) - now()) * 1000)::float8 as ms from webhook_delivery where due_at > now()',
  );
  return row?.ms ?? Number.POSITIVE_INFINITY;
}

/** Prolongs leases; returns the deliveries that are still held by this holder. */
export async function renewLeases(tx: Queryable, holderId: string, ids: readonly string[], leaseMs: number): Promise<string[]> {
  const rows = await tx.query<{ id: string }>(
    `update webhook_delivery set due_at = now() + make_interval(secs => $3)
     where id = any($2::uuid[]) and acquired_by = $1 and status = 'acquired' returning id`,
    [holderId, ids, leaseMs / 1000],
  );
  return rows.map(({ id }) => id);
}

/** How an attempt ended, for its row. */
export interface AttemptRecord {
  readonly id: string;
  readonly holderId: string;
  /** Number of the attempt: whoever lost the lease meanwhile records nothing. */
  readonly attempts: number;
  readonly status: 'success' | 'failed' | 'dead';
  /** Wait until the next one, with `failed`. */
  readonly afterMs: number | undefined;
  readonly errorKind: string | undefined;
  readonly error: string | undefined;
  readonly statusCode: number | undefined;
}

/** Stores the end of an attempt; false when the lease was lost. */
export async function recordAttempt(tx: Queryable, record: AttemptRecord): Promise<boolean> {
  const rows = await tx.query(
    `update webhook_delivery set status = $4, due_at = now() + make_interval(secs => $5), acquired_by = null,
       last_error_kind = $6, last_error = $7, status_code = $8,
       completed_at = case when $4 in ('success', 'dead') then now() end
     where id = $1 and acquired_by = $2 and attempts = $3 and status = 'acquired' returning 1`,
    [
      record.id,
      record.holderId,
      record.attempts,
      record.status,
      record.afterMs === undefined ? null : record.afterMs / 1000,
      record.errorKind ?? null,
      record.error ?? null,
      record.statusCode ?? null,
    ],
  );
  return rows.length > 0;
}

/** Gives a delivery back whose attempt was cut off by a stop, to be sent again at once. */
export async function releaseDelivery(
  tx: Queryable,
  { id, holderId, attempts }: Pick<AttemptRecord, 'id' | 'holderId' | 'attempts'>,
): Promise<void> {
  await tx.query(
    `update webhook_delivery set status = 'pending', due_at = now(), acquired_by = null
     where id = $1 and acquired_by = $2 and attempts = $3 and status = 'acquired'`,
    [id, holderId, attempts],
  );
}
