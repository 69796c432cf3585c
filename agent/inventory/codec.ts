import { gunzipSync, gzipSync } from 'node:zlib';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { compareUtf8, keyString, type ObjectKey } from '#lib/object.ts';
import type { Marks } from '#lib/object-marks.ts';
import { ApplyOptionsSchema, type DeletionPolicy } from '#proto/brokkr/v1/content_pb.js';
import { type Revision, RevisionSchema } from '#proto/brokkr/v1/sync_pb.js';
import type { FailedGeneration, GoodGeneration, HeldStack } from '../stack/target.ts';

/** What tells whether somebody else touched what we applied. */
export interface Fingerprint {
  /** Resource version after our last write. */
  readonly resourceVersion: string;
  /** 0 for kinds without one. */
  readonly generation: number;
  /** Time of our entry in `managedFields`. */
  readonly time: string;
  /** Digest of the fields we own. */
  readonly fields: string;
}

/**
 * State of an object in the inventory. `pending`: a write may have happened; `applied`: as the digest says; `kept`: should go but
 * a guard keeps it; `deleting`: its deletion was accepted and finalizers still hold it.
 */
export type EntryState = 'pending' | 'applied' | 'kept' | 'deleting';

/** One object a stack has, or may have, in the cluster. */
export interface InventoryEntry extends ObjectKey {
  /** Path segment of the kind, for when discovery no longer knows it. */
  readonly plural: string;
  readonly namespaced: boolean;
  /** Empty until a write was confirmed. */
  readonly uid: string;
  /** Salted digest of what was applied, the first 32 hex digits; empty when that is not certain. */
  readonly digest: string;
  readonly wave: number;
  readonly state: EntryState;
  /** What the object was marked with when we applied it. */
  readonly marks: Marks;
  readonly print: Fingerprint | undefined;
  /** A job that was complete: it is not applied again when it is gone. */
  readonly finished?: true;
  /** When its deletion was accepted, in milliseconds by the agent's clock; only in the state `deleting`. */
  readonly deletingSinceMs?: number;
}

/** An attempt whose outcome is not reported yet. */
export interface OpenAttempt {
  readonly id: string;
  readonly generation: bigint;
  readonly type: 'APPLY' | 'PRUNE' | 'DRIFT' | 'ROLLBACK';
  readonly deploymentObjectId: string;
}

/** The inventory head: what the agent holds of a stack. */
export interface Head extends HeldStack {
  readonly attempt: OpenAttempt | undefined;
  /** Number of shards; 1 means that all entries are in the head itself. */
  readonly shards: number;
  /** Raised by every write; what the head says of a shard holds unless the shard has a higher one. */
  readonly sequence: number;
  /** The inventory was lost or damaged: objects may exist that it does not name, until they have been looked for by label. */
  readonly partial: boolean;
  /**
   * Digest of who the broker and the agent were when the inventory began or was last applied completely; empty when it was lost since.
   * Guards the first prune.
   */
  readonly origin: string;
  /** Service account ("namespace/name") the stack was last applied as; empty for the agent's own rights. */
  readonly impersonate: string;
}

/** Digits of an object digest kept in the inventory. */
export const DIGEST_DIGITS = 32;

/** Entries by key (`keyString`); undefined says that a shard still names an object the inventory has no more. */
export type Entries = ReadonlyMap<string, InventoryEntry | undefined>;

/** Entries as gzipped JSON lines in base64, in the order of their keys, so that equal entries give equal text. */
export function encodeEntries(entries: Entries): string {
  const lines = [...entries].sort(([a], [b]) => compareUtf8(a, b)).map(([key, entry]) => lineOf(key, entry));
  return gzipSync(lines.join('\n'), { level: 1 }).toString('base64');
}

/** Reads what `encodeEntries` wrote. Throws when it is damaged. */
export function decodeEntries(text: string): Map<string, InventoryEntry | undefined> {
  const lines = gunzipSync(Buffer.from(text, 'base64'), { maxOutputLength: 64 * 1024 * 1024 }).toString('utf8');
  const entries = new Map<string, InventoryEntry | undefined>();
  for (const line of lines === '' ? [] : lines.split('\n')) {
    const json = JSON.parse(line) as Line | { readonly gone: string };
    if ('gone' in json) entries.set(json.gone, undefined);
    else {
      const entry = fromLine(json);
      entries.set(keyString(entry), entry);
    }
  }
  return entries;
}

/** Whether two entries are stored alike. */
export function sameEntry(a: InventoryEntry | undefined, b: InventoryEntry | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && lineOf('', a) === lineOf('', b));
}

/** The head as JSON. */
export function encodeHead(head: Head): string {
  const { revision, tombstone, attempt, good, failed } = head;
  return JSON.stringify({
    format: 1,
    stackId: head.stackId,
    stackName: head.stackName,
    received: `${head.receivedGeneration}`,
    manifest: Buffer.from(head.manifestDigest).toString('hex'),
    options: Buffer.from(head.optionsDigest).toString('hex'),
    applied: `${head.appliedGeneration}`,
    refused: `${head.refusedGeneration}`,
    deploymentObject: head.deploymentObjectId,
    incarnation: head.incarnation,
    shards: head.shards,
    sequence: head.sequence,
    ...(head.partial && { partial: true }),
    ...(head.origin !== '' && { origin: head.origin }),
    ...(head.impersonate !== '' && { impersonate: head.impersonate }),
    ...(revision && { revision: [`${revision.xid}`, `${revision.seq}`, `${revision.nonce}`] }),
    ...(tombstone && { tombstone: { policy: tombstone.policy, generation: `${tombstone.generation}` } }),
    ...(attempt && { attempt: { ...attempt, generation: `${attempt.generation}` } }),
    ...(good && { good: encodeGood(good) }),
    ...(failed && { failed: { ...failed, generation: `${failed.generation}` } }),
    ...(head.unjudged && { unjudged: true }),
    ...(head.unconfirmed && { unconfirmed: true }),
  } satisfies HeadJson);
}

/** Reads what `encodeHead` wrote. Throws when it is damaged or of a later format. */
export function decodeHead(text: string): Head {
  const json = JSON.parse(text) as HeadJson;
  if (json.format !== 1) throw new Error(`inventory format ${json.format} is not known`);
  const { tombstone, attempt, good, failed } = json;
  return {
    stackId: json.stackId,
    stackName: json.stackName,
    receivedGeneration: BigInt(json.received),
    manifestDigest: Buffer.from(json.manifest, 'hex'),
    optionsDigest: Buffer.from(json.options, 'hex'),
    appliedGeneration: BigInt(json.applied),
    refusedGeneration: BigInt(json.refused),
    deploymentObjectId: json.deploymentObject,
    incarnation: json.incarnation,
    shards: json.shards,
    sequence: json.sequence,
    partial: json.partial ?? false,
    origin: json.origin ?? '',
    impersonate: json.impersonate ?? '',
    revision: json.revision && readRevision(json.revision),
    attempt: attempt && { ...attempt, generation: BigInt(attempt.generation) },
    ...(tombstone && { tombstone: { policy: tombstone.policy, generation: BigInt(tombstone.generation) } }),
    ...(good && { good: decodeGood(good) }),
    ...(failed && { failed: { ...failed, generation: BigInt(failed.generation) } }),
    ...(json.unjudged && { unjudged: true }),
    ...(json.unconfirmed && { unconfirmed: true }),
  };
}

function encodeGood({ generation, deploymentObjectId, manifestDigest, options }: GoodGeneration): GoodJson {
  return {
    generation: `${generation}`,
    deploymentObject: deploymentObjectId,
    manifest: Buffer.from(manifestDigest).toString('hex'),
    options: Buffer.from(toBinary(ApplyOptionsSchema, options)).toString('base64'),
  };
}

function decodeGood({ generation, deploymentObject, manifest, options }: GoodJson): GoodGeneration {
  return {
    generation: BigInt(generation),
    deploymentObjectId: deploymentObject,
    manifestDigest: Buffer.from(manifest, 'hex'),
    options: fromBinary(ApplyOptionsSchema, Buffer.from(options, 'base64')),
  };
}

/** A head of a stack nothing is held of. */
export function emptyHead(stackId: string, stackName: string): Head {
  return {
    stackId,
    stackName,
    receivedGeneration: 0n,
    manifestDigest: new Uint8Array(),
    optionsDigest: new Uint8Array(),
    appliedGeneration: 0n,
    refusedGeneration: 0n,
    deploymentObjectId: '',
    incarnation: '',
    revision: undefined,
    attempt: undefined,
    shards: 1,
    sequence: 0,
    partial: false,
    origin: '',
    impersonate: '',
  };
}

interface HeadJson {
  readonly format: number;
  readonly stackId: string;
  readonly stackName: string;
  readonly received: string;
  readonly manifest: string;
  readonly options: string;
  readonly applied: string;
  readonly refused: string;
  readonly deploymentObject: string;
  readonly incarnation: string;
  readonly shards: number;
  readonly sequence: number;
  readonly partial?: boolean;
  readonly origin?: string;
  readonly impersonate?: string;
  readonly revision?: readonly string[];
  readonly tombstone?: { readonly policy: DeletionPolicy; readonly generation: string };
  readonly attempt?: Omit<OpenAttempt, 'generation'> & { readonly generation: string };
  readonly good?: GoodJson;
  readonly failed?: Omit<FailedGeneration, 'generation'> & { readonly generation: string };
  readonly unjudged?: boolean;
  readonly unconfirmed?: boolean;
}

interface GoodJson {
  readonly generation: string;
  readonly deploymentObject: string;
  readonly manifest: string;
  readonly options: string;
}

/** Short names: there are thousands of lines. */
interface Line {
  readonly g?: string;
  readonly v: string;
  readonly k: string;
  readonly r: string;
  /** Namespace; absent for cluster-scoped kinds. */
  readonly ns?: string;
  readonly n: string;
  readonly u?: string;
  readonly h?: string;
  readonly w?: number;
  readonly s?: EntryState;
  readonly m?: Marks;
  /** Finished. */
  readonly d?: 1;
  /** Deleting since, in milliseconds. */
  readonly t?: number;
  readonly fp?: readonly [string, number, string, string];
}

function lineOf(key: string, entry: InventoryEntry | undefined): string {
  return JSON.stringify(entry ? toLine(entry) : { gone: key });
}

function toLine(entry: InventoryEntry): Line {
  const { print } = entry;
  return {
    ...(entry.group !== '' && { g: entry.group }),
    v: entry.version,
    k: entry.kind,
    r: entry.plural,
    ...(entry.namespaced && { ns: entry.namespace }),
    n: entry.name,
    ...(entry.uid !== '' && { u: entry.uid }),
    ...(entry.digest !== '' && { h: entry.digest }),
    ...(entry.wave !== 0 && { w: entry.wave }),
    ...(entry.state !== 'applied' && { s: entry.state }),
    ...(Object.keys(entry.marks).length > 0 && { m: entry.marks }),
    ...(entry.finished && { d: 1 as const }),
    ...(entry.deletingSinceMs !== undefined && { t: entry.deletingSinceMs }),
    ...(print && { fp: [print.resourceVersion, print.generation, print.time, print.fields] }),
  };
}

function fromLine(line: Line): InventoryEntry {
  const { fp } = line;
  return {
    group: line.g ?? '',
    version: line.v,
    kind: line.k,
    plural: line.r,
    namespaced: line.ns !== undefined,
    namespace: line.ns ?? '',
    name: line.n,
    uid: line.u ?? '',
    digest: line.h ?? '',
    wave: line.w ?? 0,
    state: line.s ?? 'applied',
    marks: line.m ?? {},
    ...(line.d && { finished: true as const }),
    ...(line.t !== undefined && { deletingSinceMs: line.t }),
    print: fp && { resourceVersion: fp[0], generation: fp[1], time: fp[2], fields: fp[3] },
  };
}

function readRevision([xid = '0', seq = '0', nonce = '0']: readonly string[]): Revision {
  return create(RevisionSchema, { xid: BigInt(xid), seq: BigInt(seq), nonce: BigInt(nonce) });
}
