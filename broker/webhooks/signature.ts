import { createHmac } from 'node:crypto';

/**
 * The headers that prove who sent a body and when, as the Standard Webhooks specification has them
 * (standardwebhooks.com): `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`. `timestampSeconds` is that of the
 * attempt, so that a receiver can refuse old ones; `id` is the same in every attempt. Several secrets make several
 * signatures, of which a receiver needs one.
 */
export function signatureHeaders(
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
