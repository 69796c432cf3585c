import { hash } from 'node:crypto';
import { create, fromBinary } from '@bufbuild/protobuf';
import { manifestDigest } from '#lib/digest.ts';
import { BrokkrError, errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { isOpaque, type Manifest } from '#lib/object.ts';
import { ManifestSchema } from '#proto/brokkr/v1/content_pb.js';
import { type Blob, type BlobChunk, type FetchBlobsRequest, FetchBlobsRequestSchema } from '#proto/brokkr/v1/sync_pb.js';
import { type ContentSource, ContentUnavailableError, type WayBack } from '../stack/target.ts';
import type { ContentCache } from './content-cache.ts';
import { bytes, fromWire, hex } from './manifest.ts';
import type { WayBacks } from './way-back.ts';

/** Documents kept in memory, in characters: what a publication brings is used within seconds. */
const MEMORY_CHARS = 8 * 1024 * 1024;
/** Documents waiting for the disk, in characters: the largest deployment object. What comes beyond is fetched again one day. */
const MAX_PENDING_CHARS = 64 * 1024 * 1024;
/** Breaks of a transfer in a row without a byte of progress before giving up. */
const MAX_BREAKS = 3;
/** Largest blob: the text of one deployment object (the design's table of limits). */
const MAX_BLOB_BYTES = 64n * 1024n * 1024n;
/** Digests asked for at a time (sync.proto). */
const MAX_DIGESTS = 10_001;

/** A session's way to content. */
export type Fetch = (request: FetchBlobsRequest, signal: AbortSignal) => AsyncIterable<BlobChunk>;

/** What content needs. */
export interface ContentDeps {
  /** Undefined where there is no disk. */
  readonly cache: ContentCache | undefined;
  /** The manifest held of a stack: says what a document is, so that Secrets stay off the disk. */
  readonly manifestOf: (stackId: string) => Manifest | undefined;
  readonly wayBacks: WayBacks;
  readonly log: Logger;
  /** Resolves when the disk may be written: applying comes first. At once when absent. */
  readonly settled?: () => Promise<void>;
}

/** Documents and manifests by digest: from memory, from disk, or from the broker while a session is up. All of it is verified. */
export class Content implements ContentSource {
  readonly #deps: ContentDeps;
  readonly #memory = new Map<string, string>();
  #memoryChars = 0;
  #fetch: Fetch | undefined;
  #pending = new Map<string, string>();
  #pendingChars = 0;
  #writes: Promise<void> = Promise.resolve();

  constructor(deps: ContentDeps) {
    this.#deps = deps;
  }

  /** Resolves when the disk holds everything that is to be kept on it so far. */
  async stored(): Promise<void> {
    await this.#writes;
  }

  /** A session is up. */
  connect(fetch: Fetch): void {
    this.#fetch = fetch;
  }

  /** That session has ended. */
  disconnect(fetch: Fetch): void {
    if (this.#fetch === fetch) this.#fetch = undefined;
  }

  /** Takes documents that came with a frame; those that do not match their digest are dropped and fetched when needed. */
  remember(blobs: readonly Blob[]): void {
    for (const { digest, data } of blobs) {
      if (hash('sha256', data, 'hex') === hex(digest)) this.#keep(hex(digest), Buffer.from(data).toString('utf8'));
    }
  }

  async documents(
    stackId: string,
    generation: bigint,
    digests: readonly string[],
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, string>> {
    const found = new Map<string, string>();
    const plain = plainDocuments(this.#deps.manifestOf(stackId));
    const wayBack = this.#deps.wayBacks.find(stackId);
    for (const digest of digests) {
      const text = this.#memory.get(digest) ?? this.#pending.get(digest) ?? wayBack?.documents.get(digest);
      if (text === undefined) continue;
      found.set(digest, text);
      this.#store(plain, digest, text);
    }
    const elsewhere = [...new Set(digests)].filter((digest) => !found.has(digest));
    const onDisk = elsewhere.length > 0 ? await this.#deps.cache?.read(elsewhere) : undefined;
    for (const [digest, text] of onDisk ?? []) found.set(digest, text);
    signal.throwIfAborted();
    const missing = [...new Set(digests)].filter((digest) => !found.has(digest));
    await this.#fetchAll(stackId, generation, missing, signal, async (digest, data) => {
      if (hash('sha256', data, 'hex') !== digest) throw new Error(`document ${digest} does not match its digest`);
      const text = data.toString('utf8');
      found.set(digest, text);
      this.#keep(digest, text);
      this.#store(plain, digest, text);
    });
    return found;
  }

  /** A manifest from the broker, in its wire form, checked against its digest. Throws as `documents`. */
  async manifest(stackId: string, generation: bigint, digest: Uint8Array, signal: AbortSignal): Promise<Manifest> {
    const kept = this.#deps.wayBacks.find(stackId)?.good;
    if (kept && Buffer.compare(kept.manifestDigest, digest) === 0) return kept.manifest;
    let manifest: Manifest | undefined;
    await this.#fetchAll(stackId, generation, [hex(digest)], signal, async (_, data) => {
      manifest = fromWire(fromBinary(ManifestSchema, data));
      if (Buffer.compare(manifestDigest(manifest), digest) !== 0) throw new Error('the manifest does not match its digest');
    });
    if (!manifest) throw new ContentUnavailableError('the broker sent no manifest');
    return manifest;
  }

  async keepWayBack(wayBack: WayBack, digests: readonly string[], signal: AbortSignal): Promise<void> {
    const { stackId, generation } = wayBack.goal;
    await this.#deps.wayBacks.keep({ ...wayBack, documents: await this.documents(stackId, generation, digests, signal) });
  }

  dropWayBack(stackId: string): Promise<void> {
    return this.#deps.wayBacks.drop(stackId);
  }

  loadWayBacks(stackIds: ReadonlySet<string>): Promise<readonly WayBack[]> {
    return this.#deps.wayBacks.load(stackIds);
  }

  /** Fetches in the order asked for; after a break goes on where it stopped, with whatever session is up then. */
  async #fetchAll(
    stackId: string,
    generation: bigint,
    digests: readonly string[],
    signal: AbortSignal,
    take: (digest: string, data: Buffer) => Promise<void>,
  ): Promise<void> {
    let missing = [...digests];
    let parts: Uint8Array[] = [];
    let size = 0;
    const position = () => `${missing.length} ${size}`;
    for (let breaks = 0; missing.length > 0; ) {
      signal.throwIfAborted();
      if (!this.#fetch)
        throw new ContentUnavailableError('content is not on this machine and there is no session with the broker');
      const before = position();
      try {
        const wanted = missing.slice(0, MAX_DIGESTS).map(bytes);
        const request = create(FetchBlobsRequestSchema, { stackId, generation, digests: wanted, offset: BigInt(size) });
        for await (const chunk of this.#fetch(request, signal)) {
          check(chunk, missing[0], size);
          parts.push(chunk.data);
          size += chunk.data.length;
          if (BigInt(size) < chunk.total) continue;
          const whole = Buffer.concat(parts);
          parts = [];
          size = 0;
          await take(hex(chunk.digest), whole);
          missing = missing.slice(1);
        }
        if (position() === before) throw new Error('the broker sent nothing');
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof ContentUnavailableError) throw error;
        breaks = position() === before ? breaks + 1 : 0;
        if (breaks >= MAX_BREAKS || (error instanceof BrokkrError && error.code === 'blob_not_found')) {
          throw new ContentUnavailableError(`content cannot be fetched: ${errorText(error)}`, { cause: error });
        }
        this.#deps.log.debug({ stack: stackId, error: errorText(error) }, 'content transfer broke and goes on');
      }
    }
  }

  /** Behind the caller's back: applying does not wait for the cache. All that comes before the disk may be written is one batch. */
  #store(plain: ReadonlySet<string>, digest: string, text: string): void {
    const { cache, settled } = this.#deps;
    if (!cache || !plain.has(digest) || this.#pending.has(digest) || cache.has(digest)) return;
    if (this.#pendingChars + text.length > MAX_PENDING_CHARS) return;
    this.#pendingChars += text.length;
    this.#pending.set(digest, text);
    if (this.#pending.size > 1) return; // its batch is on the way
    this.#writes = this.#writes
      .then(() => settled?.())
      .then(() => {
        const batch = this.#pending;
        this.#pending = new Map();
        this.#pendingChars = 0;
        return cache.write(batch);
      });
  }

  #keep(digest: string, text: string): void {
    const before = this.#memory.get(digest);
    if (before !== undefined) this.#memory.delete(digest);
    else this.#memoryChars += text.length;
    this.#memory.set(digest, text);
    for (const [oldest, value] of this.#memory) {
      if (this.#memoryChars <= MEMORY_CHARS) break;
      this.#memory.delete(oldest);
      this.#memoryChars -= value.length;
    }
  }
}

function check({ digest, offset, total }: BlobChunk, wanted: string | undefined, size: number): void {
  if (hex(digest) !== wanted) throw new Error('the broker sent another blob than the one asked for');
  if (offset !== BigInt(size)) throw new Error(`the broker went on at ${offset} instead of ${size}`);
  if (total > MAX_BLOB_BYTES) throw new Error(`the blob is larger than ${MAX_BLOB_BYTES} bytes`);
}

/** Source digests of documents that hold no Secret. Nothing is known about an opaque text. */
function plainDocuments(manifest: Manifest | undefined): ReadonlySet<string> {
  if (!manifest || isOpaque(manifest)) return new Set();
  const secret = new Set(manifest.filter(({ kind }) => kind === 'Secret').map(({ sourceDigest }) => sourceDigest));
  return new Set(manifest.map(({ sourceDigest }) => sourceDigest).filter((digest) => !secret.has(digest)));
}
