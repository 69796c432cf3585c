import { create } from '@bufbuild/protobuf';
import { entryDigest, RootDigest, tombstoneDigest } from '#lib/digest.ts';
import type { Manifest } from '#lib/object.ts';
import { DeletionPolicy } from '#proto/brokkr/v1/content_pb.js';
import { type HeldEntry, HeldEntrySchema, type Revision } from '#proto/brokkr/v1/sync_pb.js';
import type { HeldStack, StackTarget, StackTombstone } from '../stack/target.ts';

const BUCKETS = 256;
const DIGEST_BYTES = 32;
/** Stacks of one agent (the hard limit of the design's table). */
export const MAX_STACKS = 2000;

interface Entry {
  readonly generation: bigint;
  readonly manifestDigest: Uint8Array;
  readonly kind: 'target' | 'tombstone' | 'absent';
  /** Missing after a restart: received then, and kept in the cluster without its manifest. */
  readonly manifest?: Manifest;
}

/**
 * What the agent has received and verified, over all sessions: the base of deltas and the source of the root digest.
 * After a restart it is what the inventory heads say. A head whose generation was not applied or is not judged yet, and a
 * stack that is leaving, stay outside the root digest until the broker has sent them again, because the engine needs
 * them whole.
 */
export class HeldState {
  readonly #entries = new Map<string, Entry>();
  readonly #root = new RootDigest();
  #incarnation = '';
  #revision: Revision | undefined;

  /** Takes over what the cluster remembers. Call once, before the first session. */
  load(heads: readonly HeldStack[]): void {
    for (const head of heads) {
      const { stackId, receivedGeneration: generation, manifestDigest, optionsDigest, tombstone } = head;
      this.#entries.set(stackId, { generation, manifestDigest, kind: tombstone ? 'tombstone' : 'target' });
      const settled =
        !tombstone && !head.unjudged && head.appliedGeneration === generation && manifestDigest.length === DIGEST_BYTES;
      if (settled) this.#root.set(stackId, entryDigest(stackId, generation, manifestDigest, optionsDigest));
    }
    this.#incarnation = mostCommon(heads.map(({ incarnation }) => incarnation)) ?? '';
    for (const { incarnation, revision } of heads) {
      if (incarnation === this.#incarnation) this.#revision = later(this.#revision, revision);
    }
  }

  /** A verified target of the broker. */
  take(target: StackTarget): void {
    const { stackId, generation, manifest, manifestDigest, optionsDigest } = target;
    this.#entries.set(stackId, { generation, manifestDigest, manifest, kind: 'target' });
    this.#root.set(stackId, entryDigest(stackId, generation, manifestDigest, optionsDigest));
  }

  /** A tombstone of the broker. */
  bury({ stackId, generation, policy }: StackTombstone): void {
    this.#entries.set(stackId, { generation, manifestDigest: new Uint8Array(), kind: 'tombstone' });
    this.#root.set(stackId, tombstoneDigest(stackId, generation, policyName(policy)));
  }

  /** The broker neither assigns nor withdraws the stack: kept, outside the root digest. */
  setAbsent(stackId: string): void {
    const entry = this.#entries.get(stackId);
    if (entry) this.#entries.set(stackId, { ...entry, kind: 'absent' });
    this.#root.set(stackId, undefined);
  }

  /** The stack has left and the broker knows. A target that came meanwhile stays. */
  forget(stackId: string): void {
    if (this.#entries.get(stackId)?.kind === 'target') return;
    this.#entries.delete(stackId);
    this.#root.set(stackId, undefined);
  }

  /** The manifest held of a stack when it has this digest. */
  manifest(stackId: string, digest: Uint8Array): Manifest | undefined {
    const entry = this.#entries.get(stackId);
    return entry?.manifest && Buffer.compare(entry.manifestDigest, digest) === 0 ? entry.manifest : undefined;
  }

  /** The manifest held of a stack, whatever its digest. */
  newestManifest(stackId: string): Manifest | undefined {
    return this.#entries.get(stackId)?.manifest;
  }

  /** What was received of a stack: for its status. The digest is empty when it cannot be a base for deltas. */
  received(stackId: string): { readonly generation: bigint; readonly manifestDigest: Uint8Array } | undefined {
    const entry = this.#entries.get(stackId);
    if (!entry) return undefined;
    return { generation: entry.generation, manifestDigest: entry.manifest ? entry.manifestDigest : new Uint8Array() };
  }

  /** Ids of the stacks held and neither leaving nor absent. */
  targets(): string[] {
    return [...this.#entries].filter(([, { kind }]) => kind === 'target').map(([stackId]) => stackId);
  }

  /** Number of stacks held. */
  get size(): number {
    return this.#entries.size;
  }

  /** Position up to which target state was taken; moves forward within an incarnation. Call only when nothing is on its way. */
  reached(incarnation: string, revision: Revision | undefined): void {
    if (incarnation !== this.#incarnation) this.#revision = undefined;
    this.#incarnation = incarnation;
    this.#revision = later(this.#revision, revision);
  }

  /** What Hello and Ping say. */
  summary() {
    return {
      incarnation: this.#incarnation,
      ...(this.#revision && { revision: this.#revision }),
      rootDigest: Uint8Array.from(this.#root.root()),
      entries: this.#root.size,
    };
  }

  /** Numbers of the buckets that differ from `digests` (256 times 32 bytes). */
  differing(digests: Uint8Array): number[] {
    const own = this.#root.bucketDigests();
    const slice = (all: Uint8Array, bucket: number) => all.subarray(bucket * DIGEST_BYTES, (bucket + 1) * DIGEST_BYTES);
    return Array.from({ length: BUCKETS }, (_, bucket) => bucket).filter(
      (bucket) => Buffer.compare(slice(own, bucket), slice(digests, bucket)) !== 0,
    );
  }

  /** Everything held in these buckets. Entries outside the root digest have an empty digest, which differs from any. */
  entries(buckets: readonly number[]): HeldEntry[] {
    const wanted = new Set(buckets);
    const found: HeldEntry[] = [];
    for (const [stackId, { generation, manifestDigest, manifest }] of this.#entries) {
      if (!wanted.has(this.#root.bucket(stackId))) continue;
      const digest = this.#root.get(stackId) ?? new Uint8Array();
      found.push(
        create(HeldEntrySchema, { stackId, generation, digest, manifestDigest: manifest ? manifestDigest : new Uint8Array() }),
      );
    }
    return found;
  }
}

/** A policy as the digest of a tombstone names it. */
export function policyName(policy: DeletionPolicy): string {
  switch (policy) {
    case DeletionPolicy.UNSPECIFIED:
    case DeletionPolicy.DELETE:
      return 'delete';
    case DeletionPolicy.ORPHAN:
      return 'orphan';
    case DeletionPolicy.DELETE_AND_WAIT:
      return 'delete_and_wait';
  }
}

/** The later of two positions of one incarnation: by transaction, then by row. */
function later(a: Revision | undefined, b: Revision | undefined): Revision | undefined {
  if (!a || !b) return a ?? b;
  return a.xid > b.xid || (a.xid === b.xid && a.seq >= b.seq) ? a : b;
}

function mostCommon(values: readonly string[]): string | undefined {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0];
}
