import { createHash } from 'node:crypto';
import { ownEntry } from '../apply/takeover.ts';
import type { Fingerprint, InventoryEntry } from '../inventory/codec.ts';
import type { ObjectMeta } from '../kube/objects.ts';
import { OWNER_ANNOTATION, STACK_LABEL, type StackIdentity } from '../stack-identity.ts';

/**
 * What an observation of an object says. `same`: nothing of ours changed, or it is older than our last write; `check`: its generation
 * moved though our fields are still ours (somebody else's field, as a rule): a dry-run tells; `drifted`: our state was changed.
 */
export type Verdict = 'same' | 'check' | 'drifted';

/** Fingerprint of an object as our field manager left it. */
export function fingerprint(metadata: ObjectMeta, fieldManager: string): Fingerprint {
  const ours = ownEntry(metadata, fieldManager);
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

/** What is remembered of an object that was seen: enough to judge it, without its content. */
export interface Sighting {
  readonly uid: string;
  readonly print: Fingerprint;
  /** Whether it carries the label and the owner of the stack. */
  readonly marked: boolean;
  /** Whether it is being deleted. */
  readonly leaving: boolean;
}

/** What metadata says about an object, as far as `judge` wants to know (status updates move none of it). */
export function sight(metadata: ObjectMeta, { fieldManager, short, owner }: StackIdentity): Sighting {
  return {
    uid: metadata.uid,
    print: fingerprint(metadata, fieldManager),
    marked: metadata.labels?.[STACK_LABEL] === short && metadata.annotations?.[OWNER_ANNOTATION] === owner,
    leaving: metadata.deletionTimestamp !== undefined,
  };
}

/** Judges what was seen of an object of the inventory. */
export function judge({ print, uid, state }: InventoryEntry, seen: Sighting): Verdict {
  if (!print || state !== 'applied') return 'same'; // not settled: the next sync applies it anyway
  if (seen.leaving) return 'same'; // the event of its end will come
  if (isOlder(seen.print.resourceVersion, print.resourceVersion)) return 'same';
  if (seen.uid !== uid || !seen.marked) return 'drifted';
  if (seen.print.fields !== print.fields || seen.print.time !== print.time) return 'drifted';
  return seen.print.generation === print.generation ? 'same' : 'check';
}

/** Whether two fingerprints say the same of what is ours, whatever else was written meanwhile. */
export function samePrint(a: Fingerprint, b: Fingerprint): boolean {
  return a.fields === b.fields && a.time === b.time && a.generation === b.generation;
}

/** Whether a version is not newer than one we know. Versions of one kind compare as numbers (KEP-5504). */
export function isOlder(version: string, known: string): boolean {
  if (version.length !== known.length) return version.length < known.length;
  return version <= known;
}
