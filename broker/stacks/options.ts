import { createHash } from 'node:crypto';
import { clone, create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { reflect } from '@bufbuild/protobuf/reflect';
import { BrokkrError } from '#lib/errors.ts';
import {
  AdoptionPolicy,
  type ApplyOptions,
  ApplyOptionsSchema,
  DeletionPolicy,
  DriftMode,
  OnFailure,
  Preflight,
  PruneMode,
  RecreatePolicy,
} from '#proto/brokkr/v1/content_pb.js';

/** Options as a stack's head holds them. */
export interface EncodedOptions {
  readonly bytes: Uint8Array;
  /** SHA-256 of the bytes; part of the digest of a target state entry. */
  readonly digest: Uint8Array;
  /** Spelling of the column `deletion_policy`, and of tombstones. */
  readonly deletionPolicy: 'delete' | 'orphan' | 'delete_and_wait';
}

/** Options with what is not specified spelled out, so that options that mean the same are the same; `conflicts` has a meaning of its own then. */
export function normalOptions(options: ApplyOptions | undefined): ApplyOptions {
  const result = options ? clone(ApplyOptionsSchema, options) : create(ApplyOptionsSchema);
  if (result.deletionPolicy === DeletionPolicy.UNSPECIFIED) result.deletionPolicy = DeletionPolicy.DELETE;
  if (result.adoption === AdoptionPolicy.UNSPECIFIED) result.adoption = AdoptionPolicy.ADOPT;
  if (result.onFailure === OnFailure.UNSPECIFIED) result.onFailure = OnFailure.HOLD;
  if (result.drift === DriftMode.UNSPECIFIED) result.drift = DriftMode.CORRECT;
  if (result.recreate === RecreatePolicy.UNSPECIFIED) result.recreate = RecreatePolicy.NEVER;
  if (result.preflight === Preflight.UNSPECIFIED) result.preflight = Preflight.UPDATES;
  if (result.prune === PruneMode.UNSPECIFIED) result.prune = PruneMode.AFTER_SUCCESS;
  return result;
}

/** Encodes options for the database. Those of a request have been checked by `assertOptions`. */
export function encodeOptions(options: ApplyOptions | undefined): EncodedOptions {
  const normal = normalOptions(options);
  const bytes = toBinary(ApplyOptionsSchema, normal);
  const deletionPolicy = POLICIES[normal.deletionPolicy];
  return { bytes, digest: createHash('sha256').update(bytes).digest(), deletionPolicy };
}

const POLICIES = {
  [DeletionPolicy.UNSPECIFIED]: 'delete',
  [DeletionPolicy.DELETE]: 'delete',
  [DeletionPolicy.ORPHAN]: 'orphan',
  [DeletionPolicy.DELETE_AND_WAIT]: 'delete_and_wait',
} as const;

/** Options as the database holds them. */
export function decodeOptions(bytes: Uint8Array): ApplyOptions {
  return normalOptions(fromBinary(ApplyOptionsSchema, bytes));
}

/**
 * Options of the next head when `wanted` is asked for. An approval of deletions belongs to one head: a request that
 * names none and changes nothing else keeps the head as it is.
 */
export function nextOptions(current: ApplyOptions, wanted: ApplyOptions): ApplyOptions {
  const next = normalOptions(wanted);
  if (next.approveDeletes !== 0) return next;
  const kept = clone(ApplyOptionsSchema, next);
  kept.approveDeletes = current.approveDeletes;
  return encodeOptions(kept).digest.every((byte, index) => byte === encodeOptions(current).digest[index]) ? kept : next;
}

/** Options for a head with new content: the approval was for the head before, an empty snapshot meant only that one. */
export function optionsForContent(
  current: ApplyOptions,
  { marker, afterMarker }: { readonly marker: boolean; readonly afterMarker: boolean },
): ApplyOptions {
  const next = clone(ApplyOptionsSchema, current);
  next.approveDeletes = 0;
  if (marker) next.allowEmpty = true;
  else if (afterMarker) next.allowEmpty = false;
  return next;
}

/** Options of a head for an agent on which the stack is paused. */
export function pausedOptions(bytes: Uint8Array): EncodedOptions {
  const options = decodeOptions(bytes);
  options.paused = true;
  return encodeOptions(options);
}

/** Copies single options, named as in the proto, from one message to another. Throws `invalid_request` for unknown names. */
export function copyOptions(from: ApplyOptions, to: ApplyOptions, names: readonly string[]): void {
  const source = reflect(ApplyOptionsSchema, from);
  const target = reflect(ApplyOptionsSchema, to);
  for (const name of names) {
    const field = ApplyOptionsSchema.fields.find((candidate) => candidate.name === name);
    if (!field) throw new BrokkrError('invalid_request', `update_mask names options.${name}, which does not exist`);
    target.set(field, source.get(field));
  }
}

/** True when both mean the same. */
export function sameOptions(a: ApplyOptions, b: ApplyOptions): boolean {
  return Buffer.from(encodeOptions(a).bytes).equals(encodeOptions(b).bytes);
}
