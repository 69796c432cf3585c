import { conflicts, type KubeError } from '../kube/errors.ts';
import type { ManagedFieldsEntry, ObjectMeta } from '../kube/objects.ts';
import { handOver } from '../prune/handover.ts';
import { STACK_LABEL } from '../stack-identity.ts';
import { conflictPolicy, type Decision, decide } from './field-managers.ts';
import { ignoredPointers } from './ignore.ts';
import { type FieldPath, paths, pathText } from './managed-fields.ts';
import { conflict, named } from './outcome.ts';
import { type Outcome, readMetadata, refOf } from './run.ts';
import { note, type Sending } from './sending.ts';
import { fieldsOf, takeOver } from './takeover.ts';

/** A field that we want and somebody else owns. */
interface Claim {
  readonly manager: string;
  /** As the server writes it. */
  readonly field: string;
  /** What the live object says of it; absent when it was given up meanwhile. */
  readonly owned: { readonly entry: ManagedFieldsEntry; readonly path: FieldPath } | undefined;
  readonly decision: Decision;
}

/**
 * Settles what other field managers own of what we want (409): by whose it is, each field by itself. Undefined when the object is to be
 * sent again; nothing is written when one of them must be left alone with the whole object.
 */
export async function settleConflict(sending: Sending, error: KubeError, signal: AbortSignal): Promise<Outcome | undefined> {
  const { run, object, resource } = sending;
  const known = sending.exists;
  sending.exists = true;
  if (!known && ignoredPointers(run.options, object).length > 0) return undefined; // first without what is left to others
  const ref = refOf(object, resource);
  const live = await readMetadata(run, ref, signal);
  if (!live) return undefined;
  const claims = claimsOf(sending, error, live);
  const of = (decision: Decision) => claims.filter((claim) => claim.decision === decision);
  const isLoose = ({ decision, owned }: Claim) => !owned && (decision === 'take' || decision === 'yield');
  if (claims.some(isLoose)) return undefined; // given up meanwhile: the next answer tells who has it now
  const refused = of('refuse');
  if (refused.length > 0) {
    const isMoved = await handOver(sending, ref, live, managersOf(refused), signal);
    return isMoved ? undefined : leaveAlone(sending, 'owner', refused);
  }
  const failing = of('fail');
  if (failing.length > 0) return leaveAlone(sending, 'manager', failing);
  const taken = of('take');
  if (taken.length > 0) {
    const entries = new Set(taken.map(({ owned }) => owned?.entry));
    if (!(await takeOver(run, ref, live, (entry) => entries.has(entry), signal))) return undefined; // nor force with less than that
    note(sending, 'taken_over', managersOf(taken), []);
  }
  const yielded = of('yield');
  for (const { owned } of yielded) if (owned) sending.yielded.push(owned.path);
  if (yielded.length > 0) note(sending, 'yielded', managersOf(yielded), fieldsIn(yielded));
  const forced = of('force');
  if (forced.length > 0) {
    sending.force = true;
    note(sending, 'forced', managersOf(forced), fieldsIn(forced));
  }
  return undefined;
}

function claimsOf({ run, object, uid }: Sending, error: KubeError, live: ObjectMeta): Claim[] {
  const rules = {
    fieldManager: run.identity.fieldManager,
    policy: conflictPolicy(object.marks, run.options.conflicts),
    yieldManagers: run.options.yieldManagers,
    claimed: ![undefined, run.identity.short].includes(live.labels?.[STACK_LABEL]),
    adopting: uid === undefined,
  };
  const owners = (live.managedFields ?? []).map((entry) => {
    const byText = new Map([...paths(fieldsOf(entry))].map((path) => [pathText(path), path]));
    return { entry, byText };
  });
  return conflicts(error).map(({ manager, field }) => {
    const owner = owners.find(({ entry, byText }) => entry.manager === manager && byText.has(field));
    const path = owner?.byText.get(field);
    const owned = owner && path && { entry: owner.entry, path };
    return { manager, field, owned, decision: decide(owned?.entry ?? { manager }, rules) };
  });
}

function leaveAlone({ object }: Sending, reason: 'owner' | 'manager', claims: readonly Claim[]): Outcome {
  const managers = managersOf(claims);
  const fields = fieldsIn(claims);
  const who = reason === 'owner' ? 'another stack' : 'which the policy leaves alone';
  return conflict(object, reason, `field manager ${named(managers)}, ${who}, owns ${named(fields)}`, { managers, fields });
}

function managersOf(claims: readonly Claim[]): string[] {
  return [...new Set(claims.map(({ manager }) => manager))];
}

function fieldsIn(claims: readonly Claim[]): string[] {
  return claims.map(({ field }) => field);
}
