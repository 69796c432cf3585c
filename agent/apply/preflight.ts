import { type ObjectStatus, Preflight } from '#proto/brokkr/v1/content_pb.js';
import { forEachLimited } from '../engine.ts';
import type { ErrorClass } from '../kube/errors.ts';
import { dryRunOne } from './object.ts';
import type { PlannedObject } from './plan.ts';
import type { ApplyRun, Failure } from './run.ts';

/** Refusals that stop everything; others are told by the apply itself. */
const REFUSING: ReadonlySet<ErrorClass> = new Set(['permanent', 'denied', 'permission', 'size']);

/** What dry-runs told. */
export interface PreflightResult {
  /** The server would refuse these: nothing may be written. */
  readonly refusals: readonly Failure[];
  /** Objects that could not be checked, to be told with the result. */
  readonly notes: readonly ObjectStatus[];
}

/**
 * Dry-runs what is about to be applied, as far as the stack's options ask for it: updates of live objects (`isUpdate`), everything, or
 * nothing. What cannot be tried yet (its kind or namespace is missing) is passed over. Writes nothing.
 */
export async function preflight(
  run: ApplyRun,
  objects: readonly PlannedObject[],
  isUpdate: (object: PlannedObject) => boolean,
  signal: AbortSignal,
): Promise<PreflightResult> {
  const refusals: Failure[] = [];
  const notes: ObjectStatus[] = [];
  await forEachLimited(candidates(run.options.preflight, objects, isUpdate), run.engine.share, async (object) => {
    if (!object.resource || run.stop.aborted) return;
    const outcome = await dryRunOne(run, object, object.resource, signal);
    if (outcome?.kind === 'unchecked') notes.push(outcome.status);
    else if (outcome && REFUSING.has(outcome.class)) refusals.push(outcome);
  });
  return { refusals, notes };
}

function candidates(
  mode: Preflight,
  objects: readonly PlannedObject[],
  isUpdate: (object: PlannedObject) => boolean,
): readonly PlannedObject[] {
  switch (mode) {
    case Preflight.NONE:
      return [];
    case Preflight.ALL:
      return objects;
    case Preflight.UNSPECIFIED:
    case Preflight.UPDATES:
      return objects.filter(isUpdate);
  }
}
