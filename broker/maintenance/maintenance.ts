import { jitter } from '#lib/backoff.ts';
import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Task } from '#lib/run.ts';
import type { Database } from '../database.ts';
import { collectBlobs, forgetAnswers, forgetQuestions, forgetReplicas, forgetWebhookDeliveries } from './store.ts';

const INTERVAL_MS = 3_600_000;

/** What only costs space is removed here, about once an hour by each replica (rows that another one holds are skipped): answers to repeated requests, unreferenced content, questions nobody waits for, webhook deliveries that are over. */
export function createMaintenance(
  {
    db,
    clock,
    log,
    random,
  }: {
    readonly db: Database;
    readonly clock: Clock;
    readonly log: Logger;
    readonly random: () => number;
  },
  { webhookRetentionDays }: { readonly webhookRetentionDays: number },
): Task {
  return {
    name: 'maintenance',
    async run(signal) {
      while (!signal.aborted) {
        await clock.sleep(jitter(INTERVAL_MS, 0.2, random), signal).catch(() => undefined);
        if (signal.aborted) return;
        try {
          const [answers, blobs, replicas] = [await forgetAnswers(db), await collectBlobs(db), await forgetReplicas(db)];
          const questions = await forgetQuestions(db);
          const webhooks = await forgetWebhookDeliveries(db, webhookRetentionDays);
          if (answers + blobs + replicas + questions + webhooks > 0)
            log.info({ answers, blobs, replicas, questions, webhooks }, 'removed what is no longer needed');
        } catch (error) {
          log.warn({ error: errorText(error) }, 'maintenance failed, next try in an hour');
        }
      }
    },
  };
}
