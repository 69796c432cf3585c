import { isOpaque, keyString, type ManifestEntry, type ObjectKey, objectLabel } from '#lib/object.ts';
import type { SchemaFile } from '#lib/schema-check.ts';
import type { PreparedObject, PrepareResult, Scope } from '#lib/yaml-prepare.ts';
import type { ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import type { Engine } from '../engine.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { classify, type ErrorClass } from '../kube/errors.ts';
import { apiVersion, type Resource } from '../kube/resource.ts';
import { RulesError } from '../rules.ts';
import type { StackTarget } from '../stack/target.ts';
import { prepareInBatches } from './batches.ts';
import { isApplied, type Plan, type PlannedObject, planOf, resolveNamespace, shortDigest } from './plan.ts';
import { objectStatus, problemStatus, problemText } from './report.ts';

/** A kind the server has to know before a stack can be applied. */
export interface WantedKind {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
}

/**
 * What came of preparing a stack. A refusal concerns the whole generation, nothing of it is applied: `kinds` are not served, which
 * may change; `invalid` content stays so.
 */
export type Prepared =
  | { readonly kind: 'ready'; readonly plan: Plan }
  | {
      readonly kind: 'refused';
      readonly reason: 'kinds' | 'invalid';
      readonly message: string;
      readonly objects: readonly ObjectStatus[];
      readonly missing: readonly WantedKind[];
    };

const DEFINITION = 'CustomResourceDefinition';

/** Kinds of a stack as discovery answers them, by `group/version/kind`. */
interface Kinds {
  readonly found: ReadonlyMap<string, Resource>;
  readonly absent: readonly (WantedKind & { readonly why: string })[];
  /** Why it cannot be told now whether they are served. */
  readonly unknown: ReadonlyMap<string, string>;
}

/**
 * Finds out what is to be done for a target: asks discovery, fetches the documents of what changed (and of `suspects`, keys to be
 * applied again though they did not), verifies, parses, validates (schemas of the server, rules of the environment) and stamps them in the
 * pool. Writes nothing. Rejects with a `ContentUnavailableError`, a `RulesError`, or when the server cannot be asked.
 */
export async function prepareStack(
  engine: Engine,
  target: StackTarget,
  inventory: Inventory,
  suspects: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<Prepared> {
  if (isOpaque(target.manifest))
    return prepareOpaque(engine, target, target.manifest.opaqueSourceDigest, inventory, suspects, signal);
  const { manifest } = target;
  const kinds = await lookUp(engine, manifest, signal);
  const definitions = kinds.absent.length === 0 ? [] : manifest.filter(({ kind }) => kind === DEFINITION);
  const wanted = new Set<string>();
  const needed: ManifestEntry[] = [];
  for (const entry of manifest) {
    const resource = kinds.found.get(kindKey(entry));
    if (!resource && !kinds.unknown.has(kindKey(entry))) continue;
    const key = resource
      ? keyString(resolveNamespace(entry, resource.namespaced, engine.defaultNamespace))
      : heldKey(entry, inventory, engine.defaultNamespace);
    wanted.add(key);
    const held = inventory.entries.get(key);
    if (suspects.has(key) || !isApplied({ version: entry.version, digest: entry.objectDigest }, held)) needed.push(entry);
  }
  if (kinds.absent.length > 0) {
    const unexplained = kinds.absent.filter(({ group }) => !definitions.some(({ name }) => name.endsWith(`.${group}`)));
    if (unexplained.length > 0) return unknownKinds(manifest, unexplained);
    const missing = new Set(kinds.absent.map(kindKey));
    for (const entry of manifest) if (missing.has(kindKey(entry))) needed.push(entry);
    for (const entry of definitions) if (!needed.includes(entry)) needed.push(entry);
  }
  if (needed.length === 0) return { kind: 'ready', plan: planOf(wanted, [], new Map(), inventory.entries, suspects) };
  const result = await prepareEntries(engine, target, needed, kinds, inventory, signal);
  return finish(engine, result, { kinds, wanted, inventory, suspects, positions: false });
}

/** When to try again after `prepareStack` rejected. */
export function failureClass(error: unknown): ErrorClass {
  if (error instanceof RulesError) return 'dependency';
  return classify(error) === 'credential' ? 'credential' : 'transient';
}

async function prepareEntries(
  engine: Engine,
  target: StackTarget,
  entries: readonly ManifestEntry[],
  kinds: Kinds,
  inventory: Inventory,
  signal: AbortSignal,
): Promise<PrepareResult> {
  const digests = [...new Set(entries.map(({ sourceDigest }) => sourceDigest))];
  const [texts, schemas] = await Promise.all([
    engine.content.documents(target.stackId, target.generation, digests, signal),
    loadSchemas(engine, entries, signal),
  ]);
  const input = { ...common(engine, target, inventory), scopes: scopesOf(kinds), schemas };
  return await prepareInBatches(engine.yaml, input, entries, texts, signal);
}

async function prepareOpaque(
  engine: Engine,
  target: StackTarget,
  digest: string,
  inventory: Inventory,
  suspects: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<Prepared> {
  const texts = await engine.content.documents(target.stackId, target.generation, [digest], signal);
  const input = {
    ...common(engine, target, inventory),
    documents: [{ sourceDigest: digest, text: texts.get(digest) ?? '' }],
    entries: undefined,
  };
  // Which kinds and schemas are needed is known once the text is read: parse first, judging nothing, then once more with them.
  const parsed = await engine.yaml.prepare({ ...input, scopes: {}, local: undefined }, signal);
  const keys = parsed.objects.map(({ key }) => key);
  const kinds = await lookUp(engine, keys, signal);
  const schemas = await loadSchemas(engine, keys, signal);
  const result = await engine.yaml.prepare({ ...input, scopes: scopesOf(kinds), schemas }, signal);
  return finish(engine, result, { kinds, wanted: new Set(), inventory, suspects, positions: true });
}

function scopesOf({ found }: Kinds): Record<string, Scope> {
  const scopes: Record<string, Scope> = {};
  for (const { group, kind, namespaced } of found.values()) scopes[`${group}/${kind}`] = namespaced ? 'Namespaced' : 'Cluster';
  return scopes;
}

function common(engine: Engine, target: StackTarget, { identity, head }: Inventory) {
  // What was applied as a whole was judged then; correcting its drift is not new content.
  const rules = head.appliedGeneration === target.generation ? undefined : engine.rules();
  return {
    ...(rules && { local: { rules, stackName: target.stackName } }),
    salt: target.salt,
    defaultNamespace: engine.defaultNamespace,
    stamp: { labels: identity.labels, annotations: identity.annotations },
  };
}

interface FinishInput {
  readonly kinds: Kinds;
  readonly wanted: Set<string>;
  readonly inventory: Inventory;
  readonly suspects: ReadonlySet<string>;
  /** Whether problems count documents of the published text. */
  readonly positions: boolean;
}

function finish({ defaultNamespace }: Engine, { objects, problems }: PrepareResult, input: FinishInput): Prepared {
  const { kinds, wanted, inventory, suspects, positions } = input;
  const errors = problems.filter(({ severity }) => severity === 'error');
  if (errors.length > 0) {
    const more = errors.length > 1 ? ` (and ${errors.length - 1} more)` : '';
    const message = `${errors[0] ? problemText(errors[0], positions) : ''}${more}`;
    return { kind: 'refused', reason: 'invalid', message, objects: errors.map((e) => problemStatus(e, positions)), missing: [] };
  }
  const homeless = new Set(objects.filter(({ scope }) => scope === undefined).map(({ key }) => kindKey(key)));
  const absent = kinds.absent.filter((kind) => homeless.has(kindKey(kind)));
  if (absent.length > 0) {
    return unknownKinds(
      objects.map(({ key }) => key),
      absent,
    );
  }
  const undiscovered = new Map<string, ObjectStatus>();
  const planned: PlannedObject[] = [];
  for (const object of objects) {
    const why = kinds.unknown.get(kindKey(object.key));
    const key = why === undefined ? keyString(object.key) : heldKey(object.key, inventory, defaultNamespace);
    wanted.add(key);
    if (why === undefined) planned.push(toPlanned(object, kinds));
    else undiscovered.set(key, objectStatus(object.key, 'blocked', 'discovery', why));
  }
  return { kind: 'ready', plan: planOf(wanted, planned, undiscovered, inventory.entries, suspects) };
}

/** The key under which the inventory has an object of which it cannot be told whether it is namespaced; its key as written if it has none. */
function heldKey(object: ObjectKey, { entries }: Inventory, defaultNamespace: string): string {
  const namespaces = object.namespace === '' ? ['', defaultNamespace] : [object.namespace, ''];
  const keys = namespaces.map((namespace) => keyString({ ...object, namespace }));
  return keys.find((key) => entries.has(key)) ?? keyString(object);
}

function toPlanned({ key, scope, digest, wave, marks, needs, json }: PreparedObject, kinds: Kinds): PlannedObject {
  const resource = kinds.found.get(kindKey(key));
  return { ...key, resource, namespaced: scope === 'Namespaced', digest: shortDigest(digest), wave, marks, needs, json };
}

function unknownKinds(keys: readonly (WantedKind & { namespace: string; name: string })[], absent: Kinds['absent']): Prepared {
  const why = new Map(absent.map((kind) => [kindKey(kind), kind.why]));
  const objects: ObjectStatus[] = [];
  let first = '';
  for (const key of keys) {
    const reason = why.get(kindKey(key));
    if (reason === undefined) continue;
    if (first === '') first = objectLabel(key);
    objects.push(objectStatus(key, 'rejected', 'unknown_kind', reason));
  }
  const names = absent.map(({ why: reason }) => reason).join('; ');
  const message = `${names} (${first}${objects.length > 1 ? ` and ${objects.length - 1} more` : ''}); nothing was applied`;
  return { kind: 'refused', reason: 'kinds', message, objects, missing: absent };
}

async function lookUp(engine: Engine, keys: Iterable<WantedKind>, signal: AbortSignal): Promise<Kinds> {
  const found = new Map<string, Resource>();
  const absent: (WantedKind & { readonly why: string })[] = [];
  const unknown = new Map<string, string>();
  const seen = new Set<string>();
  for (const { group, version, kind } of keys) {
    const key = kindKey({ group, version, kind });
    if (seen.has(key)) continue;
    seen.add(key);
    const mapping = await engine.kube.resources.resourceFor(group, version, kind, signal);
    if (mapping.kind === 'found') found.set(key, mapping.resource);
    else if (mapping.kind === 'unknown') unknown.set(key, mapping.reason);
    else
      absent.push({ group, version, kind, why: `the cluster does not know the kind ${apiVersion({ group, version })} ${kind}` });
  }
  return { found, absent, unknown };
}

/** The server's schemas of the group-versions in use. What cannot be had is not checked here; the server does it again. */
async function loadSchemas(
  engine: Engine,
  keys: readonly WantedKind[],
  signal: AbortSignal,
): Promise<Record<string, SchemaFile>> {
  const versions = new Map(keys.map(({ group, version }) => [apiVersion({ group, version }), { group, version }]));
  const files: Record<string, SchemaFile> = {};
  await Promise.all(
    [...versions].map(async ([name, { group, version }]) => {
      try {
        const file = await engine.kube.openapi.document(group, version, signal);
        if (file) files[name] = file;
      } catch (error) {
        if (signal.aborted) throw error;
        engine.log.debug({ apiVersion: name, error }, 'no schema to check against');
      }
    }),
  );
  return files;
}

function kindKey({ group, version, kind }: WantedKind): string {
  return `${group}/${version}/${kind}`;
}
