import { errorText } from '#lib/errors.ts';
import { keyString } from '#lib/object.ts';
import { markAnnotation } from '#lib/object-marks.ts';
import type { ApplyOptions, ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { type Engine, forEachLimited, impersonation } from './apply-engine.ts';
import { APPLYSET_LABEL, OWNER_ANNOTATION, STACK_LABEL, type StackIdentity } from './apply-identity.ts';
import { failureText, objectStatus } from './apply-report.ts';
import type { InventoryEntry } from './inventory-codec.ts';
import { classify } from './kube/errors.ts';
import type { ObjectMeta, ObjectRef } from './kube/objects.ts';
import type { Resource } from './kube/resource.ts';
import { inReverse } from './order.ts';
import { type GuardInput, guardRemovals, keptStatus, livesOn } from './prune.ts';

/** Deletions in flight at most (APPLY §5.3). */
const PARALLEL = 8;
const GONE_TIMEOUT_MS = 60_000;
const GONE_POLL_MS = 200;

/**
 * What became of an object that should go. `released`: it is not ours (any more) or was meant to stay, and is forgotten; `kept`: a guard
 * or a failure holds it, it stays in the inventory.
 */
export type Removal =
  | { readonly kind: 'deleted' | 'gone' | 'orphaned' }
  | { readonly kind: 'released'; readonly status: ObjectStatus }
  | { readonly kind: 'kept'; readonly status: ObjectStatus; readonly retry: boolean };

/** Circumstances of a prune. */
export interface PruneRun {
  readonly engine: Engine;
  readonly identity: StackIdentity;
  readonly options: ApplyOptions;
  readonly guards: GuardInput;
  /** `orphan` takes our marks off and leaves the objects; `wait` waits for the end of each deletion. */
  readonly mode: 'delete' | 'orphan' | 'wait';
  /** Called as soon as it is known what became of an object. */
  readonly onRemoval: (entry: InventoryEntry, removal: Removal) => void;
  readonly stop: AbortSignal;
}

/** Removes objects in reverse order, each only when all guards agree. Entries not reported when it resolves were not looked at. */
export async function pruneAll(run: PruneRun, signal: AbortSignal): Promise<void> {
  const { removals } = run.guards;
  const kept = run.mode === 'orphan' ? new Map<string, never>() : guardRemovals(run.guards);
  const open: InventoryEntry[] = [];
  for (const entry of removals) {
    const guard = kept.get(keyString(entry));
    if (guard) run.onRemoval(entry, { kind: 'kept', status: keptStatus(entry, guard), retry: false });
    else if (livesOn(entry, run.guards.appliedUids)) run.onRemoval(entry, { kind: 'gone' });
    else open.push(entry);
  }
  for (const { items } of inReverse(open)) {
    await forEachLimited(
      items,
      () => Math.min(PARALLEL, run.engine.share()),
      async (entry) => {
        if (run.stop.aborted || run.engine.deletionsHeld()) return;
        run.onRemoval(entry, await removeOne(run, entry, signal));
      },
    );
  }
}

async function removeOne(run: PruneRun, entry: InventoryEntry, signal: AbortSignal): Promise<Removal> {
  try {
    return await tryRemove(run, entry, signal);
  } catch (error) {
    signal.throwIfAborted();
    const reason = classify(error) === 'permission' ? 'forbidden' : 'delete_failed';
    return { kind: 'kept', status: objectStatus(entry, 'kept', reason, failureText(entry.kind, error)), retry: true };
  }
}

async function tryRemove(run: PruneRun, entry: InventoryEntry, signal: AbortSignal): Promise<Removal> {
  const { engine } = run;
  const resource = await resourceOf(engine, entry, signal);
  if (resource === 'gone') return { kind: 'gone' };
  if (typeof resource === 'string') {
    return { kind: 'kept', status: objectStatus(entry, 'kept', 'discovery', resource), retry: true };
  }
  const ref = { resource, namespace: entry.namespaced ? entry.namespace : undefined, name: entry.name };
  for (let attempt = 0; ; attempt++) {
    const live = await engine.kube.limiter.run(() => engine.kube.findMetadata(ref, signal), 'normal', signal);
    if (!live) return { kind: 'gone' };
    const stranger = notOurs(run.identity, entry, live);
    if (stranger !== undefined) return { kind: 'released', status: objectStatus(entry, 'kept', 'not_ours', stranger) };
    const wishes = [live.annotations?.[markAnnotation('prune')], entry.marks.prune]; // on the live object or in our last copy: either protects
    if (wishes.includes('never')) {
      return {
        kind: 'released',
        status: objectStatus(entry, 'kept', 'prune_never', 'the object is marked as never to be pruned'),
      };
    }
    try {
      if (run.mode === 'orphan' || wishes.includes('orphan')) return await orphan(run, ref, live, signal);
      if (live.deletionTimestamp === undefined) {
        const instances = await hasInstances(run, entry, signal);
        if (instances !== undefined) {
          return { kind: 'kept', status: objectStatus(entry, 'kept', 'instances', instances), retry: true };
        }
        const request = { ...ref, uid: live.uid, propagation: 'Background', impersonate: impersonation(run.options) } as const;
        await engine.kube.limiter.run(() => engine.kube.remove(request, signal), 'normal', signal);
      }
      return run.mode === 'wait' ? await waitGone(run, entry, ref, live.uid, signal) : { kind: 'deleted' };
    } catch (error) {
      if (classify(error) !== 'race' || attempt >= 3) throw error;
    }
  }
}

/** Why a live object must not be touched: it is not the one we applied, or it was taken from us. */
function notOurs(identity: StackIdentity, entry: InventoryEntry, live: ObjectMeta): string | undefined {
  if (entry.uid !== '' && live.uid !== entry.uid) return 'the object was replaced by another one of the same name';
  if (live.labels?.[STACK_LABEL] !== identity.short) return 'the object no longer carries the label of the stack';
  if (live.annotations?.[OWNER_ANNOTATION] !== identity.owner) return 'the object belongs to another owner';
  return undefined;
}

/** Takes our labels, annotation and field ownership off. */
async function orphan(run: PruneRun, ref: ObjectRef, live: ObjectMeta, signal: AbortSignal): Promise<Removal> {
  const { engine, identity } = run;
  const others = (live.managedFields ?? []).filter(({ manager }) => manager !== identity.fieldManager);
  const operations = [
    { op: 'test', path: '/metadata/resourceVersion', value: live.resourceVersion },
    ...[STACK_LABEL, APPLYSET_LABEL].filter((name) => live.labels?.[name] !== undefined).map((name) => remove('labels', name)),
    ...(live.annotations?.[OWNER_ANNOTATION] === undefined ? [] : [remove('annotations', OWNER_ANNOTATION)]),
    // An empty list would mean "leave them alone"; one empty entry means "none" (Kubernetes docs, "Clearing managedFields").
    { op: 'replace', path: '/metadata/managedFields', value: others.length > 0 ? others : [{}] },
  ] as const;
  const impersonate = impersonation(run.options);
  const request = { ...ref, operations, fieldManager: 'brokkr-orphan', impersonate };
  await engine.kube.limiter.run(() => engine.kube.patchJson(request, signal), 'normal', signal);
  return { kind: 'orphaned' };
}

function remove(map: 'labels' | 'annotations', name: string): { readonly op: 'remove'; readonly path: string } {
  return { op: 'remove', path: `/metadata/${map}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}` };
}

async function waitGone(
  run: PruneRun,
  entry: InventoryEntry,
  ref: ObjectRef,
  uid: string,
  signal: AbortSignal,
): Promise<Removal> {
  const { kube, clock } = run.engine;
  const until = clock.monotonic() + GONE_TIMEOUT_MS;
  while (clock.monotonic() < until && !run.stop.aborted) {
    const live = await kube.findMetadata(ref, signal);
    if (live?.uid !== uid) return { kind: 'deleted' };
    await clock.sleep(GONE_POLL_MS, signal);
  }
  return {
    kind: 'kept',
    status: objectStatus(entry, 'kept', 'terminating', 'finalizers have not let the object go yet'),
    retry: true,
  };
}

/** The resource to delete through; `gone` when the kind was positively removed with all its objects; else why it cannot be told. */
async function resourceOf(engine: Engine, entry: InventoryEntry, signal: AbortSignal): Promise<Resource | 'gone' | string> {
  const exact = await engine.kube.resources.resourceFor(entry.group, entry.version, entry.kind, signal);
  if (exact.kind === 'found') return exact.resource;
  const other = await engine.kube.resources.preferred(entry.group, entry.kind, signal);
  if (other.kind === 'found') return other.resource;
  if (other.kind === 'unknown') return other.reason;
  // Discovery alone is no proof: an API service may have been taken away while its objects live on.
  const definition = await engine.kube.findMetadata({ resource: DEFINITIONS, name: `${entry.plural}.${entry.group}` }, signal);
  return definition ? 'the kind is defined but not served' : 'gone';
}

/** Whether objects of a definition are left: they would be deleted with it. */
async function hasInstances(run: PruneRun, entry: InventoryEntry, signal: AbortSignal): Promise<string | undefined> {
  if (entry.kind !== DEFINITIONS.kind || entry.group !== DEFINITIONS.group) return undefined;
  const [plural = '', group = ''] = splitAt(entry.name);
  const { resources } = await run.engine.kube.resources.all(signal);
  const resource = resources.find((candidate) => candidate.group === group && candidate.plural === plural);
  if (!resource) return undefined;
  try {
    for await (const { items } of run.engine.kube.list({ resource, content: 'metadata', limit: 1 }, signal)) {
      const [first] = items;
      if (first) return `${resource.kind} ${first.metadata.name} still exists`;
      break;
    }
  } catch (error) {
    signal.throwIfAborted();
    return `whether any ${resource.kind} exists cannot be told: ${errorText(error)}`;
  }
  return undefined;
}

function splitAt(name: string): readonly string[] {
  const dot = name.indexOf('.');
  return [name.slice(0, dot), name.slice(dot + 1)];
}

const DEFINITIONS: Resource = {
  group: 'apiextensions.k8s.io',
  version: 'v1',
  kind: 'CustomResourceDefinition',
  plural: 'customresourcedefinitions',
  namespaced: false,
  verbs: ['get', 'delete'],
};
