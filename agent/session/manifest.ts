import { create } from '@bufbuild/protobuf';
import { compareEntries, isOpaque, keyString, type Manifest, type ManifestEntry } from '#lib/object.ts';
import {
  type ManifestDelta,
  ManifestEntrySchema,
  ManifestSchema,
  type Manifest as WireManifest,
  type ManifestEntry as WireManifestEntry,
} from '#proto/brokkr/v1/content_pb.js';

/** A manifest as it came over the wire. */
export function fromWire(manifest: WireManifest): Manifest {
  if (manifest.opaque) return { opaqueSourceDigest: hex(manifest.opaque.sourceDigest), size: manifest.opaque.size };
  return manifest.entries.map(entryFromWire);
}

/** The wire form of a manifest. */
export function toWire(manifest: Manifest): WireManifest {
  if (isOpaque(manifest)) {
    return create(ManifestSchema, { opaque: { sourceDigest: bytes(manifest.opaqueSourceDigest), size: manifest.size } });
  }
  return create(ManifestSchema, { entries: manifest.map(entryToWire) });
}

/** The manifest that `delta` makes of `base`, in manifest order. Whether it is the one meant only its digest can tell. */
export function applyDelta(base: readonly ManifestEntry[], delta: ManifestDelta): readonly ManifestEntry[] {
  const entries = new Map(base.map((entry) => [keyString(entry), entry]));
  for (const removal of delta.removals) entries.delete(keyString(removal));
  for (const upsert of delta.upserts) entries.set(keyString(upsert), entryFromWire(upsert));
  return [...entries.values()].sort(compareEntries);
}

/** Bytes as lower-case hex. */
export function hex(digest: Uint8Array): string {
  return Buffer.from(digest).toString('hex');
}

/** Hex as bytes. */
export function bytes(digest: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(Buffer.from(digest, 'hex'));
}

function entryFromWire(entry: WireManifestEntry): ManifestEntry {
  const { group, version, kind, namespace, name, size, wave, item } = entry;
  const objectDigest = hex(entry.objectDigest);
  return { group, version, kind, namespace, name, objectDigest, sourceDigest: hex(entry.sourceDigest), size, wave, item };
}

function entryToWire(entry: ManifestEntry): WireManifestEntry {
  const digests = { objectDigest: bytes(entry.objectDigest), sourceDigest: bytes(entry.sourceDigest) };
  return create(ManifestEntrySchema, { ...entry, ...digests });
}
