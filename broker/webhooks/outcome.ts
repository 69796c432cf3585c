import { jitter } from '#lib/backoff.ts';

/** Why an attempt failed; a small closed set, also a metric label. */
export type FailureKind =
  | 'dns' // the host name does not resolve
  | 'refused' // nobody listens there, or the network says it is unreachable
  | 'timeout' // no answer in time
  | 'tls' // the handshake fails, or the certificate is not acceptable
  | 'connection' // it broke, or the answer is not HTTP
  | 'blocked' // the address is not one that webhooks may go to
  | 'redirect' // 3xx; redirects are not followed
  | '4xx'
  | '5xx'
  | 'key'; // URL and secrets cannot be decrypted

/** How one attempt ended. */
export type Outcome =
  | { readonly kind: 'delivered'; readonly statusCode: number }
  | {
      readonly kind: 'failed';
      readonly failure: FailureKind;
      /** For people; bounded. */
      readonly message: string;
      readonly statusCode?: number;
      /** What the endpoint asks for, in milliseconds. */
      readonly retryAfterMs?: number;
    };

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

/** Milliseconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date); undefined when it says nothing. */
export function retryAfterMs(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined;
  const text = header.trim();
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}
