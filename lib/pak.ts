import { createHash, randomBytes } from 'node:crypto';

/** A new key. `pak` is shown once and never stored. */
export interface MintedKey {
  readonly pak: string;
  /** Hex SHA-256 of the long token: what is stored. */
  readonly hash: string;
  /** The part of the key that is no secret; tells keys apart in lists. */
  readonly shortToken: string;
}

/** Bitcoin's alphabet: no 0, O, I, l. */
const BASE58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';
const PREFIX = 'brokkr';
const SHORT_LEAD = 'BR';
const SHORT_LENGTH = 8;
const LONG_LENGTH = 24;
const PAK = /^[a-z0-9]{1,32}_[0-9A-Za-z]{1,32}_([0-9A-Za-z]{16,64})$/;

/** Mints a key `brokkr_BRxxxxxx_<24 characters>`; 24 base58 characters are 140 bits of randomness. */
export function mintKey(): MintedKey {
  const shortToken = SHORT_LEAD + randomBase58(SHORT_LENGTH - SHORT_LEAD.length);
  const longToken = randomBase58(LONG_LENGTH);
  return { pak: `${PREFIX}_${shortToken}_${longToken}`, hash: hashLongToken(longToken), shortToken };
}

/** The stored hash of a key as presented, or undefined when it does not have a key's shape. */
export function hashPak(pak: string): string | undefined {
  const longToken = PAK.exec(pak)?.[1];
  return longToken === undefined ? undefined : hashLongToken(longToken);
}

/** The key in an `Authorization` header: bare or after `Bearer`. */
export function pakOf(authorization: string | undefined): string | undefined {
  const value = authorization?.trim();
  if (!value) return undefined;
  return /^bearer\s+/i.test(value) ? value.replace(/^bearer\s+/i, '') : value;
}

function hashLongToken(longToken: string): string {
  return createHash('sha256').update(longToken).digest('hex');
}

/** Uniform: bytes of 232 (4 × 58) and above are thrown away. */
function randomBase58(length: number): string {
  let text = '';
  while (text.length < length) {
    for (const byte of randomBytes(length * 2)) {
      if (byte < 232 && text.length < length) text += BASE58[byte % 58];
    }
  }
  return text;
}
