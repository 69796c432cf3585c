import { impersonation } from '../engine.ts';
import { classify, KubeError } from '../kube/errors.ts';
import type { ManagedFieldsEntry, ObjectMeta, ObjectRef } from '../kube/objects.ts';
import { apiVersion, type Resource } from '../kube/resource.ts';
import { difference, type FieldSet, union } from './managed-fields.ts';
import type { ApplyRun } from './run.ts';

/** The fields of an entry of `managedFields`. */
export function fieldsOf(entry: ManagedFieldsEntry | undefined): FieldSet {
  return (entry?.fieldsV1 ?? {}) as FieldSet;
}

/** Our own entry, that of the applies of a stack. */
export function ownEntry({ managedFields }: ObjectMeta, fieldManager: string): ManagedFieldsEntry | undefined {
  return managedFields?.find(
    ({ manager, operation, subresource }) => manager === fieldManager && operation === 'Apply' && !subresource,
  );
}

/**
 * Makes all fields of chosen managers ours, so that the next apply, which needs no force, sets what it wants and removes what only they
 * wanted. Resolves to the metadata after that, or to undefined when the object has changed meanwhile.
 */
export async function takeOver(
  run: ApplyRun,
  ref: ObjectRef,
  live: ObjectMeta,
  isChosen: (entry: ManagedFieldsEntry) => boolean,
  signal: AbortSignal,
): Promise<ObjectMeta | undefined> {
  const { fieldManager } = run.identity;
  const entries = live.managedFields ?? [];
  const ours = ownEntry(live, fieldManager);
  const chosen = entries.filter((entry) => entry !== ours && isChosen(entry));
  const fieldsV1 = chosen.reduce((all, entry) => union(all, fieldsOf(entry)), fieldsOf(ours));
  const taken: ManagedFieldsEntry = {
    apiVersion: apiVersion(ref.resource),
    ...ours,
    manager: fieldManager,
    operation: 'Apply',
    fieldsType: 'FieldsV1',
    fieldsV1,
  };
  const others = entries.filter((entry) => entry !== ours && !chosen.includes(entry));
  return await rewrite(run, ref, live, [...others, taken], signal);
}

/**
 * Takes the fields that we own from an entry that stands for nobody (the server makes it at the first apply of an object without
 * `managedFields`); what else it has stays, because some other controller set it once. Undefined as for `takeOver`.
 */
export async function disown(
  run: ApplyRun,
  ref: ObjectRef,
  live: ObjectMeta,
  isNobody: (entry: ManagedFieldsEntry) => boolean,
  signal: AbortSignal,
): Promise<ObjectMeta | undefined> {
  const ours = fieldsOf(ownEntry(live, run.identity.fieldManager));
  const entries = (live.managedFields ?? []).flatMap((entry) => {
    if (!isNobody(entry)) return [entry];
    const fieldsV1 = difference(fieldsOf(entry), ours);
    return Object.keys(fieldsV1).length === 0 ? [] : [{ ...entry, fieldsV1 }];
  });
  return await rewrite(run, ref, live, entries, signal);
}

/** Whether entries are written in other versions of the API than the one the object is sent in. */
export function hasOtherVersions({ managedFields = [] }: ObjectMeta, resource: Resource): boolean {
  return managedFields.some((entry) => entry.apiVersion !== apiVersion(resource));
}

/**
 * Says of every entry that it is written in this version of the API: the server cannot convert those of a version whose schema lacks
 * fields of the newer one, and then takes no write at all. Undefined as for `takeOver`.
 */
export async function moveVersions(
  run: ApplyRun,
  ref: ObjectRef,
  live: ObjectMeta,
  signal: AbortSignal,
): Promise<ObjectMeta | undefined> {
  const entries = (live.managedFields ?? []).map((entry) => ({ ...entry, apiVersion: apiVersion(ref.resource) }));
  return await rewrite(run, ref, live, entries, signal);
}

async function rewrite(
  { engine, identity, options, priority }: ApplyRun,
  ref: ObjectRef,
  live: ObjectMeta,
  entries: readonly ManagedFieldsEntry[],
  signal: AbortSignal,
): Promise<ObjectMeta | undefined> {
  const operations = [
    { op: 'test', path: '/metadata/resourceVersion', value: live.resourceVersion },
    { op: 'replace', path: '/metadata/managedFields', value: entries },
  ] as const;
  const request = { ...ref, operations, fieldManager: identity.fieldManager, impersonate: impersonation(options) };
  try {
    return await engine.kube.limiter.run(() => engine.kube.patchJson(request, signal), priority, signal);
  } catch (error) {
    // A failed test of a JSON patch is a 422 like any other.
    if (classify(error) === 'race' || (error instanceof KubeError && error.status === 422)) return undefined;
    throw error;
  }
}
