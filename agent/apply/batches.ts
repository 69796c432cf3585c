import { keyString, type ManifestEntry, objectLabel } from '#lib/object.ts';
import type { SourceText } from '#lib/yaml-content.ts';
import type { YamlPool } from '#lib/yaml-pool.ts';
import type { PreparedObject, PrepareInput, PrepareResult } from '#lib/yaml-prepare.ts';
import { type Problem, ProblemList } from '#lib/yaml-problems.ts';

/** Bytes of the documents of one task: what a thread holds at once decides how far its memory grows, and it is kept for a while. */
const BATCH_BYTES = 512 * 1024;

/** What is the same for all batches. */
export type BatchInput = Omit<PrepareInput, 'documents' | 'definitions' | 'entries'>;

/**
 * Prepares the objects of a manifest batch by batch, one after the other. Definitions go along with every batch that has resources of
 * theirs. `texts` are the documents by source digest; one that is missing is a problem of its objects. Rejects as `YamlPool.prepare`.
 */
export async function prepareInBatches(
  yaml: YamlPool,
  input: BatchInput,
  entries: readonly ManifestEntry[],
  texts: ReadonlyMap<string, string>,
  signal: AbortSignal,
): Promise<PrepareResult> {
  const results: PrepareResult[] = [];
  const definitions = entries.filter(({ kind }) => kind === 'CustomResourceDefinition');
  for (const batch of batchesOf(entries)) {
    const digests = new Set(batch.map(({ sourceDigest }) => sourceDigest));
    const groups = new Set(batch.map(({ group }) => group));
    const context = definitions.filter(({ name, sourceDigest }) => groups.has(groupOf(name)) && !digests.has(sourceDigest));
    const documents = documentsOf(digests, texts);
    const around = documentsOf(new Set(context.map(({ sourceDigest }) => sourceDigest)), texts);
    const more = around.length === 0 ? {} : { definitions: around };
    results.push(await yaml.prepare({ ...input, ...more, documents, entries: batch }, signal));
  }
  const [only] = results;
  return results.length === 1 && only ? only : joined(results);
}

/** Entries of one document stay together, so that no document is read twice. */
function batchesOf(entries: readonly ManifestEntry[]): ManifestEntry[][] {
  const batches: ManifestEntry[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const group of Map.groupBy(entries, ({ sourceDigest }) => sourceDigest).values()) {
    const size = group[0]?.size ?? 0;
    if (bytes + size > BATCH_BYTES) {
      batches.push([]);
      bytes = 0;
    }
    bytes += size;
    batches.at(-1)?.push(...group);
  }
  return batches;
}

function documentsOf(digests: ReadonlySet<string>, texts: ReadonlyMap<string, string>): SourceText[] {
  return [...digests].flatMap((sourceDigest) => {
    const text = texts.get(sourceDigest);
    return text === undefined ? [] : [{ sourceDigest, text }];
  });
}

/** Within a batch the thread finds objects that are there twice; between batches nobody else does. */
function joined(results: readonly PrepareResult[]): PrepareResult {
  const problems = new ProblemList();
  const objects = new Map<string, PreparedObject>();
  for (const result of results) {
    for (const problem of result.problems) problems.add(problem);
    for (const object of result.objects) {
      const key = keyString(object.key);
      if (objects.has(key)) problems.add(twice(object));
      objects.set(key, object);
    }
  }
  return { objects: [...objects.values()], problems: problems.toArray() };
}

function twice({ key }: PreparedObject): Problem {
  const message = 'the object is in two documents, once with and once without its namespace or in another version';
  return { document: 0, object: objectLabel(key), rule: 'duplicate_object', message, severity: 'error' };
}

/** A definition is named `<plural>.<group>`. */
function groupOf(name: string): string {
  return name.slice(name.indexOf('.') + 1);
}
