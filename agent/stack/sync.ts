import { errorText } from '#lib/errors.ts';
import { keyString } from '#lib/object.ts';
import { inNewTrace, inSpanOf } from '#lib/tracing.ts';
import { type ObjectStatus, Phase } from '#proto/brokkr/v1/content_pb.js';
import { applyAll, type Outcomes, type WaveGate } from '../apply/apply.ts';
import { failureClass, type Prepared, prepareStack, type WantedKind } from '../apply/content.ts';
import type { Plan, PlannedObject } from '../apply/plan.ts';
import { preflight } from '../apply/preflight.ts';
import { statusText } from '../apply/report.ts';
import type { ApplyRun, Failure } from '../apply/run.ts';
import { openWaveGate } from '../apply/wave-gate.ts';
import { correctionsOf, untold } from '../drift/corrections.ts';
import { takeAdditions } from '../drift/strict.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { ErrorClass } from '../kube/errors.ts';
import { type Judged, keptStatus } from '../prune/prune.ts';
import { isNews, type Removal, removeAgain, tellRemovals } from '../prune/run.ts';
import { stackAttributes } from '../spans.ts';
import { type Attempt, beginAttempt, endAttempt } from './attempt.ts';
import type { Proof } from './confirmation.ts';
import { keepFinished } from './finished-jobs.ts';
import { isSettled, receive } from './goal.ts';
import { asGivenUp, failureOf, returnOf } from './good-generation.ts';
import { recordIntent } from './intent.ts';
import { count, failureMessage, notable, soonest, successText } from './outcome.ts';
import { judgePlan, pruneRemovals, prunesNow, stillTerminating } from './removals.ts';
import type { SyncEnd, SyncInput } from './sync-input.ts';

/**
 * Brings one stack to its target, once: content, validation, dry-run of updates, intent, apply, prune, event, inventory. Level-triggered:
 * what the inventory holds as applied is not sent again. Rejects only with the signal's reason or when the inventory cannot be stored.
 */
export async function syncStack(input: SyncInput, signal: AbortSignal): Promise<SyncEnd> {
  const { inventory, goal, target } = input;
  const type = isSettled(inventory, target) ? 'DRIFT' : goal === target ? 'APPLY' : 'ROLLBACK';
  const span = { name: 'sync stack', attributes: { ...stackAttributes(target), 'brokkr.attempt.type': type } };
  // What others changed has nothing to do with the publication any more.
  if (type === 'DRIFT') return await inNewTrace(span, () => attemptSync(input, type, '', signal));
  return await inSpanOf(goal.traceparent, span, () => attemptSync(input, type, goal.traceparent, signal));
}

async function attemptSync(
  input: SyncInput,
  type: 'DRIFT' | 'APPLY' | 'ROLLBACK',
  traceparent: string,
  signal: AbortSignal,
): Promise<SyncEnd> {
  const { engine, inventory, goal, target, suspects } = input;
  const { generation, deploymentObjectId } = target;
  const attempt = await beginAttempt(engine, inventory, { type, generation, deploymentObjectId, traceparent });
  receive(inventory, goal, engine.origin(goal.incarnation));
  if (goal.options.paused) {
    await inventory.save(signal);
    return { kind: 'paused' };
  }
  let prepared: Prepared;
  try {
    prepared = await prepareStack(engine, target, inventory, new Set(suspects.keys()), signal);
  } catch (error) {
    signal.throwIfAborted();
    return fail(input, attempt, failureClass(error), errorText(error), signal);
  }
  if (prepared.kind === 'refused') return refuse(input, attempt, prepared, signal);
  const { plan } = prepared;
  if (plan.wanted.size === 0 && plan.removals.length > 0 && !target.options.allowEmpty) {
    const message = `the stack is empty and would delete ${plan.removals.length} objects; publish it with allow_empty if that is meant`;
    return refuse(input, attempt, { message, objects: [], missing: [] }, signal);
  }
  if (type !== 'DRIFT') input.phase(Phase.VALIDATED);
  return execute(input, attempt, plan, signal);
}

async function execute(input: SyncInput, attempt: Attempt, plan: Plan, signal: AbortSignal): Promise<SyncEnd> {
  const { inventory, target } = input;
  const fresh = inventory.head.appliedGeneration !== target.generation;
  const judged = judgePlan(input, plan);
  const done: Done = { outcomes: new Map(), removed: new Map(), notes: [] };
  for (const [entry, guard] of judged.kept) {
    done.removed.set(entry, { kind: 'kept', status: keptStatus(entry, guard), retry: false });
  }
  for (const [key, status] of plan.undiscovered) done.outcomes.set(key, { kind: 'failed', class: 'dependency', status });
  // What is under way already needs no new intent, and nothing else is written: nothing could leak.
  const isIdle = plan.changes.length === 0 && judged.open.every(({ state }) => state === 'deleting');
  const end = isIdle ? undefined : await write(input, attempt, plan, judged, done, signal);
  if (end) return end;
  const isWhole = [...done.outcomes.values()].every(({ kind }) => kind === 'applied');
  const proof = isWhole && inventory.head.unconfirmed ? await input.prove(signal) : undefined;
  if (proof?.kind === 'stopped') return { kind: 'stopped' };
  return finish(input, attempt, plan, { ...done, proof }, fresh, signal);
}

/** Writes what the plan says. Undefined once that is done, however single objects fared. */
async function write(
  input: SyncInput,
  attempt: Attempt,
  plan: Plan,
  judged: Judged,
  done: Done,
  signal: AbortSignal,
): Promise<SyncEnd | undefined> {
  const { inventory, target, stop } = input;
  const fresh = inventory.head.appliedGeneration !== target.generation;
  const terminating = await stillTerminating(input, plan.changes, signal);
  const run = applyRun(input, terminating);
  const published = plan.changes.filter((object) => !input.suspects.has(keyString(object)));
  const { refusals, notes } = await preflight(run, published, (object) => isUpdate(inventory, object), signal);
  done.notes.push(...notes);
  if (stop.aborted) return { kind: 'stopped' };
  if (refusals.length > 0) return refuseDryRun(input, attempt, refusals, signal);
  if (attempt.type === 'APPLY' && input.prepareReturn) {
    try {
      await input.prepareReturn(signal);
    } catch (error) {
      signal.throwIfAborted();
      return fail(input, attempt, 'transient', `nothing was applied, as there would be no way back: ${errorText(error)}`, signal);
    }
    inventory.head = { ...inventory.head, unconfirmed: true };
  }
  await recordIntent(input, attempt, plan, judged.open, terminating, signal);
  if (fresh) input.phase(Phase.APPLYING);
  await takeAdditions(run, input.suspects, signal);
  for (const [key, outcome] of await applyAll(run, plan.changes, waveGate(input, attempt, plan), signal)) {
    done.outcomes.set(key, outcome);
  }
  if (stop.aborted) return { kind: 'stopped' };
  if (judged.open.length > 0 && prunesNow(input, done.outcomes)) {
    await pruneRemovals(input, judged, done.outcomes, done.removed, signal);
  }
  return stop.aborted && done.removed.size < plan.removals.length ? { kind: 'stopped' } : undefined;
}

/** Corrections of drift and rollbacks restore what was healthy once: they wait for nothing. */
function waveGate(input: SyncInput, { type }: Attempt, { wanted }: Plan): WaveGate {
  const { options } = input.target;
  return openWaveGate({ ...input, wanted, options: { ...options, gateWaves: options.gateWaves && type === 'APPLY' } });
}

interface Done {
  readonly outcomes: Outcomes;
  readonly removed: Map<InventoryEntry, Removal>;
  /** Of the preflight. */
  readonly notes: ObjectStatus[];
  /** Undefined when nothing had to be proven. */
  readonly proof?: Exclude<Proof, { readonly kind: 'stopped' }> | undefined;
}

async function finish(
  input: SyncInput,
  attempt: Attempt,
  plan: Plan,
  { outcomes, removed, notes, proof }: Done,
  fresh: boolean,
  signal: AbortSignal,
): Promise<SyncEnd> {
  const { engine, inventory, target, suspects } = input;
  const open = inventory.head.attempt;
  const ends = [...outcomes.values()];
  const failures = ends.filter((outcome) => outcome.kind === 'failed');
  const unsent = ends.filter(({ kind }) => kind === 'skipped').length;
  const kept = [...removed.values()].filter((removal) => removal.kind === 'kept');
  for (const entry of plan.removals) {
    const key = keyString(entry);
    const left = inventory.entries.get(key);
    if (left && left.state !== 'deleting') inventory.entries.set(key, { ...entry, digest: '', state: 'kept' });
  }
  tellRemovals(engine, removed);
  const counts = count(outcomes, removed, plan);
  const isWhole = failures.length === 0 && unsent === 0;
  const cutOff = isWhole && proof?.kind === 'cut_off' ? proof.message : undefined;
  const success = isWhole && cutOff === undefined;
  const proven = proof?.kind === 'reached' ? `confirmed: ${proof.message}` : '';
  const corrections = correctionsOf(inventory, target.options, suspects, plan.changes, outcomes, engine.clock.now());
  for (const { status } of corrections) engine.observe.drifted(status, true);
  const told = [...failures, ...corrections].map(({ status }) => status);
  const objects = [...told, ...notable(untold(outcomes, corrections), removed), ...notes];
  const applying = [successText(counts, target), proven].filter(Boolean).join('; ');
  const message = isWhole ? (cutOff ?? applying) : failureMessage(failures, unsent);
  const [first] = corrections;
  const written = [...outcomes].filter(([, o]) => o.kind === 'applied' && o.result !== 'unchanged').map(([key]) => key);
  const corrected = first !== undefined || written.some((key) => !suspects.has(key));
  const worked = corrected || [...removed].some(([entry, removal]) => isNews(entry, removal));
  const origin = engine.origin(target.incarnation);
  const isFirst = inventory.head.origin !== origin;
  const isOver = isFirst && !inventory.head.partial && kept.length > 0;
  const statuses = kept.map(({ status }) => status);
  const applied: SyncEnd = { kind: 'applied', again: isOver ? 'now' : removeAgain(kept), kept: statuses, corrections, proven };
  if (fresh || !success || worked) {
    const eventType = attempt.type === 'DRIFT' && worked && plan.removals.length > 0 && !corrected ? 'PRUNE' : attempt.type;
    const withFirst = first && success ? `${message}; ${statusText(first.status)}` : message;
    const text =
      attempt.type === 'ROLLBACK' && success ? `${returnOf(inventory.head)}; ${message}` : eventText(input, attempt, withFirst);
    await endAttempt(engine, inventory, attempt, { eventType, success, message: text, objects, counts });
  } else if (
    written.length === 0 &&
    open === undefined &&
    !isFirst &&
    plan.changes.every((object) => suspects.has(keyString(object)))
  ) {
    return applied; // suspects that were as they should be: what is stored stays true
  }
  const reached = success && { appliedGeneration: target.generation, origin, unconfirmed: false, ...input.proof(target) };
  const lost = cutOff !== undefined && asGivenUp(target, { message: cutOff, cutOff: true });
  inventory.head = { ...inventory.head, attempt: undefined, ...reached, ...lost };
  await inventory.save(signal);
  if (success && fresh) engine.observe.synced((engine.clock.now() - target.publishedAtMs) / 1000);
  if (cutOff !== undefined) return { kind: 'given_up' };
  if (success) return applied;
  return { kind: 'failed', class: unsent > 0 ? 'transient' : soonest(failures), message, objects, corrections };
}

function applyRun(
  { engine, inventory, target, suspects, stop }: SyncInput,
  terminating: ReadonlyMap<string, ObjectStatus>,
): ApplyRun {
  const before = new Map(inventory.entries);
  return {
    engine,
    identity: inventory.identity,
    options: target.options,
    before,
    seen: new Map([...suspects].map(([key, { live }]) => [key, live?.metadata])),
    terminating,
    freshGroups: new Set(),
    onApplied: (entry) => inventory.entries.set(keyString(entry), keepFinished(entry, before.get(keyString(entry)))),
    stop,
    priority: isSettled(inventory, target) ? 'low' : 'normal',
  };
}

function isUpdate({ entries }: Inventory, object: PlannedObject): boolean {
  const held = entries.get(keyString(object));
  return held !== undefined && held.uid !== '' && held.state === 'applied';
}

/** What an event says: that of a rollback begins with the reason for it. */
function eventText({ inventory }: SyncInput, { type }: Attempt, message: string): string {
  return type === 'ROLLBACK' ? `${failureOf(inventory.head)}; ${message}` : message;
}

async function refuse(
  input: SyncInput,
  attempt: Attempt,
  refusal: { readonly message: string; readonly objects: readonly ObjectStatus[]; readonly missing: readonly WantedKind[] },
  signal: AbortSignal,
): Promise<SyncEnd> {
  const { engine, inventory, goal, target } = input;
  const { message, objects, missing } = refusal;
  await endAttempt(engine, inventory, attempt, {
    eventType: 'VALIDATE',
    success: false,
    message: eventText(input, attempt, message),
    objects,
    counts: { failed: objects.length },
  });
  if (target === goal) inventory.head = { ...inventory.head, refusedGeneration: target.generation };
  await inventory.save(signal);
  return { kind: 'refused', message, objects, missing };
}

/** The server would refuse an update: nothing at all is written. */
async function refuseDryRun(
  input: SyncInput,
  attempt: Attempt,
  refusals: readonly Failure[],
  signal: AbortSignal,
): Promise<SyncEnd> {
  const objects = refusals.map(({ status }) => status);
  const message = `${failureMessage(refusals, 0)}; nothing was applied`;
  const end = await refuse(input, attempt, { message, objects, missing: [] }, signal);
  const kind = soonest(refusals);
  return kind === 'permanent' || kind === 'size' ? end : { kind: 'failed', class: kind, message, objects, corrections: [] };
}

async function fail(
  input: SyncInput,
  attempt: Attempt,
  kind: ErrorClass,
  message: string,
  signal: AbortSignal,
): Promise<SyncEnd> {
  const { engine, inventory } = input;
  const event = { eventType: attempt.type, success: false, message: eventText(input, attempt, message), objects: [] };
  await endAttempt(engine, inventory, attempt, event);
  signal.throwIfAborted();
  return { kind: 'failed', class: kind, message, objects: [], corrections: [] };
}
