import type { ObjectKey } from './object.ts';

/** Which objects are meant; an empty field fits all, the group `.` is the core group. */
export interface ObjectFilter {
  readonly group: string;
  /** Kind or its plural, in upper or lower case. */
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

/** Whether an object is meant. */
export function fitsFilter(object: Omit<ObjectKey, 'version'> & { readonly plural?: string }, filter: ObjectFilter): boolean {
  const { group, namespace, name } = filter;
  const kind = filter.kind.toLowerCase();
  return (
    (group === '' || object.group === (group === '.' ? '' : group)) &&
    (kind === '' || object.kind.toLowerCase() === kind || object.plural === kind) &&
    (namespace === '' || object.namespace === namespace) &&
    (name === '' || object.name === name)
  );
}
