import { hash } from 'node:crypto';
import { mkdir, open, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';

/** Documents on disk (the design's table of limits). */
const MAX_BYTES = 256 * 1024 * 1024;
/** Files at most, so that opening stays quick however small the batches were. */
const MAX_SEGMENTS = 1024;
/** Longest first line of a segment: 64 MiB of the smallest documents that make sense. */
const MAX_HEADER_BYTES = 4 * 1024 * 1024;
const HEADER_CHUNK_BYTES = 64 * 1024;

/** Documents by digest in a directory, the least recently used batch dropped first. May be lost; a failing disk only makes it useless. */
export interface ContentCache {
  /** Whether the document is there. */
  has(digest: string): boolean;
  /** Those of the documents that are there and whole. */
  read(digests: readonly string[]): Promise<ReadonlyMap<string, string>>;
  /** Keeps documents, in one file. Never call it with a Secret. One call at a time. */
  write(documents: ReadonlyMap<string, string>): Promise<void>;
}

/** What the first line of a segment says of each document that follows it: digest and bytes. */
type Header = readonly (readonly [digest: string, size: number])[];

/** A file with the documents of one batch: a line with their digests and sizes, then their bytes. Written once, never changed. */
interface Segment {
  readonly path: string;
  readonly size: number;
  readonly digests: readonly string[];
}

interface Place {
  readonly segment: Segment;
  readonly offset: number;
  readonly size: number;
}

/** Opens the cache; of an earlier process's files only the first lines are read, the oldest count as least recently used. */
export async function openContentCache(
  dir: string,
  { log }: { readonly log: Logger },
  { maxBytes = MAX_BYTES }: { readonly maxBytes?: number } = {},
): Promise<ContentCache> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const index = new SegmentIndex();
  for (const number of await segmentsIn(dir)) {
    const path = join(dir, `${number}.seg`);
    const header = await readHeader(path);
    if (header) index.add(path, header.documents, header.bytes);
    else await rm(path, { force: true });
  }
  let next = Math.max(0, ...[...index.segments].map(({ path }) => numberOf(path))) + 1;
  const drop = async (segment: Segment) => {
    index.remove(segment);
    await rm(segment.path, { force: true });
  };
  return {
    has: (digest) => index.find(digest) !== undefined,
    async read(digests) {
      const found = new Map<string, string>();
      for (const [segment, places] of index.group(digests)) {
        index.touch(segment);
        if (!(await readPlaces(segment, places, found))) await drop(segment);
      }
      return found;
    },
    async write(documents) {
      const fresh = [...documents].filter(([digest]) => !index.find(digest));
      const header: Header = fresh.map(([digest, text]) => [digest, Buffer.byteLength(text)]);
      const line = `${JSON.stringify(header)}\n`;
      const size = header.reduce((sum, [, bytes]) => sum + bytes, line.length);
      if (fresh.length === 0 || size > maxBytes || line.length > MAX_HEADER_BYTES) return;
      const path = join(dir, `${next++}.seg`);
      try {
        await writeFile(path, [line, ...fresh.map(([, text]) => text)].join(''), { mode: 0o600 }); // a torn file is shorter than its first line says
        index.add(path, header, line.length);
        for (const oldest of index.segments) {
          if (index.bytes <= maxBytes && index.segments.size <= MAX_SEGMENTS) break;
          await drop(oldest);
        }
      } catch (error) {
        log.warn({ error: errorText(error) }, 'content cache cannot be written');
        await rm(path, { force: true }).catch(() => undefined);
      }
    },
  };
}

/** What is where; segments in the order of their last use. */
class SegmentIndex {
  readonly segments = new Set<Segment>();
  readonly #places = new Map<string, Place>();
  bytes = 0;

  find(digest: string): Place | undefined {
    return this.#places.get(digest);
  }

  add(path: string, documents: Header, headerBytes: number): void {
    const size = documents.reduce((sum, [, bytes]) => sum + bytes, headerBytes);
    const segment: Segment = { path, size, digests: documents.map(([digest]) => digest) };
    let offset = headerBytes;
    for (const [digest, bytes] of documents) {
      this.#places.set(digest, { segment, offset, size: bytes });
      offset += bytes;
    }
    this.segments.add(segment);
    this.bytes += size;
  }

  remove(segment: Segment): void {
    if (!this.segments.delete(segment)) return;
    this.bytes -= segment.size;
    for (const digest of segment.digests) if (this.#places.get(digest)?.segment === segment) this.#places.delete(digest);
  }

  touch(segment: Segment): void {
    if (this.segments.delete(segment)) this.segments.add(segment);
  }

  /** The places of these documents by segment, each opened once. */
  group(digests: readonly string[]): Map<Segment, [digest: string, place: Place][]> {
    const groups = new Map<Segment, [string, Place][]>();
    for (const digest of digests) {
      const place = this.#places.get(digest);
      if (!place) continue;
      const group = groups.get(place.segment);
      if (group) group.push([digest, place]);
      else groups.set(place.segment, [[digest, place]]);
    }
    return groups;
  }
}

/** Reads documents into `found`; false when the segment is gone or one of them is damaged. */
async function readPlaces(
  { path }: Segment,
  places: readonly (readonly [digest: string, place: Place])[],
  found: Map<string, string>,
): Promise<boolean> {
  try {
    await using file = await open(path);
    for (const [digest, { offset, size }] of places) {
      const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(size), 0, size, offset);
      if (bytesRead !== size || hash('sha256', buffer, 'hex') !== digest) return false;
      found.set(digest, buffer.toString('utf8'));
    }
    return true;
  } catch {
    return false;
  }
}

/** The numbers of the segments, in the order they were written. Whatever else lies there is removed. */
async function segmentsIn(dir: string): Promise<number[]> {
  const numbers: number[] = [];
  for (const name of await readdir(dir)) {
    if (/^[1-9]\d{0,14}\.seg$/.test(name)) numbers.push(numberOf(name));
    else await rm(join(dir, name), { force: true, recursive: true });
  }
  return numbers.sort((a, b) => a - b);
}

function numberOf(path: string): number {
  return Number(/(\d+)\.seg$/.exec(path)?.[1]);
}

/** The first line and its length; undefined when the file is not as we write it, or torn. */
async function readHeader(path: string): Promise<{ readonly documents: Header; readonly bytes: number } | undefined> {
  try {
    await using file = await open(path);
    const { size } = await file.stat();
    const chunks: Buffer[] = [];
    for (let read = 0; read < Math.min(size, MAX_HEADER_BYTES); ) {
      const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(HEADER_CHUNK_BYTES), 0, HEADER_CHUNK_BYTES, read);
      if (bytesRead === 0) return undefined;
      const chunk = buffer.subarray(0, bytesRead);
      const end = chunk.indexOf(0x0a);
      chunks.push(end === -1 ? chunk : chunk.subarray(0, end));
      read += bytesRead;
      if (end === -1) continue;
      const line = Buffer.concat(chunks);
      const documents: unknown = JSON.parse(line.toString('utf8'));
      if (!isHeader(documents)) return undefined;
      const expected = documents.reduce((sum, [, bytes]) => sum + bytes, line.length + 1);
      return expected === size ? { documents, bytes: line.length + 1 } : undefined;
    }
  } catch {
    // not readable: as if it were not there
  }
  return undefined;
}

function isHeader(value: unknown): value is Header {
  return (
    Array.isArray(value) &&
    value.every(
      (entry) =>
        Array.isArray(entry) &&
        entry.length === 2 &&
        /^[0-9a-f]{64}$/.test(String(entry[0])) &&
        Number.isSafeInteger(entry[1]) &&
        entry[1] >= 0,
    )
  );
}
