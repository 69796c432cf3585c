import type { ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import type { Outcomes } from '../apply/apply.ts';
import { appliedStatus } from '../apply/outcome.ts';
import type { Plan } from '../apply/plan.ts';
import { statusText } from '../apply/report.ts';
import type { Failure } from '../apply/run.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { ErrorClass } from '../kube/errors.ts';
import type { Removal } from '../prune/run.ts';
import type { StackTarget } from './target.ts';

/** From the failure that is repeated soonest to the one repeated last. */
const RETRY_ORDER: readonly ErrorClass[] = [
  ...(['transient', 'race', 'expired', 'credential', 'transient-slow', 'dependency'] as const),
  ...(['permission', 'policy', 'denied', 'permanent', 'size'] as const),
];

/** The class of failure that decides when to try again. */
export function soonest(failures: readonly { readonly class: ErrorClass }[]): ErrorClass {
  return RETRY_ORDER.find((kind) => failures.some((failure) => failure.class === kind)) ?? 'transient';
}

/** Counts of results, for the event. */
export function count(outcomes: Outcomes, removed: ReadonlyMap<InventoryEntry, Removal>, plan: Plan): Record<string, number> {
  const counts: Record<string, number> = { created: 0, configured: 0, unchanged: plan.unchanged, deleted: 0, failed: 0 };
  const add = (name: string) => {
    counts[name] = (counts[name] ?? 0) + 1;
  };
  for (const outcome of outcomes.values()) add(outcome.kind === 'applied' ? outcome.result : 'failed');
  for (const { kind } of removed.values()) add(kind === 'gone' ? 'deleted' : kind);
  return counts;
}

/** Adopted, moved, created anew, taken from or left to others, kept, released: what a reader of the event should know besides failures. */
export function notable(outcomes: Outcomes, removed: ReadonlyMap<InventoryEntry, Removal>): ObjectStatus[] {
  const objects: ObjectStatus[] = [];
  for (const outcome of outcomes.values()) {
    const status = outcome.kind === 'applied' ? appliedStatus(outcome) : undefined;
    if (status) objects.push(status);
  }
  for (const removal of removed.values()) if ('status' in removal && removal.status) objects.push(removal.status);
  return objects;
}

/** A success in words. */
export function successText(counts: Readonly<Record<string, number>>, target: StackTarget): string {
  const parts = Object.entries(counts)
    .filter(([, number]) => number > 0)
    .map(([name, number]) => `${number} ${name}`);
  const what = target.generation === 0n ? 'nothing was applied before' : `generation ${target.generation}`;
  return `${what}: ${parts.join(', ') || 'nothing to do'}`;
}

/** Failures in words: the first one, and how many more. */
export function failureMessage(failures: readonly Failure[], unsent: number): string {
  const [first] = failures;
  const more = failures.length > 1 ? ` (and ${failures.length - 1} more)` : '';
  const rest = unsent > 0 ? `${first ? '; ' : ''}${unsent} objects were not sent because the API server does not answer` : '';
  return `${first ? statusText(first.status) : ''}${more}${rest}`;
}
