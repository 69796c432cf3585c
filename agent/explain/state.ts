import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { ManifestEntry, ObjectKey } from '#lib/object.ts';
import { type ObjectStatus, Phase } from '#proto/brokkr/v1/content_pb.js';
import { Wanted } from '#proto/brokkr/v1/explain_pb.js';
import { isApplied } from '../apply/plan.ts';
import { objectStatus } from '../apply/report.ts';
import { driftMode } from '../drift/mode.ts';
import type { Readiness } from '../health/readiness.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { terminatingStatus } from '../prune/terminating.ts';
import type { Goal } from '../stack/goal.ts';

/** What the worker of a stack knows, as far as explanations need it. */
export interface Outlook {
  readonly goal: Goal;
  readonly inventory: Inventory;
  /** By key. */
  readonly seen: ReadonlyMap<string, Readiness>;
  /** What the last attempt said of objects, by key. */
  readonly problems: ReadonlyMap<string, ObjectStatus>;
  /** Whether a watch told of a change that was not judged yet. */
  readonly isSuspect: (key: string) => boolean;
  readonly phase: Phase;
  /** Of the stack. */
  readonly message: string;
  /** Since when the phase is that, in milliseconds by the wall clock. */
  readonly sinceMs: number;
  /** When what is not reached is tried again, by the wall clock; undefined when nothing is planned. */
  readonly retryAtMs: number | undefined;
  /** Why nothing is written at all now. */
  readonly suspended: string | undefined;
}

/** An object of a stack: wanted, or there, or both. */
export interface Subject {
  readonly key: string;
  /** Its name as it is in the cluster. */
  readonly object: ObjectKey;
  readonly wanted: ManifestEntry | undefined;
  readonly entry: InventoryEntry | undefined;
}

/** Whether a target wants an object, as far as can be told without reading the text. */
export function wantedOf({ wanted }: Subject, { goal }: Outlook): Wanted {
  switch (goal.kind) {
    case 'none':
      return Wanted.UNSPECIFIED;
    case 'tombstone':
      return Wanted.STACK_LEAVES;
    case 'target':
      if (wanted) return Wanted.YES;
      return 'opaqueSourceDigest' in goal.target.manifest ? Wanted.UNSPECIFIED : Wanted.NO;
  }
}

/** The state of an object with its reason, a sentence, and since when (APPLY design, states of objects). */
export function statusOf(subject: Subject, outlook: Outlook): ObjectStatus {
  const { key, entry } = subject;
  if (entry?.state === 'deleting') return terminatingStatus(entry);
  const problem = outlook.problems.get(key);
  if (problem && !DONE.has(problem.state)) return reported(problem, entry, outlook);
  switch (wantedOf(subject, outlook)) {
    case Wanted.YES:
      return wantedState(subject, outlook);
    case Wanted.NO:
    case Wanted.STACK_LEAVES:
      return unwantedState(subject, outlook);
    case Wanted.UNSPECIFIED:
      return entry?.state === 'applied' && !outlook.isSuspect(key)
        ? status(subject, 'in_sync', 'as_applied', 'as it was applied last', writtenAt(entry))
        : wantedState(subject, outlook);
  }
}

/** What an attempt may say of objects that are applied as they should be; whether they are ready is a matter of health. */
const DONE: ReadonlySet<string> = new Set([
  ...['created', 'configured', 'unchanged', 'adopted', 'recreated', 'moved', 'deleted', 'not_ready', 'finished'],
]);

/** What an attempt said. Drift that is left by the mode of the object is not on its way to be corrected. */
function reported(problem: ObjectStatus, entry: InventoryEntry | undefined, { goal }: Outlook): ObjectStatus {
  const left =
    problem.state === 'drifted' && entry && goal.kind === 'target' && driftMode(entry, goal.target.options) === 'detect';
  return left ? { ...problem, state: 'drift_reported' } : problem;
}

function wantedState(subject: Subject, outlook: Outlook): ObjectStatus {
  const { key, entry, wanted } = subject;
  if (outlook.isSuspect(key))
    return status(subject, 'suspect', 'seen_changed', 'it was seen changed or missing and is to be judged');
  if (wanted && isApplied({ version: wanted.version, digest: wanted.objectDigest }, entry)) {
    return status(subject, 'in_sync', '', '', writtenAt(entry));
  }
  const { phase, message, suspended, sinceMs } = outlook;
  const why = suspended === undefined ? message : `nothing is written: ${suspended}`;
  return status(subject, 'pending', PENDING[phase] ?? 'waiting', why || 'it is not applied yet', sinceMs);
}

function unwantedState(subject: Subject, { goal, message, sinceMs }: Outlook): ObjectStatus {
  if (subject.entry?.state === 'kept') return status(subject, 'kept', 'guard', message || 'a guard keeps it', sinceMs);
  const why = goal.kind === 'tombstone' ? 'the stack leaves the agent' : 'the stack no longer has it';
  return status(subject, 'prune_pending', 'not_wanted', message === '' ? why : `${why}: ${message}`, sinceMs);
}

/** Why an object is not applied, by what the stack does. */
const PENDING: Readonly<Partial<Record<Phase, string>>> = {
  [Phase.APPLYING]: 'applying',
  [Phase.REFUSED]: 'generation_refused',
  [Phase.FAILED]: 'others_failed',
  [Phase.ROLLED_BACK]: 'rolled_back',
};

function status({ object }: Subject, state: string, reason: string, message: string, sinceMs?: number): ObjectStatus {
  return objectStatus(object, state, reason, message, sinceMs === undefined ? {} : { since: timestampFromMs(sinceMs) });
}

/** When we last changed the object, by the server's clock, to the second. */
function writtenAt(entry: InventoryEntry | undefined): number | undefined {
  const time = entry?.print?.time ?? '';
  return time === '' ? undefined : new Date(time).getTime();
}
