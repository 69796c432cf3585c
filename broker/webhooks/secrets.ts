import { randomBytes } from 'node:crypto';
import { BrokkrError } from '#lib/errors.ts';
import { openSealed, type SealingKey, seal } from '../sealing.ts';

/** What of a subscription is never shown again. */
export interface WebhookSecrets {
  readonly url: string;
  /** Value of the header Authorization. */
  readonly authHeader?: string;
  /** Signing secret: `whsec_` and base64 (standardwebhooks.com, "Signature scheme"). */
  readonly signing: string;
  /** The one before, which signs too until then (milliseconds since the epoch). */
  readonly previous?: { readonly signing: string; readonly untilMs: number };
}

/** Secrets as stored. */
export interface SealedSecrets {
  readonly sealed: Buffer;
  /** Key that encrypts them; null when none does. */
  readonly key_id: string | null;
}

/** Puts secrets into rows and takes them out. */
export interface SecretBox {
  /** Key that encrypts now; null when none does. */
  readonly keyId: string | null;
  /** Encrypts with the first key; without keys the secrets are stored as they are. */
  seal(subscriptionId: string, secrets: WebhookSecrets): SealedSecrets;
  /** Throws `webhook_secrets_unreadable` when the row's key is not configured or does not fit. */
  open(row: SealedSecrets & { readonly id: string }): WebhookSecrets;
}

/** Bytes of a signing secret; the specification asks for 24 to 64. */
const SIGNING_BYTES = 32;

/** Builds the box; the first key encrypts, all decrypt. */
export function createSecretBox(keys: readonly SealingKey[]): SecretBox {
  const place = (id: string) => Buffer.from(`webhook/${id}`);
  return {
    keyId: keys[0]?.keyId ?? null,
    seal(id, secrets) {
      const plain = Buffer.from(JSON.stringify(secrets));
      const [key] = keys;
      return key ? { sealed: seal(plain, key, place(id)), key_id: key.keyId } : { sealed: plain, key_id: null };
    },
    open({ id, sealed, key_id }) {
      const key = keys.find(({ keyId }) => keyId === key_id);
      const unreadable = (why: string, cause?: unknown) =>
        new BrokkrError('webhook_secrets_unreadable', `webhook ${id} is encrypted with key ${key_id}, ${why}`, {
          details: { webhook_id: id, key_id },
          cause,
        });
      if (key_id !== null && !key) throw unreadable('which is neither broker.encryption_key nor in broker.encryption_old_keys');
      try {
        const plain = key ? openSealed(sealed, key, place(id)) : sealed;
        return JSON.parse(plain.toString('utf8')) as WebhookSecrets;
      } catch (error) {
        throw unreadable('and the key of that name does not decrypt it', error);
      }
    },
  };
}

/** A new signing secret. */
export function newSigningSecret(): string {
  return `whsec_${randomBytes(SIGNING_BYTES).toString('base64')}`;
}
