import { jitter } from '#lib/backoff.ts';
import type { Outcome } from '#lib/webhook-send.ts';

/** What follows from an attempt. */
export type Verdict =
  | { readonly kind: 'done' }
  | { readonly kind: 'retry'; readonly afterMs: number }
  /** `disable`: the endpoint is gone for good and gets nothing more. */
  | { readonly kind: 'dead'; readonly disable: boolean };

/** Answers below 500 after which trying again can help (RFC 9110 and 6585: timeout, too early, too many requests). */
const PASSING: ReadonlySet<number> = new Set([408, 425, 429]);
const GONE = 410;
/** Each attempt's wait is twice the one before, ± a fifth, so that the gaps always grow. */
const JITTER = 0.2;
/** An endpoint can ask for at most this much. */
const MAX_RETRY_AFTER_MS = 3_600_000;

/**
 * Done, again after 2^attempts seconds (later when the endpoint says so), or given up: at the last attempt, and at once
 * when the endpoint refuses the request as such. `attempts` counts the one that ended.
 */
export function verdictOf(
  outcome: Outcome,
  { attempts, maxRetries }: { readonly attempts: number; readonly maxRetries: number },
  random: () => number,
): Verdict {
  if (outcome.kind === 'delivered') return { kind: 'done' };
  const { failure, statusCode, retryAfterMs = 0 } = outcome;
  const final = failure === '4xx' && statusCode !== undefined && !PASSING.has(statusCode);
  if (final || attempts >= maxRetries) return { kind: 'dead', disable: statusCode === GONE };
  const backoff = jitter(1000 * 2 ** attempts, JITTER, random);
  return { kind: 'retry', afterMs: Math.max(backoff, Math.min(retryAfterMs, MAX_RETRY_AFTER_MS)) };
}
