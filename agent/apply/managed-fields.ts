import { isMapping, type Value, type ValueObject } from '#lib/object.ts';

/**
 * Fields of an object as `metadata.managedFields` lists them (FieldsV1 of meta/v1): a tree whose elements are `f:<name>` for a field,
 * `k:<keys as JSON>` for an item of a list by its keys, `v:<value as JSON>` for an item of a set, `i:<index>` for an item by its place.
 * A node without children is a member as a whole; one with children is a member itself only when it has the child `.`.
 */
export interface FieldSet {
  readonly [element: string]: FieldSet;
}

/** Elements from the root of an object to one of its fields. */
export type FieldPath = readonly string[];

/** What the node itself is called among its children. */
const SELF = '.';
const NOTHING: FieldSet = {};

/** The members of either set. */
export function union(a: FieldSet, b: FieldSet): FieldSet {
  const all: Record<string, FieldSet> = { ...a };
  for (const [element, node] of Object.entries(b)) {
    const other = all[element];
    all[element] = other ? unionOfNodes(other, node) : node;
  }
  return all;
}

function unionOfNodes(a: FieldSet, b: FieldSet): FieldSet {
  if (isWhole(a)) return isWhole(b) ? a : { [SELF]: NOTHING, ...b };
  return isWhole(b) ? { [SELF]: NOTHING, ...a } : union(a, b);
}

/** The members of `a` that are not members of `b`. */
export function difference(a: FieldSet, b: FieldSet): FieldSet {
  const rest: Record<string, FieldSet> = {};
  for (const [element, node] of Object.entries(a)) {
    const other = b[element];
    const left = other ? differenceOfNodes(node, other) : node;
    if (left) rest[element] = left;
  }
  return rest;
}

/** Undefined when nothing is left. */
function differenceOfNodes(a: FieldSet, b: FieldSet): FieldSet | undefined {
  if (isWhole(a)) return isMember(b) ? undefined : a;
  const { [SELF]: self, ...children } = difference(a, isWhole(b) ? { [SELF]: NOTHING } : b);
  if (Object.keys(children).length === 0) return self;
  return self ? { [SELF]: self, ...children } : children;
}

/** The paths of all members. */
export function* paths(set: FieldSet, above: FieldPath = []): Generator<FieldPath> {
  for (const [element, node] of Object.entries(set)) {
    if (element === SELF) {
      yield above;
      continue;
    }
    const path = [...above, element];
    if (isWhole(node)) yield path;
    else yield* paths(node, path);
  }
}

/** A path as the server writes it in conflicts: `.spec.containers[name="web"].image`. */
export function pathText(path: FieldPath): string {
  return path.map(elementText).join('');
}

function elementText(element: string): string {
  const text = element.slice(2);
  switch (element.slice(0, 2)) {
    case 'f:':
      return `.${text}`;
    case 'k:': {
      const keys = JSON.parse(text) as Record<string, unknown>;
      return `[${Object.entries(keys)
        .map(([name, value]) => `${name}=${JSON.stringify(value)}`)
        .join(',')}]`;
    }
    case 'v:':
      return `[=${text}]`;
    default:
      return `[${text}]`;
  }
}

/** Where an element leads in a value: the name of the field or the index of the item; undefined when there is none. */
export function placeOf(value: Value | undefined, element: string): string | number | undefined {
  const text = element.slice(2);
  if (element.startsWith('f:')) return isMapping(value) && Object.hasOwn(value, text) ? text : undefined;
  if (!Array.isArray(value)) return undefined;
  const index = element.startsWith('i:') ? Number(text) : value.findIndex((item) => isItem(item, element));
  return index >= 0 && index < value.length ? index : undefined;
}

function isItem(item: Value, element: string): boolean {
  const wanted = JSON.parse(element.slice(2)) as Value;
  if (!element.startsWith('k:')) return JSON.stringify(item) === JSON.stringify(wanted);
  return isMapping(item) && isMapping(wanted) && Object.entries(wanted).every(([name, value]) => keyOf(item, name) === value);
}

/** A key of an item; the one key that objects may leave out because the server knows its default is the protocol of a port. */
function keyOf(item: ValueObject, name: string): Value | undefined {
  return item[name] ?? (name === 'protocol' ? 'TCP' : undefined);
}

/** Takes the field at a path out of an object, in place. What is not there is no error. */
export function removeAt(object: ValueObject, path: FieldPath): void {
  let parent: Value | undefined = object;
  for (const element of path.slice(0, -1)) parent = child(parent, element);
  const place = placeOf(parent, path.at(-1) ?? '');
  if (place === undefined) return;
  if (Array.isArray(parent)) parent.splice(Number(place), 1);
  else if (isMapping(parent)) delete parent[place];
}

/** The value at a path; undefined when there is none. */
export function valueAt(object: Value, path: FieldPath): Value | undefined {
  let value: Value | undefined = object;
  for (const element of path) value = child(value, element);
  return value;
}

/** The value an element leads to. */
function child(value: Value | undefined, element: string): Value | undefined {
  const place = placeOf(value, element);
  if (place === undefined) return undefined;
  return Array.isArray(value) ? value[Number(place)] : (value as ValueObject)[place];
}

/** Whether a node (never the root) has no children, so is a member with all that is below it. */
export function isWhole(node: FieldSet): boolean {
  return Object.keys(node).length === 0;
}

function isMember(node: FieldSet): boolean {
  return isWhole(node) || node[SELF] !== undefined;
}
