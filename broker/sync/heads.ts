import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { ApplyOptionsSchema, type Manifest, type ManifestEntry, ManifestSchema } from '#proto/brokkr/v1/content_pb.js';
import { type Blob, BlobSchema, BrokerMessageSchema, type Upsert, UpsertSchema } from '#proto/brokkr/v1/sync_pb.js';
import { type Database, timestampMs } from '../database.ts';
import type { BlobStore } from '../stacks/blobs.ts';
import { pausedOptions } from '../stacks/options.ts';
import { findHead, findManifest, type HeadRow } from './head-store.ts';

/** Largest manifest, delta or blob sent inside a frame; larger ones are fetched. */
const MAX_INLINE_BYTES = 32 * 1024;
/** All blobs of one frame together. */
const MAX_INLINE_BLOBS_BYTES = 96 * 1024;
/** Heads kept with their encoded frames. */
const MAX_HEADS = 256;
/** Frames kept for each head: one for the whole, some for deltas against recent bases, and those for agents it is paused on. */
const MAX_FRAMES = 8;

/** For whom a frame is. */
export interface FrameVariant {
  /** Manifest digest that the agent holds; undefined when it holds nothing. */
  readonly base: Uint8Array | undefined;
  /** The stack is paused on the agent. */
  readonly paused: boolean;
}

/** A generation of a stack as agents are told of it. */
export interface Head {
  readonly row: HeadRow;
  readonly manifest: Manifest;
  /** Digests (hex) that may be fetched: the manifest's own and all sources. */
  readonly digests: ReadonlySet<string>;
  /** Encoded `BrokerMessage{upsert}` by variant: `paused` or nothing, then the base (hex; '' for the whole). */
  readonly frames: Map<string, Promise<Uint8Array>>;
}

/**
 * Heads by (stack, generation), read once and encoded once for all agents that hold the same base. Bounded; content is
 * immutable, so nothing here can go stale.
 */
export class Heads {
  readonly #db: Database;
  readonly #blobs: BlobStore;
  readonly #heads = new Map<string, Promise<Head | undefined>>();

  constructor({ db, blobs }: { readonly db: Database; readonly blobs: BlobStore }) {
    this.#db = db;
    this.#blobs = blobs;
  }

  /** The head; undefined when the stack has no such generation with content. */
  async find(stackId: string, generation: bigint): Promise<Head | undefined> {
    const key = `${stackId}/${generation}`;
    let head = this.#heads.get(key);
    if (!head) {
      head = this.#read(stackId, generation);
      this.#heads.set(key, head);
      head.catch(() => this.#heads.delete(key));
      evictOldest(this.#heads, MAX_HEADS);
    }
    return await head;
  }

  /** The encoded upsert of a head. */
  async frame(head: Head, variant: FrameVariant): Promise<Uint8Array> {
    const { base, paused } = variant;
    const key = `${paused ? 'paused ' : ''}${base === undefined ? '' : Buffer.from(base).toString('hex')}`;
    let frame = head.frames.get(key);
    if (!frame) {
      frame = this.#encode(head, variant);
      head.frames.set(key, frame);
      frame.catch(() => head.frames.delete(key));
      evictOldest(head.frames, MAX_FRAMES);
    }
    return await frame;
  }

  async #read(stackId: string, generation: bigint): Promise<Head | undefined> {
    const row = await findHead(this.#db, stackId, generation);
    if (!row) return undefined;
    const manifest = fromBinary(ManifestSchema, row.manifest);
    const digests = new Set([row.manifest_digest.toString('hex')]);
    for (const entry of manifest.entries) digests.add(Buffer.from(entry.sourceDigest).toString('hex'));
    if (manifest.opaque) digests.add(Buffer.from(manifest.opaque.sourceDigest).toString('hex'));
    return { row, manifest, digests, frames: new Map() };
  }

  async #encode({ row, manifest }: Head, { base, paused }: FrameVariant): Promise<Uint8Array> {
    const options = paused ? pausedOptions(row.options) : { bytes: row.options, digest: row.options_digest };
    const upsert = create(UpsertSchema, {
      stackId: row.stack_id,
      stackName: row.stack_name,
      generation: BigInt(row.generation),
      deploymentObjectId: row.deployment_object_id,
      manifestDigest: row.manifest_digest,
      optionsDigest: options.digest,
      options: fromBinary(ApplyOptionsSchema, options.bytes),
      salt: row.salt,
      traceparent: row.traceparent ?? '',
      publishedAt: timestampFromMs(timestampMs(row.created_at)),
    });
    const delta = base && (await this.#delta(row, manifest, base));
    if (delta) {
      upsert.delta = delta;
      upsert.blobs = await this.#inline(delta.upserts);
    } else if (row.manifest.length <= MAX_INLINE_BYTES) {
      upsert.manifest = manifest;
      upsert.blobs = await this.#inline(manifest.entries);
    }
    return toBinary(BrokerMessageSchema, create(BrokerMessageSchema, { body: { case: 'upsert', value: upsert } }));
  }

  /** The change against a manifest the stack had; undefined when unknown, or no smaller than the whole. */
  async #delta(row: HeadRow, manifest: Manifest, base: Uint8Array): Promise<Upsert['delta']> {
    if (manifest.opaque) return undefined;
    const bytes = await findManifest(this.#db, row.stack_id, base);
    if (!bytes) return undefined;
    const before = new Map(fromBinary(ManifestSchema, bytes).entries.map((entry) => [entryKey(entry), entry]));
    const upserts = manifest.entries.filter((entry) => {
      const old = before.get(entryKey(entry));
      before.delete(entryKey(entry));
      return !old || !sameEntry(old, entry);
    });
    if (upserts.length > manifest.entries.length / 2) return undefined;
    const removals = [...before.values()].map(({ group, version, kind, namespace, name }) => ({
      group,
      version,
      kind,
      namespace,
      name,
    }));
    const delta = create(UpsertSchema, { delta: { baseDigest: base, upserts, removals } });
    return toBinary(UpsertSchema, delta).length <= MAX_INLINE_BYTES ? delta.delta : undefined;
  }

  async #inline(entries: readonly ManifestEntry[]): Promise<Blob[]> {
    const wanted = new Map<string, Uint8Array>();
    let bytes = 0;
    for (const { sourceDigest, size } of entries) {
      if (size > MAX_INLINE_BYTES || bytes + size > MAX_INLINE_BLOBS_BYTES) continue;
      const key = Buffer.from(sourceDigest).toString('hex');
      if (wanted.has(key)) continue;
      wanted.set(key, sourceDigest);
      bytes += size;
    }
    if (wanted.size === 0) return [];
    const texts = await this.#blobs.read(this.#db, [...wanted.values()]);
    return [...texts].map(([digest, data]) => create(BlobSchema, { digest: Buffer.from(digest, 'hex'), data }));
  }
}

function entryKey({ group, kind, namespace, name }: ManifestEntry): string {
  return `${group}/${kind}/${namespace}/${name}`;
}

function sameEntry(a: ManifestEntry, b: ManifestEntry): boolean {
  return (
    a.version === b.version &&
    a.wave === b.wave &&
    a.item === b.item &&
    a.size === b.size &&
    Buffer.compare(a.objectDigest, b.objectDigest) === 0 &&
    Buffer.compare(a.sourceDigest, b.sourceDigest) === 0
  );
}

function evictOldest<K, V>(map: Map<K, V>, max: number): void {
  for (const key of map.keys()) {
    if (map.size <= max) return;
    map.delete(key);
  }
}
