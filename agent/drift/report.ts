import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { Value } from '#lib/object.ts';
import { parseBody } from '#lib/object-body.ts';
import { type Change, diff } from '#lib/yaml-diff.ts';
import type { ApplyOptions, ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { conflictPolicy, decide } from '../apply/field-managers.ts';
import { ignoredPointers, leaveIgnored } from '../apply/ignore.ts';
import { objectStatus } from '../apply/report.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { KubeObject, ManagedFieldsEntry, ObjectMeta } from '../kube/objects.ts';
import type { StackIdentity } from '../stack-identity.ts';
import { changedFields, type FieldChange } from './fields.ts';
import { additions } from './strict.ts';

/** Fields named of one object; the rest is counted. */
const MAX_FIELDS = 10;

/** What happened to an object, and who did it. */
export interface DriftCause {
  /** `deleted`, `replaced`, `changed`, `added` (fields that the mode `strict` removes), or `disowned`: nothing but ownership changed. */
  readonly reason: 'deleted' | 'replaced' | 'changed' | 'added' | 'disowned';
  readonly message: string;
  readonly managers: readonly string[];
  /** The first field. */
  readonly path: string;
}

/** An object of a stack as it was found. */
export interface Found {
  readonly entry: InventoryEntry;
  /** Undefined when it is gone. */
  readonly live: KubeObject | undefined;
  /** Its JSON as we want it; undefined when the content cannot be had. */
  readonly wanted: string | undefined;
  /** Whether what people added counts. */
  readonly strict: boolean;
}

/** Explains a drift from the live object alone: which fields of ours changed, and who owns them now. Secrets' values are left out. */
export function explain({ entry, live, wanted, strict }: Found, identity: StackIdentity, options: ApplyOptions): DriftCause {
  const none = { managers: [], path: '' };
  if (!live) return { ...none, reason: 'deleted', message: 'the object was deleted' };
  const { metadata } = live;
  if (metadata.uid !== entry.uid) {
    return { ...none, reason: 'replaced', message: 'the object was deleted and another one of its name created' };
  }
  const fields = wanted === undefined ? [] : realChanges(entry, live, wanted, identity, options);
  if (fields.length > 0) return causeOf(metadata, entry, fields, identity.fieldManager);
  const theirs = strict ? additions(metadata, identity) : [];
  const newest = writersSince(metadata, entry, identity.fieldManager);
  if (theirs.length > 0) {
    return {
      reason: 'added',
      message: `${authors(theirs)} added fields that are not part of the stack`,
      ...byWhom(theirs),
      path: '',
    };
  }
  if (wanted !== undefined && (metadata.generation ?? 0) === (entry.print?.generation ?? 0)) {
    return { ...none, reason: 'disowned', message: 'everything is as wanted, but was no longer ours' };
  }
  return { reason: 'changed', message: `${authors(newest)} changed the object`, ...byWhom(newest), path: '' };
}

/** The status of an object with its cause. The reason is that of the cause unless given. */
export function driftStatus(
  entry: InventoryEntry,
  cause: DriftCause,
  { state, reason = cause.reason, sinceMs, text = '' }: DriftState,
): ObjectStatus {
  const place = { managers: [...cause.managers], path: cause.path, since: timestampFromMs(sinceMs) };
  return objectStatus(entry, state, reason, `${cause.message}${text}`, place);
}

/** What is to be said of an object besides the cause. */
export interface DriftState {
  readonly state: string;
  readonly reason?: string;
  /** Since when it is so, in milliseconds by the wall clock. */
  readonly sinceMs: number;
  /** Added to the message. */
  readonly text?: string;
}

/**
 * Fields whose values changed and that an apply would put back: those that we lost, or, when our own field manager was used, any. Where the generation did not move, nothing outside of the metadata changed but the spelling.
 */
function realChanges(
  entry: InventoryEntry,
  live: KubeObject,
  wanted: string,
  { fieldManager }: StackIdentity,
  { conflicts, yieldManagers, ...rest }: ApplyOptions,
): FieldChange[] {
  const { metadata } = live;
  const desired = parseBody(wanted);
  leaveIgnored(desired, ignoredPointers(rest, entry), live, fieldManager);
  const rules = { fieldManager, policy: conflictPolicy(entry.marks, conflicts), yieldManagers, claimed: true, adopting: false };
  const still = metadata.generation !== undefined && metadata.generation === entry.print?.generation;
  const all = changedFields(desired, live as unknown as Value, metadata, fieldManager)
    .filter(({ path }) => !still || path.startsWith('.metadata.'))
    .filter(({ owners }) => !owners.some((owner) => decide(owner, rules) === 'yield'))
    .filter((change) => changesOf(change, false).length > 0);
  const lost = all.filter((change) => change.lost);
  return lost.length > 0 ? lost : all;
}

function causeOf(metadata: ObjectMeta, entry: InventoryEntry, fields: readonly FieldChange[], manager: string): DriftCause {
  const owners = [...new Set(fields.flatMap((field) => field.owners))];
  const own = fields.some(({ lost }) => !lost);
  const who = own || owners.length > 0 ? owners : writersSince(metadata, entry, manager);
  const name = own ? 'a client that uses the field manager of the stack' : authors(who);
  const shown = fields.slice(0, MAX_FIELDS).flatMap((field) => texts(field, entry.kind === 'Secret'));
  const more = fields.length > MAX_FIELDS ? ` and ${fields.length - MAX_FIELDS} more` : '';
  return {
    reason: 'changed',
    message: `${name} changed ${shown.join(', ')}${more}`,
    ...byWhom(who),
    path: fields[0]?.path ?? '',
  };
}

/** A change in words: from what is wanted to what is there. */
function texts(change: FieldChange, secret: boolean): string[] {
  return changesOf(change, secret)
    .slice(0, MAX_FIELDS)
    .map(({ path, kind, before, after }) => {
      const name = `${change.path}${path}`;
      if (secret) return kind === 'removed' ? `${name} (removed)` : name;
      if (kind === 'removed') return `${name} (removed)`;
      return kind === 'added' ? `${name} (added ${after})` : `${name} (from ${before} to ${after})`;
    });
}

function changesOf({ wanted, live }: FieldChange, secret: boolean): Change[] {
  if (live === undefined) return [{ path: '', kind: 'removed' }];
  return diff({ before: JSON.stringify(wanted), after: JSON.stringify(live), secret });
}

/** Others that wrote the object, but for its status, no earlier than we did. */
function writersSince({ managedFields = [] }: ObjectMeta, { print }: InventoryEntry, manager: string): ManagedFieldsEntry[] {
  return managedFields.filter(
    (each) => each.manager !== manager && each.subresource !== 'status' && (each.time ?? '') >= (print?.time ?? ''),
  );
}

/** `kubectl-edit (Update at 2026-02-03T04:05:06Z)`, for each. */
function authors(entries: readonly ManagedFieldsEntry[]): string {
  if (entries.length === 0) return 'somebody';
  const texts = entries.map(({ manager = '', operation = '', subresource, time = '' }) => {
    return `${manager} (${operation}${subresource ? ` of ${subresource}` : ''}${time ? ` at ${time}` : ''})`;
  });
  return [...new Set(texts)].join(', ');
}

function byWhom(entries: readonly ManagedFieldsEntry[]): Pick<DriftCause, 'managers'> {
  return { managers: [...new Set(entries.map(({ manager = '' }) => manager))] };
}
