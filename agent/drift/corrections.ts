import { keyString } from '#lib/object.ts';
import type { ApplyOptions } from '#proto/brokkr/v1/content_pb.js';
import type { Outcomes } from '../apply/apply.ts';
import type { PlannedObject } from '../apply/plan.ts';
import type { Outcome } from '../apply/run.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { Correction } from './records.ts';
import { driftStatus, explain } from './report.ts';
import type { Suspect } from './suspects.ts';

/**
 * What was put back in a sync, each with what had happened to it. An object that was only owned again is not among it: nothing about it
 * had changed.
 */
export function correctionsOf(
  { identity }: Inventory,
  options: ApplyOptions,
  suspects: ReadonlyMap<string, Suspect>,
  changes: readonly PlannedObject[],
  outcomes: Outcomes,
  sinceMs: number,
): Correction[] {
  const corrections: Correction[] = [];
  for (const object of changes) {
    const key = keyString(object);
    const suspect = suspects.get(key);
    const outcome = outcomes.get(key);
    if (!suspect || outcome?.kind !== 'applied' || outcome.result === 'unchanged') continue;
    const cause = explain({ ...suspect, wanted: suspect.whole ? object.json : undefined }, identity, options);
    if (cause.reason === 'disowned') continue;
    corrections.push({ key, status: driftStatus(suspect.entry, cause, { state: outcome.result, sinceMs, text: '; put back' }) });
  }
  return corrections;
}

/** The outcomes about which corrections do not say everything: all but those that took back their own fields and nothing else. */
export function untold(outcomes: Outcomes, corrections: readonly Correction[]): Outcomes {
  const told = new Set(corrections.map(({ key }) => key));
  const saysMore = (outcome: Outcome) =>
    outcome.kind === 'applied' && outcome.notes.some(({ reason }) => reason !== 'forced' && reason !== 'taken_over');
  return new Map([...outcomes].filter(([key, outcome]) => !told.has(key) || saysMore(outcome)));
}
