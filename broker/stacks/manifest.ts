import { create } from '@bufbuild/protobuf';
import { isOpaque, keyString, type Manifest, type ManifestEntry } from '#lib/object.ts';
import {
  type ManifestEntry as ManifestEntryMessage,
  ManifestEntrySchema,
  type Manifest as ManifestMessage,
  ManifestSchema,
  OpaqueTextSchema,
} from '#proto/brokkr/v1/content_pb.js';

/** A manifest as it is stored and sent. */
export function manifestToProto(manifest: Manifest): ManifestMessage {
  if (isOpaque(manifest)) {
    const sourceDigest = Buffer.from(manifest.opaqueSourceDigest, 'hex');
    return create(ManifestSchema, { opaque: create(OpaqueTextSchema, { sourceDigest, size: manifest.size }) });
  }
  return create(ManifestSchema, { entries: manifest.map(entryToProto) });
}

function entryToProto(entry: ManifestEntry): ManifestEntryMessage {
  return create(ManifestEntrySchema, {
    ...entry,
    objectDigest: Buffer.from(entry.objectDigest, 'hex'),
    sourceDigest: Buffer.from(entry.sourceDigest, 'hex'),
  });
}

/** A stored manifest. */
export function manifestFromProto({ entries, opaque }: ManifestMessage): Manifest {
  if (opaque) return { opaqueSourceDigest: hex(opaque.sourceDigest), size: opaque.size };
  return entries.map(({ group, version, kind, namespace, name, objectDigest, sourceDigest, size, wave, item }) => ({
    group,
    version,
    kind,
    namespace,
    name,
    objectDigest: hex(objectDigest),
    sourceDigest: hex(sourceDigest),
    size,
    wave,
    item,
  }));
}

/** Hex digests of the blobs that a manifest refers to, each once. */
export function blobDigests(manifest: Manifest): string[] {
  return isOpaque(manifest) ? [manifest.opaqueSourceDigest] : [...new Set(manifest.map(({ sourceDigest }) => sourceDigest))];
}

/** An object that differs between two manifests. */
export interface ManifestChange {
  readonly group: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly change: 'added' | 'changed' | 'removed';
}

/**
 * What changes from one manifest to the next, by identity and object digest (a comment is no change; another API version
 * is). Empty when either was not parsed: then nobody knows.
 */
export function diffManifests(before: Manifest, after: Manifest): ManifestChange[] {
  if (isOpaque(before) || isOpaque(after)) return [];
  const old = new Map(before.map((entry) => [keyString(entry), entry]));
  const changes: ManifestChange[] = [];
  for (const entry of after) {
    const key = keyString(entry);
    const was = old.get(key);
    old.delete(key);
    if (!was) changes.push(changeOf(entry, 'added'));
    else if (was.objectDigest !== entry.objectDigest || was.version !== entry.version) changes.push(changeOf(entry, 'changed'));
  }
  for (const entry of old.values()) changes.push(changeOf(entry, 'removed'));
  return changes;
}

function changeOf({ group, kind, namespace, name }: ManifestEntry, change: ManifestChange['change']): ManifestChange {
  return { group, kind, namespace, name, change };
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}
