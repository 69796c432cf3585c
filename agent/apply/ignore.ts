import { isMapping, type ObjectKey, type Value, type ValueObject } from '#lib/object.ts';
import type { ApplyOptions } from '#proto/brokkr/v1/content_pb.js';
import type { KubeObject } from '../kube/objects.ts';
import { type FieldSet, isWhole, placeOf } from './managed-fields.ts';
import { fieldsOf, ownEntry } from './takeover.ts';

/** JSON pointers to the fields of an object that are left to others, from the options of its stack. */
export function ignoredPointers(
  { ignore }: Pick<ApplyOptions, 'ignore'>,
  { group, kind, namespace, name }: Omit<ObjectKey, 'version'>,
): string[] {
  return ignore
    .filter(
      (rule) =>
        (rule.kind === '' || (rule.kind === kind && rule.group === group)) &&
        (rule.namespace === '' || rule.namespace === namespace) &&
        (rule.name === '' || rule.name === name),
    )
    .flatMap(({ paths }) => paths);
}

/**
 * Leaves fields of an object that exists to others, in place: what another manager owns is not sent, anything else is sent as it is
 * live; what is not there yet is sent as wanted.
 */
export function leaveIgnored(desired: ValueObject, pointers: readonly string[], live: KubeObject, fieldManager: string): void {
  const { managedFields = [] } = live.metadata;
  const own = ownEntry(live.metadata, fieldManager);
  const sets = (isOwn: boolean) =>
    managedFields
      .filter((entry) => (entry === own) === isOwn)
      .map(fieldsOf)
      .filter((set) => !isWhole(set)); // an entry that owns nothing
  const root: Place = { live: live as unknown as ValueObject, own: sets(true), others: sets(false) };
  for (const pointer of pointers) {
    const segments = pointer.slice(1).split('/');
    leave(desired, segments.map(unescapeSegment), root);
  }
}

/** The same place in the live object and in the sets of fields. */
interface Place {
  readonly live: Value | undefined;
  readonly own: readonly FieldSet[];
  readonly others: readonly FieldSet[];
}

function leave(desired: Value, [segment = '', ...below]: readonly string[], place: Place): void {
  // From the end, because items may be taken out.
  for (const key of keysOf(desired, segment).reverse()) {
    const value = (desired as ValueObject)[key] as Value;
    const { inner, shared } = step(desired, key, value, place);
    if (below.length > 0) leave(value, below, inner);
    else if (inner.live === undefined) continue;
    else if (inner.others.length > 0 && !shared) drop(desired, key);
    else (desired as ValueObject)[key] = inner.live;
  }
}

/** Keys or indexes of a value that a segment stands for. */
function keysOf(value: Value, segment: string): string[] {
  if (!isMapping(value) && !Array.isArray(value)) return [];
  if (segment === '*') return Object.keys(value);
  return Object.hasOwn(value, segment) && segment !== 'length' ? [segment] : [];
}

/** One step down. `shared`: others own the field with all of the value it is part of, so it cannot be left out alone. */
function step(desired: Value, key: string, value: Value, place: Place): { readonly inner: Place; readonly shared: boolean } {
  const element = Array.isArray(desired) ? itemElement(value, place) : `f:${key}`;
  const into = (sets: readonly FieldSet[]) =>
    sets.flatMap((set) => {
      if (isWhole(set)) return [set];
      const node = element === undefined ? undefined : set[element];
      return node ? [node] : [];
    });
  const index = (element === undefined ? undefined : placeOf(place.live, element)) ?? key;
  const live = (place.live as ValueObject | undefined)?.[index];
  return { inner: { live, own: into(place.own), others: into(place.others) }, shared: place.others.some(isWhole) };
}

/** The element that names an item of a list by its keys, as one of the sets has it. */
function itemElement(item: Value, { own, others }: Place): string | undefined {
  for (const set of [...own, ...others]) {
    const found = Object.keys(set).find((element) => element.startsWith('k:') && placeOf([item], element) === 0);
    if (found !== undefined) return found;
  }
  return undefined;
}

function drop(container: Value, key: string): void {
  if (Array.isArray(container)) container.splice(Number(key), 1);
  else if (isMapping(container)) delete container[key];
}

function unescapeSegment(segment: string): string {
  return segment.replaceAll('~1', '/').replaceAll('~0', '~');
}
