import {
  type AliasEvent,
  CHOMPING_MODE,
  EVENT_ID,
  type Event,
  getScalarValue,
  type MappingEvent,
  SCALAR_STYLE,
  type ScalarEvent,
  type SequenceEvent,
} from 'js-yaml';
import { isMapping, type Value, type ValueObject } from './object.ts';
import { keyText, lookAlike, resolvePlain } from './yaml-schema.ts';

/** Collections nested deeper than this are rejected. */
export const MAX_DEPTH = 64;

/** Nodes that aliases may add to a document; also at most `MAX_ALIAS_FACTOR` times its own. */
const MAX_ALIAS_NODES = 1000;

/** See `MAX_ALIAS_NODES`. */
const MAX_ALIAS_FACTOR = 10;

/** Takes a problem at an offset (UTF-16 units) of the document's text. */
export type Report = (offset: number, severity: 'error' | 'warning', rule: string, message: string) => void;

interface Anchor {
  value: Value;
  /** Nodes of the value, aliases expanded. */
  nodes: number;
  open: boolean;
}

interface Build {
  readonly source: string;
  readonly events: readonly Event[];
  readonly report: Report;
  readonly anchors: Map<string, Anchor>;
  next: number;
  /** Nodes built so far, aliases expanded. */
  nodes: number;
  aliasNodes: number;
  bomb: boolean;
}

const TAG_PREFIX = 'tag:yaml.org,2002:';

/**
 * Builds the value of one document from the parser's events, by kubectl's rules, and reports everything in it that
 * Brokkr refuses or warns of. Aliases are expanded to copies, so no two places share an object. What was refused is left
 * out of the value; the caller must not use it when an error was reported.
 */
export function buildDocument(source: string, events: readonly Event[], report: Report): Value {
  const build: Build = { source, events, report, anchors: new Map(), next: 0, nodes: 0, aliasNodes: 0, bomb: false };
  if (events.length === 0) return null;
  build.next = 1; // the first event opens the document
  const value = events[1] && events[1].type !== EVENT_ID.POP ? node(build, 0) : null;
  const end = build.next + 1;
  if (end < events.length) {
    report(0, 'error', 'several_documents', 'documents are separated by a line of ---; an end marker (...) may only come last');
  }
  return value;
}

function node(build: Build, depth: number): Value {
  const event = build.events[build.next++];
  if (event === undefined) return null;
  build.nodes++;
  switch (event.type) {
    case EVENT_ID.SCALAR: {
      const value = scalar(build, event);
      anchor(build, event, value, 1);
      return value;
    }
    case EVENT_ID.SEQUENCE:
    case EVENT_ID.MAPPING:
      return collection(build, event, depth + 1);
    case EVENT_ID.ALIAS:
      return alias(build, event);
    case EVENT_ID.DOCUMENT:
    case EVENT_ID.POP:
      throw new Error('unbalanced YAML events');
  }
}

function collection(build: Build, event: SequenceEvent | MappingEvent, depth: number): Value {
  const before = build.nodes;
  const kind = event.type === EVENT_ID.SEQUENCE ? 'seq' : 'map';
  const tag = tagOf(build, event);
  if (tag !== '' && tag !== '!' && tag !== kind) reject(build, event, 'unknown_tag', TAG_MESSAGE);
  if (depth === MAX_DEPTH + 1) reject(build, event, 'too_deep', `nested deeper than ${MAX_DEPTH} levels`);
  const open = anchor(build, event, null, 0);
  if (open) open.open = true;
  const value = event.type === EVENT_ID.SEQUENCE ? sequence(build, depth) : mapping(build, depth);
  if (open) {
    open.value = value;
    open.nodes = build.nodes - before + 1;
    open.open = false;
  }
  return value;
}

function sequence(build: Build, depth: number): Value[] {
  const items: Value[] = [];
  while (!atEnd(build)) items.push(node(build, depth));
  return items;
}

function mapping(build: Build, depth: number): ValueObject {
  const object: ValueObject = {};
  let merged: Set<string> | undefined;
  while (!atEnd(build)) {
    const keyEvent = build.events[build.next] as Event;
    if (isMergeKey(build, keyEvent)) {
      build.next++;
      merged ??= new Set();
      merge(build, object, merged, depth);
      continue;
    }
    const key = mappingKey(build, depth);
    const value = node(build, depth);
    if (key === undefined) continue;
    if (Object.hasOwn(object, key) && !merged?.delete(key)) {
      reject(build, keyEvent, 'duplicate_key', 'the key is already in this mapping');
    } else object[key] = value;
  }
  return object;
}

/** Whether the collection ends here; steps over its end. */
function atEnd(build: Build): boolean {
  if (build.events[build.next]?.type !== EVENT_ID.POP) return false;
  build.next++;
  return true;
}

function mappingKey(build: Build, depth: number): string | undefined {
  const event = build.events[build.next] as Event;
  const value = node(build, depth);
  if (typeof value === 'object' && value !== null) {
    reject(build, event, 'invalid_key', 'a key must be a scalar');
    return undefined;
  }
  const text = event.type === EVENT_ID.SCALAR ? getScalarValue(build.source, event) : String(value);
  const key = keyText(text, value);
  if (key === undefined) reject(build, event, 'invalid_key', 'a key must not be null');
  if (key === '__proto__') {
    reject(build, event, 'reserved_key', 'the key __proto__ is not allowed');
    return undefined;
  }
  if (key !== undefined && key !== text && typeof value !== 'boolean') {
    build.report(
      offsetOf(event),
      'warning',
      'rewritten_key',
      'an unquoted key is read as a number and changes its text; quote it',
    );
  }
  return key;
}

function isMergeKey(build: Build, event: Event): boolean {
  if (event.type !== EVENT_ID.SCALAR || event.valueEnd - event.valueStart !== 2) return false;
  if (!build.source.startsWith('<<', event.valueStart)) return false;
  const tag = tagOf(build, event);
  return tag === 'merge' || (tag === '' && event.style === SCALAR_STYLE.PLAIN);
}

/** Merges in place, as kubectl does: a key written before the `<<` is overridden, one written after it wins. */
function merge(build: Build, object: ValueObject, merged: Set<string>, depth: number): void {
  const event = build.events[build.next] as Event;
  const value = node(build, depth);
  const sources = Array.isArray(value) && event.type === EVENT_ID.SEQUENCE ? value.toReversed() : [value];
  for (const source of sources) {
    if (!isMapping(source)) {
      reject(build, event, 'invalid_merge', 'merge needs a mapping or a sequence of mappings');
      continue;
    }
    for (const [key, item] of Object.entries(source)) {
      const explicit = Object.hasOwn(object, key) && !merged.has(key);
      if (explicit)
        build.report(offsetOf(event), 'warning', 'merge_overrides', 'the merge overrides a key written before it; put << first');
      else merged.add(key);
      object[key] = item;
    }
  }
}

function alias(build: Build, event: AliasEvent): Value {
  const target = build.anchors.get(build.source.slice(event.anchorStart, event.anchorEnd));
  if (target === undefined || target.open) {
    const problem = target ? 'the anchor contains itself' : 'the anchor is not defined before its use';
    reject(build, event, target ? 'recursive_alias' : 'unknown_alias', problem);
    return null;
  }
  const own = build.nodes - build.aliasNodes;
  build.aliasNodes += target.nodes;
  const factor = own * (MAX_ALIAS_FACTOR - 1);
  if (build.aliasNodes > MAX_ALIAS_NODES || build.aliasNodes > Math.max(factor, MAX_ALIAS_FACTOR)) {
    if (!build.bomb)
      reject(
        build,
        event,
        'alias_expansion',
        `aliases add more than ${MAX_ALIAS_NODES} nodes, or make the document more than ${MAX_ALIAS_FACTOR} times larger`,
      );
    build.bomb = true;
    return null;
  }
  build.nodes += target.nodes - 1;
  return copy(target.value);
}

function copy(value: Value): Value {
  if (Array.isArray(value)) return value.map(copy);
  if (!isMapping(value)) return value;
  const result: ValueObject = {};
  for (const key of Object.keys(value)) result[key] = copy(value[key] ?? null);
  return result;
}

const TAG_MESSAGE = 'only the tags !!str, !!int, !!float, !!bool, !!null, !!seq, !!map and !!binary are allowed';

function scalar(build: Build, event: ScalarEvent): Exclude<Value, object> | null {
  const text = getScalarValue(build.source, event);
  const tag = event.tagStart === -1 ? '' : tagOf(build, event);
  if (tag !== '') return tagged(build, event, tag, text);
  if (event.style !== SCALAR_STYLE.PLAIN) return isUnendedBlock(build, event) ? text.slice(0, -1) : text;
  const value = resolvePlain(text);
  if (value === text && !text.includes(':')) return text;
  const look = lookAlike(text, value);
  if (look) build.report(offsetOf(event), 'warning', look.rule, look.message);
  return finite(build, event, value);
}

/** kubectl adds no line break to a block scalar whose last line is the end of the text without one. */
function isUnendedBlock(build: Build, event: ScalarEvent): boolean {
  if (event.style !== SCALAR_STYLE.LITERAL_BLOCK && event.style !== SCALAR_STYLE.FOLDED_BLOCK) return false;
  if (event.valueEnd < build.source.length || event.chomping === CHOMPING_MODE.STRIP) return false;
  return /\S[^\n]*$/.test(build.source.slice(build.source.lastIndexOf('\n') + 1));
}

function tagged(build: Build, event: ScalarEvent, tag: string, text: string): Exclude<Value, object> | null {
  if (tag === '!' || tag === 'str') return text;
  if (tag === 'binary') {
    const compact = text.replace(/\s/g, '');
    if (!/^[A-Za-z0-9+/]*={0,2}$/.test(compact) || compact.length % 4 !== 0) {
      reject(build, event, 'invalid_tag_value', 'not base64');
    }
    return Buffer.from(compact, 'base64').toString('utf8');
  }
  const value = resolvePlain(text);
  const number = typeof value === 'number' || typeof value === 'bigint';
  const integer = typeof value === 'bigint' || (Number.isInteger(value) && !/[.eE]/.test(text.replace(/^[-+]?0[xX].*/, '')));
  const fits = { int: integer, float: number, bool: typeof value === 'boolean', null: value === null }[tag];
  if (fits === undefined) reject(build, event, 'unknown_tag', TAG_MESSAGE);
  else if (!fits) reject(build, event, 'invalid_tag_value', `not a value of type !!${tag}`);
  return finite(build, event, value);
}

function finite(build: Build, event: ScalarEvent, value: Exclude<Value, object> | null): Exclude<Value, object> | null {
  if (typeof value !== 'number' || Number.isFinite(value)) return value;
  reject(build, event, 'non_finite_number', 'infinity and not-a-number cannot be sent as JSON');
  return null;
}

function anchor(
  build: Build,
  event: ScalarEvent | SequenceEvent | MappingEvent,
  value: Value,
  nodes: number,
): Anchor | undefined {
  if (event.anchorStart === -1) return undefined;
  const result: Anchor = { value, nodes, open: false };
  build.anchors.set(build.source.slice(event.anchorStart, event.anchorEnd), result);
  return result;
}

/** '' without a tag, 'str' for `!!str` and its verbatim form, '!' as it is, anything else as written. */
function tagOf(build: Build, event: ScalarEvent | SequenceEvent | MappingEvent): string {
  if (event.tagStart === -1) return '';
  const raw = build.source.slice(event.tagStart, event.tagEnd);
  if (raw.startsWith('!!')) return raw.slice(2);
  if (raw.startsWith(`!<${TAG_PREFIX}`) && raw.endsWith('>')) return raw.slice(2 + TAG_PREFIX.length, -1);
  return raw;
}

function reject(build: Build, event: Event, rule: string, message: string): void {
  build.report(offsetOf(event), 'error', rule, message);
}

/** Where an event starts in the source: its tag or anchor, else its content. */
function offsetOf(event: Event): number {
  const starts = event as Partial<Record<'tagStart' | 'anchorStart' | 'valueStart' | 'start', number>>;
  for (const start of [starts.tagStart, starts.anchorStart, starts.valueStart, starts.start]) {
    if (start !== undefined && start >= 0) return start;
  }
  return 0;
}
