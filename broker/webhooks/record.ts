import type { Logger } from '#lib/log.ts';
import type { Outcome } from '#lib/webhook-send.ts';
import { insertAudit } from '../api/store.ts';
import type { Database } from '../database.ts';
import { recordAttempt } from './delivery-store.ts';
import { verdictOf } from './outcome.ts';
import { disableSubscription } from './store.ts';

/** What recording needs. */
export interface RecordDeps {
  readonly db: Database;
  readonly log: Logger;
  readonly random: () => number;
}

/** A delivery of which an attempt ended. */
export interface AttemptedDelivery {
  readonly id: string;
  readonly event_type: string;
  /** This attempt included. */
  readonly attempts: number;
  readonly subscription: { readonly id: string; readonly max_retries: number };
}

/**
 * Stores how an attempt ended and what follows: done, again later, or given up, which is audited and may disable the
 * subscription. Changes nothing when `holderId` has lost the lease meanwhile.
 */
export async function recordOutcome(
  { db, log, random }: RecordDeps,
  holderId: string,
  { id, event_type, attempts, subscription }: AttemptedDelivery,
  outcome: Outcome,
): Promise<void> {
  const verdict = verdictOf(outcome, { attempts, maxRetries: subscription.max_retries }, random);
  const failed = outcome.kind === 'failed' ? outcome : undefined;
  const record = {
    id,
    holderId,
    attempts,
    status: verdict.kind === 'done' ? 'success' : verdict.kind === 'retry' ? 'failed' : 'dead',
    afterMs: verdict.kind === 'retry' ? verdict.afterMs : undefined,
    errorKind: failed?.failure,
    error: failed?.message,
    statusCode: outcome.statusCode,
  } as const;
  await db.transaction(async (tx) => {
    if (!(await recordAttempt(tx, record)) || verdict.kind !== 'dead') return;
    const resource = { principal: undefined, resourceType: 'webhook_subscription', resourceId: subscription.id } as const;
    const details = { delivery_id: id, event_type, attempts, kind: failed?.failure ?? null };
    await insertAudit(tx, [{ ...resource, action: 'webhook.delivery_failed', details }]);
    if (verdict.disable && (await disableSubscription(tx, subscription.id, failed?.message ?? '')))
      await insertAudit(tx, [{ ...resource, action: 'webhook.disabled', details: { status_code: outcome.statusCode ?? null } }]);
  });
  if (!failed) return;
  const fields = { webhook: subscription.id, delivery: id, kind: failed.failure, attempt: attempts, error: failed.message };
  log.warn({ ...fields, ...(verdict.kind === 'retry' && { retryMs: verdict.afterMs }) }, 'webhook not delivered');
}
