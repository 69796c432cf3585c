import type { Queryable } from '../database.ts';

/** Rows removed by one statement; the rest goes next time. */
const BATCH = 10_000;

/** Removes answers to repeated requests after a day; returns how many. */
export async function forgetAnswers(tx: Queryable): Promise<number> {
  return (await tx.query(`delete from idempotency_key where created_at < now() - interval '1 day' returning 1`)).length;
}

/**
 * Removes content that no deployment object refers to, a day after it was last used: a publication under way has touched
 * what it will refer to. Skips rows that a publication holds at this moment.
 */
export async function collectBlobs(tx: Queryable): Promise<number> {
  const rows = await tx.query(
    `delete from blob where digest in (
       select b.digest from blob b where b.touched_at < now() - interval '1 day'
         and not exists (select from blob_ref r where r.digest = b.digest)
       limit $1 for update skip locked) returning 1`,
    [BATCH],
  );
  return rows.length;
}

/** Removes replicas that have been gone for a day. */
export async function forgetReplicas(tx: Queryable): Promise<number> {
  return (await tx.query(`delete from replica where lease_until < now() - interval '1 day' returning 1`)).length;
}

/** Removes questions to agents that are over and that nobody removed, because whoever asked died. */
export async function forgetQuestions(tx: Queryable): Promise<number> {
  return (await tx.query('delete from agent_query where deadline < now() returning 1')).length;
}

/**
 * Removes webhook deliveries that were taken or given up that long ago, and those that have waited as long: for an agent that may send them, or
 * for a webhook to be enabled. The rest of many goes next time.
 */
export async function forgetWebhookDeliveries(tx: Queryable, days: number): Promise<number> {
  const rows = await tx.query(
    `delete from webhook_delivery where id in (
       select id from webhook_delivery
       where completed_at < now() - make_interval(days => $1) or due_at < now() - make_interval(days => $1)
       limit $2 for update skip locked) returning 1`,
    [days, BATCH],
  );
  return rows.length;
}
