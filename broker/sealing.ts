import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';

/** A key for data at rest. */
export interface SealingKey {
  /** Name of the key, stored with everything it encrypts. */
  readonly keyId: string;
  /** 32 bytes (AES-256). */
  readonly key: Uint8Array;
}

const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Encrypts with AES-256-GCM: nonce, ciphertext, tag. `place` is authenticated with it, so that rows cannot be swapped. */
export function seal(plain: Buffer, { key }: SealingKey, place: Buffer): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(place);
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

/** Decrypts what `seal` made at the same place. Throws when key, place or bytes are other ones. */
export function openSealed(sealed: Buffer, { key }: SealingKey, place: Buffer): Buffer {
  const end = sealed.length - TAG_BYTES;
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES });
  decipher.setAAD(place).setAuthTag(sealed.subarray(end));
  return Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES, end)), decipher.final()]);
}
