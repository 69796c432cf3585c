import { createHash, hash } from 'node:crypto';

/** A value as YAML or JSON gives it; integers beyond 2^53 are bigints so that none is rounded. */
export type Value = null | boolean | number | bigint | string | Value[] | ValueObject;

/** A mapping; keys are always strings, and never `__proto__`. */
export interface ValueObject {
  [key: string]: Value;
}

/** What names one Kubernetes object. `namespace` is '' when absent or when the kind is cluster-scoped. */
export interface ObjectKey {
  /** API group, '' for the core group. */
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

/** Identity as text, `group/kind/namespace/name`. The version is not part of it: one object is served in several versions. */
export function keyString(key: Omit<ObjectKey, 'version'>): string {
  return `${key.group}/${key.kind}/${key.namespace}/${key.name}`;
}

/** An object for people: `apps/v1 Deployment shop/web`. */
export function objectLabel(key: ObjectKey): string {
  const apiVersion = key.group === '' ? key.version : `${key.group}/${key.version}`;
  return `${apiVersion} ${key.kind} ${key.namespace === '' ? '' : `${key.namespace}/`}${key.name}`;
}

/** One object of a manifest. Digests are lower-case hex SHA-256. */
export interface ManifestEntry extends ObjectKey {
  /** Salted digest of the object, see `objectDigest`. */
  readonly objectDigest: string;
  /** Digest of the YAML document that holds the object, see `sourceDigest`. */
  readonly sourceDigest: string;
  /** Bytes of that document. */
  readonly size: number;
  /** From the annotation `brokkr.io/wave`, 0 when absent. */
  readonly wave: number;
  /** 1-based place in the `items` of a List; 0 when the document is the object itself. */
  readonly item: number;
}

/** The manifest of a text that was stored without being parsed (`validation=none`): one blob, everything left to the agents. */
export interface OpaqueManifest {
  readonly opaqueSourceDigest: string;
  /** Bytes of the text. */
  readonly size: number;
}

/** What a deployment object consists of: sorted entries (`compareEntries`), or one opaque text. */
export type Manifest = readonly ManifestEntry[] | OpaqueManifest;

/** Whether the text of the manifest was stored unparsed. */
export function isOpaque(manifest: Manifest): manifest is OpaqueManifest {
  return 'opaqueSourceDigest' in manifest;
}

/** Order of a manifest: group, kind, namespace, name, version, each compared as UTF-8 bytes. */
export function compareEntries(a: ObjectKey, b: ObjectKey): number {
  return (
    compareUtf8(a.group, b.group) ||
    compareUtf8(a.kind, b.kind) ||
    compareUtf8(a.namespace, b.namespace) ||
    compareUtf8(a.name, b.name) ||
    compareUtf8(a.version, b.version)
  );
}

/** Compares two strings as their UTF-8 bytes (so by code point), which `<` does not do above U+FFFF. */
export function compareUtf8(a: string, b: string): number {
  if (a === b) return 0;
  const length = Math.min(a.length, b.length);
  for (let index = 0; index < length; index++) {
    const left = a.charCodeAt(index);
    const right = b.charCodeAt(index);
    if (left !== right) return byteRank(left) - byteRank(right);
  }
  return a.length - b.length;
}

/** Puts surrogates (code points above U+FFFF) after U+E000..U+FFFF. */
function byteRank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit >= 0xe000 ? unit - 0x800 : unit + 0x2000;
}

/**
 * JSON with keys sorted by UTF-16 code unit, no white space, strings and numbers as `JSON.stringify` writes them, bigints
 * as their digits. Equal values give equal text, in any language that follows RFC 8785 for what fits a double.
 */
export function canonicalJson(value: Value): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (value === null) return 'null';
  if (typeof value !== 'object') return value.toString();
  return Array.isArray(value) ? canonicalArray(value) : canonicalObject(value);
}

function canonicalArray(items: Value[]): string {
  let text = '[';
  for (let index = 0; index < items.length; index++) {
    if (index > 0) text += ',';
    text += canonicalJson(items[index] ?? null);
  }
  return `${text}]`;
}

function canonicalObject(object: ValueObject): string {
  let text = '{';
  for (const key of Object.keys(object).sort()) {
    if (text.length > 1) text += ',';
    text += `${JSON.stringify(key)}:${canonicalJson(object[key] ?? null)}`;
  }
  return `${text}}`;
}

/** Digest of an object: SHA-256 over the stack's 16-byte salt and the object's canonical JSON (UTF-8), hex. */
export function objectDigest(salt: Uint8Array, canonical: string): string {
  return createHash('sha256').update(salt).update(canonical, 'utf8').digest('hex');
}

/** Digest of a text as received: SHA-256 over its UTF-8 bytes, hex. */
export function sourceDigest(text: string): string {
  return hash('sha256', text, 'hex');
}

/** Whether the value is a mapping. */
export function isMapping(value: Value | undefined): value is ValueObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
