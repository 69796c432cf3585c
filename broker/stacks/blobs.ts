import { promisify } from 'node:util';
import { zstdCompress, zstdCompressSync, zstdDecompress, zstdDecompressSync } from 'node:zlib';
import type { SourceText } from '#lib/yaml-content.ts';
import type { Queryable } from '../database.ts';
import { openSealed, type SealingKey, seal } from '../sealing.ts';
import { type BlobRow, insertBlobs, listKnownBlobs, selectBlobs, touchBlobs } from './content-store.ts';

/** Documents ready to be stored, made outside the transaction that writes them. */
export interface EncodedBlobs {
  /** Hex digests of all documents, each once. */
  readonly digests: readonly string[];
  /** Rows of those that were not stored yet. */
  readonly rows: readonly BlobRow[];
}

/** YAML documents by the SHA-256 of their text, compressed and, with keys, encrypted. */
export interface BlobStore {
  /** Looks up which documents are missing and encodes those. */
  encode(db: Queryable, documents: readonly SourceText[]): Promise<EncodedBlobs>;
  /** Stores what is missing and keeps the rest from being collected as garbage. Call in the transaction that refers to them. */
  write(tx: Queryable, blobs: EncodedBlobs): Promise<void>;
  /** The documents as received, by hex digest; those not stored are absent. Rejects when a blob's key is not known. */
  read(db: Queryable, digests: readonly Uint8Array[]): Promise<Map<string, Buffer>>;
}

/** Smaller documents are stored as they are: zstd gains little on them. */
const COMPRESS_FROM_BYTES = 4096;
/** Larger documents go through the thread pool; below, a round through it costs ten times what the compression does. */
const SYNC_UP_TO_BYTES = 128 * 1024;
/** Documents and bytes encoded between two turns of the event loop: one or two milliseconds. */
const SLICE = { documents: 32, bytes: 256 * 1024 };

const compressLarge = promisify<Buffer, Buffer>(zstdCompress);
const decompressLarge = promisify<Buffer, Buffer>(zstdDecompress);

async function compress(plain: Buffer): Promise<Buffer> {
  return plain.length <= SYNC_UP_TO_BYTES ? zstdCompressSync(plain) : await compressLarge(plain);
}

async function decompress(bytes: Buffer, size: number): Promise<Buffer> {
  return size <= SYNC_UP_TO_BYTES ? zstdDecompressSync(bytes) : await decompressLarge(bytes);
}

/** Builds the store. The first key encrypts, all decrypt; without keys nothing is encrypted. */
export function createBlobStore(keys: readonly SealingKey[] = []): BlobStore {
  return {
    async encode(db, documents) {
      const byDigest = new Map(documents.map(({ sourceDigest, text }) => [sourceDigest, text]));
      const digests = [...byDigest.keys()];
      for (const known of await listKnownBlobs(db, digests)) byDigest.delete(known);
      return { digests, rows: await encodeBlobs([...byDigest], keys[0]) };
    },
    async write(tx, { digests, rows }) {
      if (rows.length > 0) await insertBlobs(tx, rows);
      if (digests.length > rows.length) await touchBlobs(tx, digests);
    },
    async read(db, digests) {
      const rows = await selectBlobs(db, digests);
      return new Map(
        await Promise.all(rows.map(async (row) => [row.digest.toString('hex'), await decodeBlob(row, keys)] as const)),
      );
    },
  };
}

async function encodeBlobs(texts: readonly (readonly [string, string])[], key: SealingKey | undefined): Promise<BlobRow[]> {
  const rows: BlobRow[] = [];
  let bytes = 0;
  for (const text of texts) {
    const row = await encodeBlob(text, key);
    rows.push(row);
    bytes += row.size;
    if (rows.length % SLICE.documents !== 0 && bytes < SLICE.bytes) continue;
    bytes = 0;
    await new Promise((resolve) => setImmediate(resolve)); // lets others in
  }
  return rows;
}

async function encodeBlob([digest, text]: readonly [string, string], key: SealingKey | undefined): Promise<BlobRow> {
  const plain = Buffer.from(text, 'utf8');
  const smaller = plain.length < COMPRESS_FROM_BYTES ? plain : await compress(plain);
  const compressed = smaller.length < plain.length;
  const bytes = compressed ? smaller : plain;
  return {
    digest: Buffer.from(digest, 'hex'),
    size: plain.length,
    encoding: compressed ? 'zstd' : 'identity',
    key_id: key?.keyId ?? null,
    bytes: key ? seal(bytes, key, Buffer.from(digest, 'hex')) : bytes,
  };
}

async function decodeBlob(row: BlobRow, keys: readonly SealingKey[]): Promise<Buffer> {
  const digest = row.digest.toString('hex');
  const key = keys.find(({ keyId }) => keyId === row.key_id);
  if (row.key_id !== null && !key) throw new Error(`blob ${digest} is encrypted with key ${row.key_id}, which is not configured`);
  const bytes = key ? openSealed(row.bytes, key, row.digest) : row.bytes;
  return row.encoding === 'zstd' ? await decompress(bytes, row.size) : bytes;
}
