import { jitter } from '#lib/backoff.ts';
import { keyString } from '#lib/object.ts';
import { AdoptionPolicy, type ApplyOptions, type ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { type Engine, impersonation } from './apply-engine.ts';
import { MANAGER_PREFIX, OWNER_ANNOTATION, type StackIdentity } from './apply-identity.ts';
import { failureText, objectStatus } from './apply-report.ts';
import { fingerprint } from './drift.ts';
import type { InventoryEntry } from './inventory-codec.ts';
import { classify, conflicts, type ErrorClass, KubeError, missing } from './kube/errors.ts';
import type { Applied, ObjectMeta } from './kube/objects.ts';
import type { Resource } from './kube/resource.ts';
import type { PlannedObject } from './plan.ts';

/** What an apply did to an object. `adopted`: it was there before and not ours. */
export type ApplyResult = 'created' | 'configured' | 'unchanged' | 'adopted';

/** How the apply of one object ended. */
export type Outcome =
  | {
      readonly kind: 'applied';
      readonly result: ApplyResult;
      readonly entry: InventoryEntry;
      /** Managers whose fields were taken over by force. */
      readonly forced: readonly string[];
    }
  | { readonly kind: 'failed'; readonly class: ErrorClass; readonly status: ObjectStatus }
  /** Not sent: the sync was asked to stop, or the server does not answer. */
  | { readonly kind: 'skipped' };

/** One sync's circumstances. */
export interface ApplyRun {
  readonly engine: Engine;
  readonly identity: StackIdentity;
  readonly options: ApplyOptions;
  /** The inventory before this sync. */
  readonly before: ReadonlyMap<string, InventoryEntry>;
  /** Groups whose definitions were applied in this sync: their paths may take a moment to be served. */
  readonly freshGroups: Set<string>;
  /** Called as soon as an object is applied. */
  readonly onApplied: (entry: InventoryEntry) => void;
  /** Calls in a row that got no answer, over all objects. */
  readonly unanswered: { count: number };
  /** Ends the sync at object borders: nothing new is sent, nothing is waited for. */
  readonly stop: AbortSignal;
}

/** Waits between tries of one object within one attempt; after that the attempt fails and is repeated as a whole. */
const TRANSIENT_WAITS_MS = [100, 200, 400, 800];
const RACE_WAITS_MS = [0, 20, 50, 100];
/** A definition that was just established is served by all API server paths within moments. */
const FRESH_WAITS_MS = Array.from({ length: 25 }, () => 200);
const MAX_RETRY_AFTER_MS = 5000;
/** Three tries of what is usually in flight. */
const MAX_UNANSWERED = 48;

/**
 * Applies one object: server-side, by force only after looking at whose fields they are. Never rejects but with the signal's reason:
 * failures are outcomes.
 */
export async function applyOne(run: ApplyRun, object: PlannedObject, resource: Resource, signal: AbortSignal): Promise<Outcome> {
  let force = false;
  let forced: string[] = [];
  for (let attempt = 0; ; attempt++) {
    if (run.stop.aborted || isUnreachable(run)) return { kind: 'skipped' };
    try {
      const refusal = await refuseAdoption(run, object, resource, signal);
      if (refusal) return refusal;
      const applied = await send(run, object, resource, { force, dryRun: false }, signal);
      run.unanswered.count = 0;
      return succeeded(run, object, resource, applied, forced);
    } catch (error) {
      signal.throwIfAborted();
      run.unanswered.count = error instanceof KubeError ? 0 : run.unanswered.count + 1;
      const kind = classify(error);
      if (missing(error, resource.plural) === 'kind') run.engine.kube.resources.invalidate();
      if (kind === 'policy' && error instanceof KubeError && !force) {
        const managers = [...new Set(conflicts(error).map(({ manager }) => manager))];
        const owner = managers.find((manager) => manager.startsWith(MANAGER_PREFIX) && manager !== run.identity.fieldManager);
        if (owner !== undefined)
          return conflict(
            object,
            owner,
            conflicts(error).map(({ field }) => field),
          );
        force = true;
        forced = managers;
        continue;
      }
      const wait = nextWait(run, object, resource, error, attempt);
      if (wait === undefined || !(await pause(run, wait, signal))) return failed(object, resource, error);
    }
  }
}

/** Whether the server has stopped answering: the rest of the attempt is given up. */
export function isUnreachable({ unanswered }: ApplyRun): boolean {
  return unanswered.count >= MAX_UNANSWERED;
}

/** Asks the server what it would say to an update, changing nothing. Undefined when it would take it, or cannot tell. */
export async function dryRunOne(
  run: ApplyRun,
  object: PlannedObject,
  resource: Resource,
  signal: AbortSignal,
): Promise<Extract<Outcome, { kind: 'failed' }> | undefined> {
  for (let attempt = 0; ; attempt++) {
    try {
      await send(run, object, resource, { force: true, dryRun: true }, signal);
      return undefined;
    } catch (error) {
      signal.throwIfAborted();
      const kind = classify(error);
      if (kind === 'dependency' || kind === 'policy' || isDryRunRefused(error)) return undefined;
      const wait = nextWait(run, object, resource, error, attempt);
      if (wait === undefined || !(await pause(run, wait, signal))) return failed(object, resource, error);
    }
  }
}

function send(
  { engine, identity, options }: ApplyRun,
  object: PlannedObject,
  resource: Resource,
  { force, dryRun }: { readonly force: boolean; readonly dryRun: boolean },
  signal: AbortSignal,
): Promise<Applied> {
  const request = {
    resource,
    namespace: object.namespaced ? object.namespace : undefined,
    name: object.name,
    body: object.json,
    fieldManager: identity.fieldManager,
    impersonate: impersonation(options),
    force,
    dryRun,
  };
  return engine.kube.limiter.run(() => engine.kube.apply(request, signal), 'normal', signal);
}

function succeeded(
  run: ApplyRun,
  object: PlannedObject,
  resource: Resource,
  { created, metadata }: Applied,
  forced: readonly string[],
): Outcome {
  const before = run.before.get(keyString(object));
  const print = fingerprint(metadata, run.identity.fieldManager);
  const entry = toEntry(object, resource, metadata, run.identity);
  run.onApplied(entry);
  return { kind: 'applied', result: resultOf(), entry, forced };

  function resultOf(): ApplyResult {
    if (created) return 'created';
    if (!before) return 'adopted';
    const known = before.print;
    if (before.uid !== metadata.uid) return 'configured';
    if (known?.resourceVersion === print.resourceVersion) return 'unchanged';
    // Times have whole seconds, and not every kind has a generation: with other content, another version is a change.
    if (before.digest !== object.digest) return 'configured';
    const same = known?.fields === print.fields && known.time === print.time && known.generation === print.generation;
    return same ? 'unchanged' : 'configured';
  }
}

function toEntry(object: PlannedObject, resource: Resource, metadata: ObjectMeta, identity: StackIdentity): InventoryEntry {
  const { group, version, kind, namespace, name, namespaced, digest, wave, marks } = object;
  return {
    ...{ group, version, kind, namespace, name, namespaced, digest, wave, marks },
    plural: resource.plural,
    uid: metadata.uid,
    state: 'applied',
    print: fingerprint(metadata, identity.fieldManager),
  };
}

/** Under the policy `refuse`: an object that exists and is not of this stack is left alone. Costs a read per new object. */
async function refuseAdoption(
  { engine, identity, options, before }: ApplyRun,
  object: PlannedObject,
  resource: Resource,
  signal: AbortSignal,
): Promise<Outcome | undefined> {
  if (options.adoption !== AdoptionPolicy.REFUSE || before.get(keyString(object))?.uid) return undefined;
  const ref = { resource, namespace: object.namespaced ? object.namespace : undefined, name: object.name };
  const live = await engine.kube.limiter.run(() => engine.kube.findMetadata(ref, signal), 'normal', signal);
  if (!live || live.annotations?.[OWNER_ANNOTATION] === identity.owner) return undefined;
  const message = 'the object exists already and the stack does not adopt';
  return { kind: 'failed', class: 'policy', status: objectStatus(object, 'conflict', 'adoption_refused', message) };
}

function conflict(object: PlannedObject, owner: string, fields: readonly string[]): Outcome {
  const message = `field manager ${owner}, another stack, owns ${fields.slice(0, 5).join(', ')}`;
  return { kind: 'failed', class: 'policy', status: objectStatus(object, 'conflict', 'owner', message) };
}

/** The outcome of an object that could not be written. */
function failed(object: PlannedObject, { plural }: Resource, error: unknown): Extract<Outcome, { kind: 'failed' }> {
  const kind = classify(error);
  const lacking = missing(error, plural);
  const reason = lacking === undefined ? REASONS[kind] : `${lacking}_not_found`;
  const state = kind === 'transient' || kind === 'transient-slow' || kind === 'race' ? 'retrying' : (STATES[kind] ?? 'rejected');
  const path = error instanceof KubeError ? (error.causes[0]?.field ?? '') : '';
  return { kind: 'failed', class: kind, status: objectStatus(object, state, reason, failureText(object.kind, error), { path }) };
}

const REASONS: Readonly<Record<ErrorClass, string>> = {
  transient: 'unavailable',
  'transient-slow': 'webhook_unavailable',
  race: 'changed_meanwhile',
  policy: 'conflict',
  permanent: 'invalid',
  permission: 'forbidden',
  denied: 'denied',
  dependency: 'dependency',
  size: 'too_large',
  credential: 'unauthorized',
  expired: 'unavailable',
};

const STATES: Readonly<Partial<Record<ErrorClass, string>>> = { dependency: 'blocked', policy: 'conflict' };

function nextWait(
  { engine, freshGroups }: ApplyRun,
  object: PlannedObject,
  { plural }: Resource,
  error: unknown,
  attempt: number,
): number | undefined {
  const kind = classify(error);
  if (kind === 'race') return RACE_WAITS_MS[attempt];
  if (kind === 'dependency' && missing(error, plural) === 'kind' && freshGroups.has(object.group)) return FRESH_WAITS_MS[attempt];
  if (kind !== 'transient') return undefined;
  const wait = TRANSIENT_WAITS_MS[attempt];
  if (wait === undefined) return undefined;
  const asked = error instanceof KubeError ? Math.min(error.retryAfterMs ?? 0, MAX_RETRY_AFTER_MS) : 0;
  return Math.max(asked, jitter(wait, 0.5, engine.random));
}

/** False when the sync was asked to stop. */
async function pause({ engine, stop }: ApplyRun, ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await engine.clock.sleep(ms, AbortSignal.any([stop, signal]));
    return true;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}

/** A webhook that declares side effects refuses every dry-run. */
function isDryRunRefused(error: unknown): boolean {
  return error instanceof KubeError && error.status === 400 && /does not support dry run/.test(error.message);
}
