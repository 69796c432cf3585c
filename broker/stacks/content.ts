import { toBinary } from '@bufbuild/protobuf';
import { manifestDigest } from '#lib/digest.ts';
import { BrokkrError, type JsonValue } from '#lib/errors.ts';
import { isOpaque, type Manifest } from '#lib/object.ts';
import { HARD_LIMITS, type YamlLimits } from '#lib/yaml.ts';
import type { PublishResult } from '#lib/yaml-content.ts';
import type { YamlPool } from '#lib/yaml-pool.ts';
import { hasErrors, type Problem } from '#lib/yaml-problems.ts';
import { type ApplyOptions, ManifestSchema } from '#proto/brokkr/v1/content_pb.js';
import { Validation } from '#proto/brokkr/v1/stacks_pb.js';
import type { Command } from '../api/command.ts';
import type { Queryable } from '../database.ts';
import type { StoredGate } from '../targeting/gate.ts';
import type { BlobStore, EncodedBlobs } from './blobs.ts';
import { type DeploymentObjectRow, findManifest, insertBlobRefs, insertDeploymentObject } from './content-store.ts';
import { blobDigests, manifestToProto } from './manifest.ts';
import { encodeOptions, optionsForContent } from './options.ts';
import { moveHead, type StackRow } from './store.ts';

/** What reading content needs. */
export interface ContentDeps {
  readonly db: Queryable;
  readonly yaml: Pick<YamlPool, 'publish'>;
  readonly blobs: BlobStore;
}

/** A text to be published. */
export interface Draft {
  readonly text: string;
  /** 16 bytes of the stack. */
  readonly salt: Uint8Array;
  readonly validation: Validation;
  /** Stands for the removal of everything, whatever the text says. */
  readonly marker: boolean;
  /** A text without objects is meant. */
  readonly allowEmpty: boolean;
}

/** A checked text, ready to be written. */
export interface Content {
  readonly text: string;
  readonly checksum: string;
  readonly marker: boolean;
  readonly manifest: Manifest;
  readonly manifestBytes: Uint8Array;
  readonly manifestDigest: Uint8Array;
  readonly objectCount: number;
  readonly blobs: EncodedBlobs;
  readonly warnings: readonly Problem[];
}

/**
 * Reads a text before any transaction: parses it in the pool, encodes the documents that are not stored yet. Throws
 * `invalid_deployment_object` with `details.problems`, and `payload_too_large`.
 */
export async function readContent(
  { db, yaml, blobs }: ContentDeps,
  draft: Draft,
  limits: YamlLimits,
  signal: AbortSignal,
): Promise<Content> {
  const { text, salt } = draft;
  const most = Math.min(limits.textBytes, HARD_LIMITS.textBytes);
  const bytes = Buffer.byteLength(text, 'utf8');
  if (bytes > most) throw new BrokkrError('payload_too_large', `the text has ${bytes} bytes, the limit is ${most}`);
  const opaque = draft.validation === Validation.NONE && !draft.marker && text.trim() !== '';
  const result = await yaml.publish({ text, salt, limits, validation: opaque ? 'none' : 'full' }, signal);
  if (hasErrors(result.problems)) throw invalidContent(result.problems);
  const manifest: Manifest = draft.marker ? [] : result.manifest;
  const objectCount = isOpaque(manifest) ? 0 : manifest.length;
  if (objectCount === 0 && !opaque && !draft.marker && !draft.allowEmpty) throw invalidContent([EMPTY]);
  return {
    ...read(draft, result, manifest),
    objectCount,
    blobs: await blobs.encode(db, draft.marker ? [] : result.documents),
  };
}

function read({ text, marker }: Draft, { checksum, problems }: PublishResult, manifest: Manifest) {
  const manifestBytes = toBinary(ManifestSchema, manifestToProto(manifest));
  return { text, marker, checksum, manifest, manifestBytes, manifestDigest: manifestDigest(manifest), warnings: problems };
}

const EMPTY: Problem = {
  document: 0,
  rule: 'empty_content',
  message: 'the text holds no object: set is_deletion_marker, or options.allow_empty on the stack, when that is meant',
  severity: 'error',
};

function invalidContent(problems: readonly Problem[]): BrokkrError {
  const first = problems.find(({ severity }) => severity === 'error');
  return new BrokkrError('invalid_deployment_object', `${placeOf(first)}${first?.message ?? 'the text cannot be used'}`, {
    details: { problems: problems.map((problem) => ({ ...problem }) as { readonly [key: string]: JsonValue }) },
  });
}

function placeOf(problem: Problem | undefined): string {
  if (!problem || problem.document === 0) return '';
  const { document, line, path } = problem;
  return `document ${document}${line === undefined ? '' : `, line ${line}`}${path ? `, ${path}` : ''}: `;
}

/** The manifest of nothing, for deletion markers. */
export function emptyManifest(): { readonly manifest: Uint8Array; readonly manifestDigest: Uint8Array } {
  return { manifest: toBinary(ManifestSchema, manifestToProto([])), manifestDigest: manifestDigest([]) };
}

/** A published snapshot and the stack with its new head. */
export interface Published {
  readonly stack: StackRow;
  readonly object: DeploymentObjectRow;
}

/**
 * Writes a snapshot and makes it the head, in the command's transaction. `stack` must be locked (`lockStack`). `options`
 * are those of the new head; when undefined, those of the head before without its approval. `gate` is its gate.
 */
export async function publish(
  command: Command,
  stack: StackRow,
  content: Content,
  blobs: BlobStore,
  {
    current,
    wanted,
    gate,
  }: { readonly current: ApplyOptions; readonly wanted: ApplyOptions | undefined; readonly gate: StoredGate | undefined },
): Promise<Published> {
  const { tx } = command;
  await blobs.write(tx, content.blobs);
  const object = await insertDeploymentObject(tx, {
    stackId: stack.id,
    text: content.text,
    checksum: content.checksum,
    marker: content.marker,
    manifest: content.manifestBytes,
    manifestDigest: content.manifestDigest,
    objectCount: content.objectCount,
  });
  const digests = blobDigests(content.manifest);
  if (digests.length > 0 && (await insertBlobRefs(tx, object.id, digests)) < digests.length) {
    throw new BrokkrError('unavailable', 'documents were collected as garbage between reading and publishing, try again');
  }
  const options =
    wanted ??
    optionsForContent(current, { marker: content.marker, afterMarker: current.allowEmpty && (await endsInMarker(tx, stack)) });
  const head = await moveHead(tx, {
    stackId: stack.id,
    deploymentObjectId: object.id,
    manifestDigest: content.manifestDigest,
    options: encodeOptions(options),
    cause: 'content',
    gate,
    principal: command.principal,
    traceparent: command.traceparent,
  });
  command.audit('deployment.created', 'deployment_object', object.id, {
    stack_id: stack.id,
    generation: Number(head.generation),
    revision: Number(object.revision),
    yaml_checksum: content.checksum,
    object_count: content.objectCount,
  });
  command.change({ kind: 'stack', stackId: stack.id });
  return { stack: head, object };
}

async function endsInMarker(tx: Queryable, stack: StackRow): Promise<boolean> {
  const head = stack.deployment_object_id === null ? undefined : await findManifest(tx, stack.deployment_object_id);
  return head?.is_deletion_marker === true;
}
