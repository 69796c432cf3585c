import { parseEvents, YAMLException } from 'js-yaml';
import type { Value } from './object.ts';
import { buildDocument, MAX_DEPTH } from './yaml-build.ts';
import { LineIndex, type Problem, ProblemList } from './yaml-problems.ts';

/** Limits of one text that a caller may lower or raise up to `HARD_LIMITS`. */
export interface YamlLimits {
  /** Bytes of the text in UTF-8. */
  readonly textBytes: number;
  /** Documents that are not empty; objects of Lists count as documents. */
  readonly documents: number;
}

/** What applies when a caller says nothing (DESIGN: 16 MiB, 5,000 documents). */
export const DEFAULT_LIMITS: YamlLimits = { textBytes: 16 * 1024 * 1024, documents: 5_000 };

/** What no caller can exceed. */
export const HARD_LIMITS: YamlLimits = { textBytes: 64 * 1024 * 1024, documents: 10_000 };

/** One document that holds something. */
export interface YamlDocument {
  /** 1-based, empty documents not counted. */
  readonly index: number;
  /** The text between the separator lines, as received. */
  readonly text: string;
  /** Where that text starts in the whole text, in UTF-16 units. */
  readonly offset: number;
  /** 1-based line of its first content. */
  readonly line: number;
  /** What it says; unusable when an error was reported for the document. */
  readonly value: Value;
  /** Whether no error was reported for the document. */
  readonly ok: boolean;
}

/** Result of `parseStream`. */
export interface ParsedStream {
  readonly documents: YamlDocument[];
  readonly problems: Problem[];
}

/**
 * Parses a text of several documents as kubectl reads it, and refuses what hides mistakes or attacks (duplicate keys,
 * alias bombs, unknown tags, non-finite numbers, deep nesting). Pure and synchronous: inside a server use the pool.
 */
export function parseStream(text: string, options: { readonly limits?: YamlLimits } = {}): ParsedStream {
  const problems = new ProblemList();
  const documents = parseDocuments(text, options.limits ?? DEFAULT_LIMITS, problems);
  return { documents, problems: problems.toArray() };
}

/** `parseStream` for callers that go on collecting problems. `number` replaces the document's number in problems. */
export function parseDocuments(text: string, limits: YamlLimits, problems: ProblemList, number?: number): YamlDocument[] {
  if (!checkText(text, limits, problems, number)) return [];
  const lines = new LineIndex(text);
  const chunks = splitDocuments(text);
  const most = Math.min(limits.documents, HARD_LIMITS.documents);
  if (chunks.length > most) {
    const message = `the text has ${chunks.length} documents, the limit is ${most}`;
    problems.add({ document: number ?? 0, rule: 'too_many_documents', message, severity: 'error' });
    return [];
  }
  const documents: YamlDocument[] = [];
  for (const [position, chunk] of chunks.entries()) {
    const document = parseDocument(chunk, number ?? position + 1, lines, problems);
    if (document) documents.push(document);
  }
  return documents;
}

function checkText(text: string, limits: YamlLimits, problems: ProblemList, number = 0): boolean {
  const bytes = Buffer.byteLength(text, 'utf8');
  const most = Math.min(limits.textBytes, HARD_LIMITS.textBytes);
  if (bytes > most) {
    const message = `the text has ${bytes} bytes, the limit is ${most}`;
    problems.add({ document: number, rule: 'text_too_large', message, severity: 'error' });
    return false;
  }
  if (text.isWellFormed()) return true;
  const message = 'the text has half of a surrogate pair, so it cannot be written as UTF-8';
  problems.add({ document: number, rule: 'invalid_unicode', message, severity: 'error' });
  return false;
}

function parseDocument(chunk: Chunk, index: number, lines: LineIndex, problems: ProblemList): YamlDocument | undefined {
  const before = problems.errorCount;
  const add = (offset: number, severity: Problem['severity'], rule: string, message: string) =>
    problems.add({ document: index, ...lines.at(chunk.offset + offset), rule, message, severity });
  if (chunk.trailing !== undefined) {
    add(chunk.trailing - chunk.offset, 'error', 'document_separator', 'only a comment may follow --- on its line');
  }
  const value = build(chunk.text, add);
  if (value === null && problems.errorCount === before) return undefined;
  const line = lines.at(chunk.offset + Math.max(0, chunk.text.search(CONTENT))).line;
  return { index, text: chunk.text, offset: chunk.offset, line, value, ok: problems.errorCount === before };
}

function build(text: string, add: Parameters<typeof buildDocument>[2]): Value {
  try {
    return buildDocument(text, parseEvents(text, { maxDepth: MAX_DEPTH + 2 }), add);
  } catch (error) {
    if (!(error instanceof YAMLException)) throw error;
    // The parser has no codes; a depth beyond ours is told by its words. The version is pinned and a test holds this.
    const deep = error.reason.startsWith('nesting exceeded');
    const rule = deep ? 'too_deep' : 'yaml_syntax';
    const message = deep ? `nested deeper than ${MAX_DEPTH} levels` : withoutValues(error.reason);
    add(error.mark?.position ?? 0, 'error', rule, message);
    return null;
  }
}

/** The parser's words without the pieces of the text that some of them quote. */
function withoutValues(reason: string): string {
  return reason.split(/ ?"|: /, 1)[0] ?? reason;
}

interface Chunk {
  readonly text: string;
  readonly offset: number;
  /** Offset of text that follows `---` on the separator line. */
  readonly trailing: number | undefined;
}

/** A line with something other than white space and comments. */
const CONTENT = /^[ \t]*[^ \t\r\n#\ufeff]/m;
const SEPARATOR = '---';
const BYTE_ORDER_MARK = 0xfeff;

/** The documents of a text that are not empty: what stands between lines of `---`, without the byte order mark. */
function splitDocuments(text: string): Chunk[] {
  const chunks: Chunk[] = [];
  let start = text.charCodeAt(0) === BYTE_ORDER_MARK ? 1 : 0;
  let trailing: number | undefined;
  let at = isSeparator(text, start) ? start : nextSeparator(text, start);
  while (start <= text.length) {
    const end = at === -1 ? text.length : at;
    const piece = text.slice(start, end);
    if (trailing !== undefined || CONTENT.test(piece)) chunks.push({ text: piece, offset: start, trailing });
    if (at === -1) break;
    const lineEnd = text.indexOf('\n', at);
    const separator = text.slice(at + SEPARATOR.length, lineEnd === -1 ? text.length : lineEnd);
    trailing = /^\s*(?:#|$)/.test(separator) ? undefined : at + SEPARATOR.length + separator.search(/\S/);
    start = lineEnd === -1 ? text.length : lineEnd + 1;
    at = isSeparator(text, start) ? start : nextSeparator(text, start);
  }
  return chunks;
}

/** Offset of the next line that is a separator, after a line break at or behind `from`; -1 without one. */
function nextSeparator(text: string, from: number): number {
  for (let at = text.indexOf(`\n${SEPARATOR}`, from); at !== -1; at = text.indexOf(`\n${SEPARATOR}`, at + 1)) {
    if (isSeparator(text, at + 1)) return at + 1;
  }
  return -1;
}

function isSeparator(text: string, at: number): boolean {
  if (!text.startsWith(SEPARATOR, at)) return false;
  const next = text.charCodeAt(at + SEPARATOR.length);
  return Number.isNaN(next) || next === 0x20 || next === 0x09 || next === 0x0a || next === 0x0d;
}
