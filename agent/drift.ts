import { createHash } from 'node:crypto';
import { OWNER_ANNOTATION, STACK_LABEL, type StackIdentity } from './apply-identity.ts';
import type { Fingerprint, InventoryEntry } from './inventory-codec.ts';
import type { ObjectMeta } from './kube/objects.ts';

/**
 * What an observation of an object says. `same`: nothing of ours changed, or it is older than our last write; `check`: its generation
 * moved though our fields are still ours (a scale, or somebody else's field): applying again tells; `drifted`: our state was changed.
 */
export type Verdict = 'same' | 'check' | 'drifted';

/** Fingerprint of an object as our field manager left it. */
export function fingerprint(metadata: ObjectMeta, fieldManager: string): Fingerprint {
  const ours = metadata.managedFields?.find(
    (entry) => entry.manager === fieldManager && entry.operation === 'Apply' && !entry.subresource,
  );
  return {
    resourceVersion: metadata.resourceVersion,
    generation: metadata.generation ?? 0,
    time: ours?.time ?? '',
    fields: ours
      ? createHash('sha256')
          .update(JSON.stringify(ours.fieldsV1 ?? {}))
          .digest('hex')
          .slice(0, 16)
      : '',
  };
}

/** Judges what a watch told about an object of the inventory, from metadata alone (status updates move none of it). */
export function judge(entry: InventoryEntry, metadata: ObjectMeta, identity: StackIdentity): Verdict {
  const { print } = entry;
  if (!print || entry.state !== 'applied') return 'same'; // not settled: the next sync applies it anyway
  if (metadata.deletionTimestamp !== undefined) return 'same'; // the event of its end will come
  if (isOlder(metadata.resourceVersion, print.resourceVersion)) return 'same';
  if (metadata.uid !== entry.uid) return 'drifted';
  const now = fingerprint(metadata, identity.fieldManager);
  if (now.fields !== print.fields || now.time !== print.time) return 'drifted';
  if (metadata.labels?.[STACK_LABEL] !== identity.short || metadata.annotations?.[OWNER_ANNOTATION] !== identity.owner)
    return 'drifted';
  return now.generation === print.generation ? 'same' : 'check';
}

/** Whether a version is not newer than one we know. Versions of one kind compare as numbers (KEP-5504). */
function isOlder(version: string, known: string): boolean {
  if (version.length !== known.length) return version.length < known.length;
  return version <= known;
}
