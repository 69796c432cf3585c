import { createHmac } from 'node:crypto';
import type { WebhookRequest } from '#lib/webhook-send.ts';
import type { ClaimedDelivery } from './delivery-store.ts';
import type { WebhookSecrets } from './secrets.ts';

/** One event for one endpoint. */
export interface WebhookMessage {
  readonly deliveryId: string;
  readonly eventId: string;
  readonly eventType: string;
  /** Posted and signed as it is. */
  readonly payload: string;
  /** Bound of the whole attempt. */
  readonly timeoutMs: number;
  /** W3C trace context of what happened, when it is sampled. */
  readonly traceparent: string | undefined;
}

/** The message of a delivery. */
export function messageOf({ id, event_id, event_type, payload, traceparent, subscription }: ClaimedDelivery): WebhookMessage {
  const timeoutMs = subscription.timeout_seconds * 1000;
  const event = { eventId: event_id, eventType: event_type, payload, traceparent: traceparent ?? undefined };
  return { deliveryId: id, ...event, timeoutMs };
}

/** What is posted now: signed with the time of this attempt, also by the secret before for as long as that counts. */
export function requestOf(
  { url, authHeader, signing, previous }: WebhookSecrets,
  { deliveryId, eventId, eventType, payload, timeoutMs, traceparent }: WebhookMessage,
  nowMs: number,
): WebhookRequest {
  const signers = previous && nowMs < previous.untilMs ? [signing, previous.signing] : [signing];
  const timestampSeconds = Math.floor(nowMs / 1000);
  const headers = {
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(payload)),
    'user-agent': 'brokkr',
    'x-brokkr-event-type': eventType,
    'x-brokkr-delivery-id': deliveryId,
    ...signatureHeaders(signers, { id: eventId, timestampSeconds, body: payload }),
    ...(traceparent !== undefined && { traceparent }),
    ...(authHeader !== undefined && { authorization: authHeader }),
  };
  return { url, headers, body: payload, timeoutMs };
}

/**
 * The headers that prove who sent a body and when, as the Standard Webhooks specification has them
 * (standardwebhooks.com): `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`. `timestampSeconds` is that of the
 * attempt, so that a receiver can refuse old ones; `id` is the same in every attempt. Several secrets make several
 * signatures, of which a receiver needs one.
 */
function signatureHeaders(
  secrets: readonly string[],
  { id, timestampSeconds, body }: { readonly id: string; readonly timestampSeconds: number; readonly body: string },
): Record<string, string> {
  const signatures = secrets.map((secret) => {
    const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64');
    return `v1,${createHmac('sha256', key).update(`${id}.${timestampSeconds}.${body}`).digest('base64')}`;
  });
  return {
    'webhook-id': id,
    'webhook-timestamp': String(timestampSeconds),
    'webhook-signature': signatures.join(' '),
  };
}
