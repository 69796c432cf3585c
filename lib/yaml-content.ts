import {
  compareEntries,
  isMapping,
  keyString,
  type Manifest,
  type ManifestEntry,
  objectDigest,
  objectLabel,
  sourceDigest,
  type Value,
} from './object.ts';
import { DEFAULT_LIMITS, HARD_LIMITS, parseDocuments, type YamlDocument, type YamlLimits } from './yaml.ts';
import { type CheckedObject, checkObject, listItems } from './yaml-checks.ts';
import { hasErrors, type Problem, ProblemList } from './yaml-problems.ts';

/** A document as received, named by its digest: what a blob holds. */
export interface SourceText {
  /** Hex SHA-256 of the text. */
  readonly sourceDigest: string;
  readonly text: string;
}

/** Input of `publish`. */
export interface PublishInput {
  readonly text: string;
  /** 16 bytes of the stack, for the object digests. */
  readonly salt: Uint8Array;
  readonly limits?: YamlLimits;
  /** `none` stores the text as one opaque blob and leaves every check to the agents. */
  readonly validation: 'full' | 'none';
}

/** Output of `publish`. With an error among the problems there is no manifest and there are no documents. */
export interface PublishResult {
  /** Hex SHA-256 of the whole text as received. */
  readonly checksum: string;
  readonly manifest: Manifest;
  /** The distinct documents of the manifest, in the order of the text. */
  readonly documents: readonly SourceText[];
  readonly problems: readonly Problem[];
}

/** An object read from a text. */
export interface ReadObject extends CheckedObject {
  readonly document: YamlDocument;
  /** 1-based item of a List, 0 for the document itself. */
  readonly item: number;
}

/** What the broker does with a text at publish: parse, check, digest. Pure; runs in the pool's worker. */
export function publish(input: PublishInput): PublishResult {
  const problems = new ProblemList();
  const checksum = sourceDigest(input.text);
  const limits = input.limits ?? DEFAULT_LIMITS;
  if (input.validation === 'none') return publishOpaque(input.text, checksum, limits);
  const objects = readObjects(input.text, limits, problems);
  refuseDuplicates(objects, problems);
  const found = problems.toArray();
  if (hasErrors(found)) return { checksum, manifest: [], documents: [], problems: found };
  const sources = new Map<YamlDocument, { digest: string; size: number }>();
  const texts = new Map<string, SourceText>();
  const entries: ManifestEntry[] = [];
  for (const object of objects) {
    const text = object.document.text;
    let source = sources.get(object.document);
    if (!source) {
      source = { digest: sourceDigest(text), size: Buffer.byteLength(text, 'utf8') };
      sources.set(object.document, source);
      texts.set(source.digest, { sourceDigest: source.digest, text });
    }
    entries.push(toEntry(object, objectDigest(input.salt, object.canonical), source.digest, source.size));
  }
  return { checksum, manifest: entries.sort(compareEntries), documents: [...texts.values()], problems: found };
}

function publishOpaque(text: string, checksum: string, limits: YamlLimits): PublishResult {
  const size = Buffer.byteLength(text, 'utf8');
  const most = Math.min(limits.textBytes, HARD_LIMITS.textBytes);
  const refuse = (rule: string, message: string): PublishResult => {
    const problems: Problem[] = [{ document: 0, rule, message, severity: 'error' }];
    return { checksum, manifest: [], documents: [], problems };
  };
  if (size > most) return refuse('text_too_large', `the text has ${size} bytes, the limit is ${most}`);
  if (!text.isWellFormed())
    return refuse('invalid_unicode', 'the text has half of a surrogate pair, so it cannot be written as UTF-8');
  const manifest = { opaqueSourceDigest: checksum, size };
  return { checksum, manifest, documents: [{ sourceDigest: checksum, text }], problems: [] };
}

function toEntry(object: ReadObject, digest: string, source: string, size: number): ManifestEntry {
  return { ...object.key, objectDigest: digest, sourceDigest: source, size, wave: object.wave, item: object.item };
}

/** Parses and checks every object of a text, Lists flattened. `number` replaces the number of the document in problems. */
export function readObjects(text: string, limits: YamlLimits, problems: ProblemList, number?: number): ReadObject[] {
  const objects: ReadObject[] = [];
  const most = Math.min(limits.documents, HARD_LIMITS.documents);
  const documents = parseDocuments(text, limits, problems, number).filter(({ ok }) => ok);
  const count = documents.reduce((sum, { value }) => sum + (listItems(value)?.length ?? 1), 0);
  if (count > most) {
    const message = `the text has ${count} objects, those of lists included, the limit is ${most}`;
    problems.add({ document: number ?? 0, rule: 'too_many_documents', message, severity: 'error' });
    return [];
  }
  for (const document of documents) {
    const items = listItems(document.value);
    if (items) readList(document, items, objects, problems);
    else readObject(document, document.value, 0, objects, problems);
  }
  return objects;
}

function readList(document: YamlDocument, items: Value[], objects: ReadObject[], problems: ProblemList): void {
  for (const [index, item] of items.entries()) {
    if (listItems(item)) {
      const message = 'a list must not contain a list';
      const place = { document: document.index, line: document.line, path: `/items/${index}` };
      problems.add({ ...place, rule: 'nested_list', message, severity: 'error' });
    } else readObject(document, item, index + 1, objects, problems);
  }
}

function readObject(document: YamlDocument, value: Value, item: number, objects: ReadObject[], problems: ProblemList): void {
  const prefix = item === 0 ? '' : `/items/${item - 1}`;
  const checked = checkObject(value, (severity, rule, path, message) => {
    const object = describe(value);
    const place = { document: document.index, line: document.line, path: `${prefix}${path}` };
    problems.add({ ...place, ...(object === undefined ? {} : { object }), rule, message, severity });
  });
  if (checked) objects.push({ ...checked, document, item });
}

/** The object for a problem, as far as it can be named. */
function describe(value: Value): string | undefined {
  if (!isMapping(value) || typeof value.kind !== 'string') return undefined;
  const metadata = isMapping(value.metadata) ? value.metadata : {};
  const part = (text: Value | undefined) => (typeof text === 'string' ? text : '');
  const namespace = part(metadata.namespace);
  const name = `${namespace === '' ? '' : `${namespace}/`}${part(metadata.name)}`;
  return `${part(value.apiVersion)} ${value.kind} ${name}`.trim().slice(0, 400);
}

/** Reports objects that appear twice; the version of the API does not make them different. */
export function refuseDuplicates(objects: readonly ReadObject[], problems: ProblemList): void {
  const seen = new Map<string, ReadObject>();
  for (const object of objects) {
    const key = keyString(object.key);
    const first = seen.get(key);
    if (!first) {
      seen.set(key, object);
      continue;
    }
    const { index, line } = object.document;
    const message = `the object is both in document ${where(first)} and in document ${where(object)}`;
    problems.add({
      document: index,
      line,
      object: objectLabel(object.key),
      rule: 'duplicate_object',
      message,
      severity: 'error',
    });
  }
}

function where(object: ReadObject): string {
  const item = object.item === 0 ? '' : `, item ${object.item}`;
  return `${object.document.index} (line ${object.document.line}${item})`;
}
