import { jitter } from '#lib/backoff.ts';
import { failSpan, inSpan } from '#lib/tracing.ts';
import { AdoptionPolicy, type ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { fingerprint } from '../drift/drift.ts';
import type { Fingerprint, InventoryEntry } from '../inventory/codec.ts';
import { classify, isConversion, KubeError, missing } from '../kube/errors.ts';
import type { Applied, ManagedFieldsEntry, ObjectMeta } from '../kube/objects.ts';
import type { Resource } from '../kube/resource.ts';
import { verdictOf } from '../observe.ts';
import { objectSpan } from '../spans.ts';
import { MANAGER_PREFIX, OWNER_ANNOTATION, STACK_LABEL } from '../stack-identity.ts';
import { conflictPolicy, decide, managerKind } from './field-managers.ts';
import { conflict, failed, immutable } from './outcome.ts';
import type { PlannedObject } from './plan.ts';
import { mayRecreate, refusedFields, wouldCreate } from './recreate.ts';
import { findRemedy, MAX_REMEDIES } from './remedy.ts';
import { failureText, objectStatus } from './report.ts';
import { type ApplyResult, type ApplyRun, type Failure, isUnreachable, type Outcome, readMetadata, refOf } from './run.ts';
import { note, type Sending, send, sendDryRun, startSending } from './sending.ts';
import { disown, hasOtherVersions, takeOver } from './takeover.ts';

/** Waits between tries of one object within one attempt; after that the attempt fails and is repeated as a whole. */
const TRANSIENT_WAITS_MS = [100, 200, 400, 800];
const RACE_WAITS_MS = [0, 20, 50, 100];
/** A definition that was just established is served by all API server paths within moments. */
const FRESH_WAITS_MS = Array.from({ length: 25 }, () => 200);
const MAX_RETRY_AFTER_MS = 5000;

/**
 * Applies one object: server-side, by force only after looking at whose fields they are. An object that is ours is sent with its UID, so
 * that a stranger of the same name is noticed. Never rejects but with the signal's reason: failures are outcomes.
 */
export async function applyOne(run: ApplyRun, object: PlannedObject, resource: Resource, signal: AbortSignal): Promise<Outcome> {
  const { clock, observe } = run.engine;
  const startedAt = clock.monotonic();
  const outcome = await inSpan(
    () => objectSpan('apply', object),
    async (span) => {
      const end = await applyWithRetries(run, object, resource, signal);
      span?.setAttribute('brokkr.result', verdictOf(end) ?? 'skipped');
      if (span && end.kind === 'failed') failSpan(span, end.status.reason);
      return end;
    },
  );
  const verdict = verdictOf(outcome);
  if (verdict !== undefined) observe.applied(object.kind, verdict, (clock.monotonic() - startedAt) / 1000);
  return outcome;
}

async function applyWithRetries(run: ApplyRun, object: PlannedObject, resource: Resource, signal: AbortSignal): Promise<Outcome> {
  const sending = startSending(run, object, resource);
  for (let failures = 0; ; ) {
    if (!sending.recreated && (run.stop.aborted || isUnreachable(run))) return { kind: 'skipped' };
    try {
      const outcome = await tryOnce(sending, signal);
      if (outcome) return outcome;
    } catch (error) {
      signal.throwIfAborted();
      if (missing(error, resource.plural) === 'kind') run.engine.kube.resources.invalidate();
      const wait = nextWait(run, object, resource, error, failures++);
      if (wait === undefined || !(await pause(run, error, wait, signal))) return failed(object, resource, error);
    }
  }
}

/** What a dry-run told: `unchecked` when an admission webhook refuses dry-runs as such. */
type DryRun = Failure | { readonly kind: 'unchecked'; readonly status: ObjectStatus };

/** Asks the server what it would say to an apply, changing nothing. Undefined when it would take it, or cannot tell. */
export async function dryRunOne(
  run: ApplyRun,
  object: PlannedObject,
  resource: Resource,
  signal: AbortSignal,
): Promise<DryRun | undefined> {
  const sending = startSending(run, object, resource);
  for (let failures = 0; ; ) {
    try {
      return await dryRun(sending, signal);
    } catch (error) {
      signal.throwIfAborted();
      const wait = nextWait(run, object, resource, error, failures++);
      if (wait === undefined || !(await pause(run, error, wait, signal))) return failed(object, resource, error);
    }
  }
}

async function dryRun(sending: Sending, signal: AbortSignal): Promise<DryRun | undefined> {
  const { run, object, resource } = sending;
  try {
    await sendDryRun(sending, true, signal);
    return undefined;
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    const kind = classify(error);
    if (isDryRunRefused(error)) {
      const message = `not checked before the apply: ${failureText(object.kind, error)}`;
      return { kind: 'unchecked', status: objectStatus(object, 'unchecked', 'dry_run_unsupported', message) };
    }
    if (kind === 'dependency' || kind === 'policy') return undefined;
    if (isConversion(error)) {
      const live = await readMetadata(run, refOf(object, resource), signal);
      if (live && hasOtherVersions(live, resource)) return undefined; // the apply will see to it
    }
    if (kind === 'permanent' && error.status === 422 && (await wouldCreate(run, object, resource, signal))) {
      if (mayRecreate(run, object)) return undefined;
      return immutable(object, refusedFields(error), 'the policy is not to create the object anew');
    }
    throw error;
  }
}

/** One try: undefined when the object is to be sent again, because something was put in order first. */
async function tryOnce(sending: Sending, signal: AbortSignal): Promise<Outcome | undefined> {
  const refusal = await refuseAdoption(sending, signal);
  if (refusal) return refusal;
  let applied: Applied;
  try {
    applied = await send(sending, signal);
  } catch (error) {
    const remedy = await findRemedy(sending, error, signal);
    if (remedy === undefined) throw error;
    return remedy === 'again' ? undefined : remedy;
  }
  return await settle(sending, applied, signal);
}

/** What remains to do after an apply: on adoption the old owners go, and what only they wanted with the next apply. */
async function settle(sending: Sending, { created, metadata }: Applied, signal: AbortSignal): Promise<Outcome | undefined> {
  const { run, object, resource } = sending;
  const { managedFields = [] } = metadata;
  const ref = refOf(object, resource);
  if (!created && metadata.uid !== sending.uid && sending.remedies < MAX_REMEDIES) {
    const old = managedFields.filter((entry) => isOldOwner(sending, entry));
    if (old.length > 0) {
      sending.remedies += 1;
      sending.exists = true;
      const managers = old.map(({ manager = '' }) => manager);
      if (await takeOver(run, ref, metadata, (entry) => old.includes(entry), signal)) note(sending, 'taken_over', managers, []);
      return undefined;
    }
  }
  if (!managedFields.some(isInitial)) return succeeded(sending, created, metadata);
  return succeeded(sending, created, (await disown(run, ref, metadata, isInitial, signal)) ?? metadata);
}

function isOldOwner({ run: { identity, options }, object }: Sending, entry: ManagedFieldsEntry): boolean {
  const { fieldManager } = identity;
  const policy = conflictPolicy(object.marks, options.conflicts);
  return decide(entry, { fieldManager, policy, yieldManagers: options.yieldManagers, claimed: false, adopting: true }) === 'take';
}

function isInitial(entry: ManagedFieldsEntry): boolean {
  return managerKind(entry, '') === 'initial';
}

function succeeded(sending: Sending, created: boolean, metadata: ObjectMeta): Outcome {
  const { run, object, resource } = sending;
  if (sending.replaced) note(sending, 'replaced', [], []);
  const entry = toEntry(object, resource, metadata, run.identity.fieldManager);
  run.onApplied(entry);
  if (sending.movedFrom) {
    run.engine.nudge(sending.movedFrom.stackId); // it can forget the object now
    return { kind: 'applied', result: 'moved', entry, notes: sending.notes };
  }
  const result = created ? (sending.recreated ? 'recreated' : 'created') : updated(sending, metadata.uid, entry.print);
  return { kind: 'applied', result, entry, notes: sending.notes };
}

/** What the apply did to an object that was there. */
function updated({ run, held, object, print, uid, replaced, force }: Sending, liveUid: string, now: Fingerprint): ApplyResult {
  if (!held && run.before.values().some((entry) => entry.uid === liveUid)) return 'configured'; // its kind is in another group now
  if (!held || replaced) return 'adopted';
  if (!print || uid !== liveUid) return 'configured';
  if (print.resourceVersion === now.resourceVersion) return 'unchanged';
  // Times have whole seconds, and not every kind has a generation: with other content, another version is a change.
  if (held.digest !== object.digest) return 'configured';
  if (print.generation !== now.generation) return 'configured';
  if (print.fields === '' && !force) return 'unchanged'; // our entry had been wiped, and no value had changed
  return print.fields === now.fields && print.time === now.time ? 'unchanged' : 'configured';
}

type Settled = InventoryEntry & { readonly print: Fingerprint };

function toEntry(object: PlannedObject, resource: Resource, metadata: ObjectMeta, fieldManager: string): Settled {
  const { group, version, kind, namespace, name, namespaced, digest, wave, marks } = object;
  return {
    ...{ group, version, kind, namespace, name, namespaced, digest, wave, marks },
    plural: resource.plural,
    uid: metadata.uid,
    state: 'applied',
    print: fingerprint(metadata, fieldManager),
  };
}

/** Under the policy `refuse`: an object that exists and is not of this stack is left alone. Costs a read per new object. */
async function refuseAdoption({ run, object, resource, uid }: Sending, signal: AbortSignal): Promise<Outcome | undefined> {
  if (run.options.adoption !== AdoptionPolicy.REFUSE || uid !== undefined) return undefined;
  const live = await readMetadata(run, refOf(object, resource), signal);
  if (!live || live.annotations?.[OWNER_ANNOTATION] === run.identity.owner) return undefined;
  const releasedBy = run.engine.releasedBy(
    `${MANAGER_PREFIX}${live.labels?.[STACK_LABEL]}`,
    object,
    live.annotations?.[OWNER_ANNOTATION],
  );
  if (typeof releasedBy === 'object') return undefined; // it is moved, not adopted
  const managers = [...new Set((live.managedFields ?? []).map(({ manager = '' }) => manager))];
  const message = 'the object exists already and the stack does not adopt';
  return conflict(object, 'adoption_refused', message, { managers, fields: [] });
}

function nextWait(
  run: ApplyRun,
  object: PlannedObject,
  { plural }: Resource,
  error: unknown,
  attempt: number,
): number | undefined {
  if (isUnreachable(run)) return undefined;
  const { engine, freshGroups } = run;
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
async function pause({ engine, stop }: ApplyRun, error: unknown, ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await engine.clock.sleep(ms, AbortSignal.any([stop, signal]));
    engine.observe.retried(classify(error));
    return true;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}

/** A webhook that declares side effects refuses every dry-run. */
function isDryRunRefused(error: KubeError): boolean {
  return error.status === 400 && /does not support dry run/.test(error.message);
}
