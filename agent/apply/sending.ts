import { keyString } from '#lib/object.ts';
import { objectBody, parseBody, withUid } from '#lib/object-body.ts';
import { fingerprint } from '../drift/drift.ts';
import { impersonation, type StackRef } from '../engine.ts';
import type { Fingerprint, InventoryEntry } from '../inventory/codec.ts';
import type { Applied, ObjectMeta } from '../kube/objects.ts';
import type { Resource } from '../kube/resource.ts';
import { ignoredPointers, leaveIgnored } from './ignore.ts';
import { type FieldPath, removeAt } from './managed-fields.ts';
import type { PlannedObject } from './plan.ts';
import { type ApplyRun, type Note, refOf } from './run.ts';

/** One object on its way to the server, with what was learnt about it in this attempt. */
export interface Sending {
  readonly run: ApplyRun;
  readonly object: PlannedObject;
  readonly resource: Resource;
  readonly held: InventoryEntry | undefined;
  /** The object that is ours; undefined when there is none, or none any more: then what is found is adopted. */
  uid: string | undefined;
  /** How our object was before; undefined when that is not known. */
  readonly print: Fingerprint | undefined;
  /** Another object has the name of ours. */
  replaced: boolean;
  /** Fields of others are taken: those that are not to be taken are not sent. */
  force: boolean;
  /** Fields left to their managers. */
  readonly yielded: FieldPath[];
  /** Something is there, so that fields may be others' to set. */
  exists: boolean;
  /** The object was deleted because of fields that cannot be changed. */
  recreated: boolean;
  /** The stack of this agent that gave the object up. */
  movedFrom: StackRef | undefined;
  readonly notes: Note[];
  /** Ways out of refusals that were tried; bounded. */
  remedies: number;
}

/** An object that is about to be sent for the first time in an attempt. */
export function startSending(run: ApplyRun, object: PlannedObject, resource: Resource): Sending {
  const key = keyString(object);
  const held = run.before.get(key);
  const start = {
    ...{ run, object, resource, held, replaced: false, force: false, recreated: false, remedies: 0 },
    ...{ yielded: [], notes: [], movedFrom: undefined },
  };
  if (!held?.uid) return { ...start, uid: undefined, print: undefined, exists: false };
  if (!run.seen.has(key)) return { ...start, uid: held.uid, print: held.print, exists: true };
  return { ...start, ...judgeSeen(run, held.uid, run.seen.get(key)) };
}

function judgeSeen(
  { identity }: ApplyRun,
  uid: string,
  seen: ObjectMeta | undefined,
): Pick<Sending, 'uid' | 'print' | 'replaced' | 'exists'> {
  if (seen?.uid !== uid) return { uid: undefined, print: undefined, replaced: seen !== undefined, exists: seen !== undefined };
  // Compared with what was seen, so that applying again what nobody changed counts as unchanged.
  return { uid, print: fingerprint(seen, identity.fieldManager), replaced: false, exists: true };
}

/** Adds to what the event will tell. */
export function note({ notes }: Sending, reason: Note['reason'], managers: readonly string[], fields: readonly string[]): void {
  const index = notes.findIndex((known) => known.reason === reason);
  const known = notes[index] ?? { managers: [], fields: [] };
  const merged = {
    reason,
    managers: [...new Set([...known.managers, ...managers])],
    fields: [...new Set([...known.fields, ...fields])],
  };
  if (index >= 0) notes[index] = merged;
  else notes.push(merged);
}

/** One apply. Where nothing is left to others, the text goes out as it came. */
export async function send(sending: Sending, signal: AbortSignal): Promise<Applied> {
  const { uid, force } = sending;
  const body = await bodyOf(sending, signal);
  return await patch(sending, { body: uid === undefined ? body : withUid(body, uid), force, dryRun: false }, signal);
}

/** Asks what the server would say; nothing changes. With `force`, whoever owns what. */
export async function sendDryRun(sending: Sending, force: boolean, signal: AbortSignal): Promise<Applied> {
  return await patch(sending, { body: await bodyOf(sending, signal), force, dryRun: true }, signal);
}

function patch(
  { run: { engine, identity, options, priority }, object, resource }: Sending,
  how: { readonly body: string; readonly force: boolean; readonly dryRun: boolean },
  signal: AbortSignal,
): Promise<Applied> {
  const { fieldManager } = identity;
  const request = { ...refOf(object, resource), ...how, fieldManager, impersonate: impersonation(options) };
  return engine.kube.limiter.run(() => engine.kube.apply(request, signal), priority, signal);
}

async function bodyOf({ run, object, resource, exists, yielded }: Sending, signal: AbortSignal): Promise<string> {
  const pointers = exists ? ignoredPointers(run.options, object) : [];
  if (pointers.length === 0 && yielded.length === 0) return object.json;
  const desired = parseBody(object.json);
  if (pointers.length > 0) {
    const { kube } = run.engine;
    const live = await kube.limiter.run(() => kube.find(refOf(object, resource), signal), run.priority, signal);
    if (live) leaveIgnored(desired, pointers, live, run.identity.fieldManager);
  }
  for (const path of yielded) removeAt(desired, path);
  return objectBody(desired);
}
