import { createHash } from 'node:crypto';
import { isOpaque, type Manifest } from './object.ts';

const BUCKETS = 256;
const DIGEST_BYTES = 32;

/**
 * Digest of a manifest: SHA-256 over, entry by entry in manifest order, the fields group, version, kind, namespace, name,
 * object digest, source digest, size, wave, item, joined by NUL and ended by a line feed. Digests are hex, numbers
 * decimal. An opaque manifest is `opaque NUL digest NUL size LF`.
 */
export function manifestDigest(manifest: Manifest): Uint8Array {
  const hash = createHash('sha256');
  if (isOpaque(manifest)) return hash.update(`opaque\0${manifest.opaqueSourceDigest}\0${manifest.size}\n`).digest();
  for (const e of manifest) {
    const names = `${e.group}\0${e.version}\0${e.kind}\0${e.namespace}\0${e.name}`;
    hash.update(`${names}\0${e.objectDigest}\0${e.sourceDigest}\0${e.size}\0${e.wave}\0${e.item}\n`, 'utf8');
  }
  return hash.digest();
}

/**
 * Digest of one released entry of a target state: SHA-256 over the 16 bytes of the stack's id, the generation as 8
 * big-endian bytes, the manifest digest and the options digest.
 */
export function entryDigest(stackId: string, generation: bigint, manifest: Uint8Array, options: Uint8Array): Uint8Array {
  return createHash('sha256').update(uuidBytes(stackId)).update(u64(generation)).update(manifest).update(options).digest();
}

/** Digest of a tombstone: SHA-256 over the stack's id, the generation (both as in `entryDigest`), `tombstone NUL` and the policy. */
export function tombstoneDigest(stackId: string, generation: bigint, policy: string): Uint8Array {
  return createHash('sha256').update(uuidBytes(stackId)).update(u64(generation)).update(`tombstone\0${policy}`, 'utf8').digest();
}

/** The bucket of a stack: first byte of SHA-256 over the 16 bytes of its id. */
function bucketOf(stackId: string): number {
  return createHash('sha256').update(uuidBytes(stackId)).digest()[0] ?? 0;
}

/** The 16 bytes of a UUID. Throws a RangeError for anything else. */
function uuidBytes(uuid: string): Uint8Array {
  const bytes = Buffer.from(uuid.replaceAll('-', ''), 'hex');
  if (bytes.length !== 16 || uuid.length !== 36) throw new RangeError('stack id is not a uuid');
  return bytes;
}

/**
 * Digest of a whole target state, kept up to date entry by entry: 256 buckets, each the XOR of the digests of its
 * entries, and a root, SHA-256 over the 256 bucket digests. The order in which entries were set does not matter. Two
 * sides that differ compare buckets and exchange only those that differ.
 */
export class RootDigest {
  readonly #entries = new Map<string, Uint8Array>();
  /** Only buckets in use: a broker holds one of these for every agent. */
  readonly #byBucket = new Map<number, Set<string>>();
  readonly #digests = new Uint8Array(BUCKETS * DIGEST_BYTES);
  #root: Uint8Array | undefined;

  /** Sets or, with undefined, removes the entry of a stack. `digest` is 32 bytes from `entryDigest` or `tombstoneDigest`. */
  set(stackId: string, digest: Uint8Array | undefined): void {
    const id = stackId.toLowerCase();
    const before = this.#entries.get(id);
    if (!before && !digest) return;
    const bucket = bucketOf(id);
    if (before) this.#toggle(bucket, before);
    if (digest) {
      if (digest.length !== DIGEST_BYTES) throw new RangeError('digest is not 32 bytes');
      this.#toggle(bucket, digest);
      this.#entries.set(id, Uint8Array.from(digest));
      const members = this.#byBucket.get(bucket);
      if (members) members.add(id);
      else this.#byBucket.set(bucket, new Set([id]));
    } else {
      this.#entries.delete(id);
      this.#byBucket.get(bucket)?.delete(id);
    }
    this.#root = undefined;
  }

  /** The digest of a stack's entry. */
  get(stackId: string): Uint8Array | undefined {
    return this.#entries.get(stackId.toLowerCase());
  }

  /** The bucket a stack belongs to, 0 to 255. */
  bucket(stackId: string): number {
    return bucketOf(stackId);
  }

  /** A copy of the 256 bucket digests, 32 bytes each, in order. */
  bucketDigests(): Uint8Array {
    return this.#digests.slice();
  }

  /** The digest of the whole, 32 bytes; computed once after a change. */
  root(): Uint8Array {
    this.#root ??= createHash('sha256').update(this.#digests).digest();
    return this.#root;
  }

  /** The entries of one bucket, in no particular order. */
  entries(bucket: number): { readonly stackId: string; readonly digest: Uint8Array }[] {
    const result = [];
    for (const stackId of this.#byBucket.get(bucket) ?? []) {
      const digest = this.#entries.get(stackId);
      if (digest) result.push({ stackId, digest });
    }
    return result;
  }

  /** Number of entries. */
  get size(): number {
    return this.#entries.size;
  }

  #toggle(bucket: number, digest: Uint8Array): void {
    const offset = bucket * DIGEST_BYTES;
    for (let index = 0; index < DIGEST_BYTES; index++) {
      this.#digests[offset + index] = (this.#digests[offset + index] ?? 0) ^ (digest[index] ?? 0);
    }
  }
}

function u64(value: bigint): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}
