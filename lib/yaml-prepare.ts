import {
  isMapping,
  keyString,
  type ManifestEntry,
  type ObjectKey,
  objectDigest,
  objectLabel,
  sourceDigest,
  type ValueObject,
} from './object.ts';
import { objectBody } from './object-body.ts';
import type { Marks } from './object-marks.ts';
import { objectNeeds } from './object-needs.ts';
import type { ReportRule, Rules } from './rules.ts';
import { type SchemaFile, SchemaSet } from './schema-check.ts';
import { withEncodedData } from './secret-data.ts';
import { HARD_LIMITS } from './yaml.ts';
import { type ReadObject, readObjects, refuseDuplicates, type SourceText } from './yaml-content.ts';
import { type Problem, ProblemList } from './yaml-problems.ts';

/** Judges all objects of a stack by the rules of the environment; see `checkRules`. */
export type JudgeObjects = (rules: Rules, stackName: string, objects: readonly Resolved[], report: ReportRule<Resolved>) => void;

/** Whether a kind lives in namespaces. */
export type Scope = 'Namespaced' | 'Cluster';

/** Input of `prepare`. */
export interface PrepareInput {
  readonly documents: readonly SourceText[];
  /** Documents of definitions whose resources are among `documents`, when they are not there themselves: for scopes and schemas alone. */
  readonly definitions?: readonly SourceText[];
  /** What to read from the documents; undefined for an opaque manifest: everything in them. */
  readonly entries: readonly ManifestEntry[] | undefined;
  /** 16 bytes of the stack. */
  readonly salt: Uint8Array;
  /** Scope by `group/kind` (`/ConfigMap` for the core group), from discovery. Kinds of CRDs in the documents need no mention. */
  readonly scopes: Readonly<Record<string, Scope>>;
  /** For objects of namespaced kinds that name none. */
  readonly defaultNamespace: string;
  /** Labels and annotations every object gets; they win over the document's. */
  readonly stamp: { readonly labels: Readonly<Record<string, string>>; readonly annotations: Readonly<Record<string, string>> };
  /** The server's OpenAPI v3 documents by `group/version` (`v1` for the core group); without them no schema is checked. */
  readonly schemas?: Readonly<Record<string, SchemaFile>>;
  /** Rules of the environment, and the name of the stack as they see it; without them nothing is forbidden. */
  readonly local?: { readonly rules: Rules; readonly stackName: string } | undefined;
}

/** An object ready to be sent. */
export interface PreparedObject {
  /** Namespace as it will be sent, defaulted or removed. */
  readonly key: ObjectKey;
  /** Undefined when neither discovery nor a CRD of the same documents knows the kind; the namespace is then as written. */
  readonly scope: Scope | undefined;
  /** Hex object digest of the object as published, so before stamp and namespace. */
  readonly digest: string;
  readonly wave: number;
  readonly marks: Marks;
  /** Keys (`keyString`) of objects that have to be there before this one can work, in the stack or not. */
  readonly needs: readonly string[];
  /** Body of the apply, stamped (`objectBody`). */
  readonly json: string;
}

/** Output of `prepare`. With an error among the problems nothing of it may be applied. */
export interface PrepareResult {
  readonly objects: readonly PreparedObject[];
  readonly problems: readonly Problem[];
}

/** A document and an object of the manifest disagree: content was damaged, or the two parsers differ. */
const MISMATCH = 'digest_mismatch';

/**
 * What the agent does with fetched documents: verify digests, parse, check as at publish, validate against the cluster's
 * schemas and the rules of the environment (`judge`, loaded by the caller only when there are rules), resolve namespaces, stamp. Runs in
 * the pool's worker; reads schema files and nothing else.
 */
export function prepare(input: PrepareInput, judge?: JudgeObjects): PrepareResult {
  const problems = new ProblemList();
  const found = readAll(input, problems);
  const schemas = input.schemas ? new SchemaSet(input.schemas) : undefined;
  const scopes = new Map(Object.entries(input.scopes));
  const definitions = new Map<string, string>();
  const context = (input.definitions ?? []).flatMap(({ text }) => readObjects(text, HARD_LIMITS, new ProblemList(), undefined));
  for (const object of [...context, ...found.map((each) => each.object)]) {
    const kind = learnCustomResource(object.object, scopes, schemas);
    if (kind !== undefined) definitions.set(kind, keyString(object.key));
  }
  const resolved = found.map(({ object, digest }) => ({ ...resolve(object, scopes, input, problems), digest }));
  refuseDuplicates(resolved, problems);
  const objects: PreparedObject[] = [];
  for (const object of resolved) {
    schemas?.check(object.key, object.object, (rule, path, message) => {
      problems.add({ ...place(object), rule, path, message, severity: 'error' });
    });
    const { key, scope, digest, wave, marks } = object;
    const needs = [...objectNeeds(key, object.object, definitions)];
    const sent = stamped(withEncodedData(object.object), input.stamp);
    objects.push({ key, scope, digest, wave, marks, needs, json: objectBody(sent) });
  }
  if (judge && input.local) {
    judge(input.local.rules, input.local.stackName, resolved, (object, rule, path, message) => {
      problems.add({ ...place(object), rule, path, message, severity: 'error' });
    });
  }
  return { objects, problems: problems.toArray() };
}

interface Found {
  readonly object: ReadObject;
  readonly digest: string;
}

function readAll(input: PrepareInput, problems: ProblemList): Found[] {
  const byDigest = new Map<string, ReadObject[]>();
  const all: ReadObject[] = [];
  for (const [index, source] of input.documents.entries()) {
    const number = index + 1;
    if (sourceDigest(source.text) !== source.sourceDigest) {
      const message = 'the text of the document does not have the digest it was fetched by';
      problems.add({ document: number, rule: MISMATCH, message, severity: 'error' });
      continue;
    }
    const objects = readObjects(source.text, HARD_LIMITS, problems, input.entries ? number : undefined);
    byDigest.set(source.sourceDigest, objects);
    for (const object of objects) all.push(object);
  }
  if (!input.entries) return all.map((object) => ({ object, digest: objectDigest(input.salt, object.canonical) }));
  const found: Found[] = [];
  for (const entry of input.entries) {
    const object = verify(entry, byDigest.get(entry.sourceDigest), input.salt, problems);
    if (object) found.push({ object, digest: entry.objectDigest });
  }
  return found;
}

/** The object of an entry, when the document holds it and its digest is the entry's. */
function verify(
  entry: ManifestEntry,
  objects: ReadObject[] | undefined,
  salt: Uint8Array,
  problems: ProblemList,
): ReadObject | undefined {
  const report = (rule: string, message: string, document = 0) => {
    problems.add({ document, object: objectLabel(entry), rule, message, severity: 'error' });
    return undefined;
  };
  if (!objects) return report('missing_document', 'the document of the object is missing');
  const expected = objects[Math.max(0, entry.item - 1)];
  const object = expected?.item === entry.item ? expected : objects.find((candidate) => candidate.item === entry.item);
  if (!object) return report(MISMATCH, 'the document does not hold the object of the manifest');
  const { key } = object;
  const same = key.group === entry.group && key.version === entry.version && key.kind === entry.kind;
  if (!same || key.namespace !== entry.namespace || key.name !== entry.name || object.wave !== entry.wave) {
    return report(MISMATCH, 'the document holds another object than the manifest says', object.document.index);
  }
  if (objectDigest(salt, object.canonical) !== entry.objectDigest) {
    return report(MISMATCH, 'the object does not have the digest of the manifest', object.document.index);
  }
  return object;
}

type Resolved = ReadObject & { readonly scope: Scope | undefined };

function resolve(read: ReadObject, scopes: ReadonlyMap<string, Scope>, input: PrepareInput, problems: ProblemList): Resolved {
  const scope = scopes.get(`${read.key.group}/${read.key.kind}`);
  if (scope === undefined) return { ...read, scope };
  if (scope === 'Namespaced') {
    if (read.key.namespace !== '') return { ...read, scope };
    return { ...withNamespace(read, input.defaultNamespace), scope };
  }
  if (read.key.namespace === '') return { ...read, scope };
  const message = 'the kind is cluster-scoped; the namespace is left out';
  problems.add({ ...place(read), path: '/metadata/namespace', rule: 'cluster_scoped', message, severity: 'warning' });
  return { ...withNamespace(read, ''), scope };
}

function withNamespace(read: ReadObject, namespace: string): ReadObject {
  const { namespace: _, ...metadata } = asMapping(read.object.metadata);
  const object = { ...read.object, metadata: namespace === '' ? metadata : { ...metadata, namespace } };
  return { ...read, object, key: { ...read.key, namespace } };
}

function stamped(object: ValueObject, stamp: PrepareInput['stamp']): ValueObject {
  const metadata = asMapping(object.metadata);
  const labels = { ...asMapping(metadata.labels), ...stamp.labels };
  const annotations = { ...asMapping(metadata.annotations), ...stamp.annotations };
  const result: ValueObject = { ...metadata };
  if (Object.keys(labels).length > 0) result.labels = labels;
  if (Object.keys(annotations).length > 0) result.annotations = annotations;
  return { ...object, metadata: result };
}

/**
 * Scope and schema of the kind a CRD among the objects defines, so that its resources are judged before it exists. Returns the kind as
 * `group/kind`; undefined when the object defines none.
 */
function learnCustomResource(
  object: ValueObject,
  scopes: Map<string, Scope>,
  schemas: SchemaSet | undefined,
): string | undefined {
  if (object.kind !== 'CustomResourceDefinition' || !String(object.apiVersion).startsWith('apiextensions.k8s.io/'))
    return undefined;
  const spec = asMapping(object.spec);
  const kind = asMapping(spec.names).kind;
  const { group, scope, versions } = spec;
  if (typeof kind !== 'string' || typeof group !== 'string') return undefined;
  if (scope === 'Namespaced' || scope === 'Cluster') scopes.set(`${group}/${kind}`, scope);
  for (const version of schemas && Array.isArray(versions) ? versions.map(asMapping) : []) {
    const schema = asMapping(version.schema).openAPIV3Schema;
    if (typeof version.name === 'string' && isMapping(schema)) schemas?.learn({ group, version: version.name, kind }, schema);
  }
  return `${group}/${kind}`;
}

function asMapping(value: ValueObject[string] | undefined): ValueObject {
  return isMapping(value) ? value : {};
}

function place(read: ReadObject): { document: number; line: number; object: string } {
  return { document: read.document.index, line: read.document.line, object: objectLabel(read.key) };
}
