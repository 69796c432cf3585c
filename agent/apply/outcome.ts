import type { ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { classify, type ErrorClass, isTerminating, KubeError, missing } from '../kube/errors.ts';
import type { Resource } from '../kube/resource.ts';
import type { PlannedObject } from './plan.ts';
import { failureText, objectStatus } from './report.ts';
import type { Failure, Note, Outcome } from './run.ts';

/** Managers and fields named in one message. */
const MAX_NAMED = 5;

/** The outcome of an object that could not be written. */
export function failed(object: PlannedObject, { plural }: Resource, error: unknown): Failure {
  const kind = classify(error);
  const lacking = missing(error, plural);
  const terminating = isTerminating(error);
  const reason = terminating ? 'namespace_terminating' : lacking === undefined ? REASONS[kind] : `${lacking}_not_found`;
  const passing = terminating || kind === 'transient' || kind === 'transient-slow' || kind === 'race';
  const state = passing ? 'retrying' : (STATES[kind] ?? 'rejected');
  const path = error instanceof KubeError ? (error.causes[0]?.field ?? '') : '';
  return { kind: 'failed', class: kind, status: objectStatus(object, state, reason, failureText(object.kind, error), { path }) };
}

/** The outcome of an object with fields that cannot be changed and that is not created anew; `why` says why not. */
export function immutable(object: PlannedObject, fields: readonly string[], why: string): Failure {
  const message = `${named(fields)} cannot be changed: ${why}`;
  const status = objectStatus(object, 'rejected', 'immutable', message, { path: fields[0] ?? '' });
  return { kind: 'failed', class: 'permanent', status };
}

/** The outcome of an object that others own and that is left alone. */
export function conflict(
  object: PlannedObject,
  reason: 'owner' | 'manager' | 'adoption_refused',
  message: string,
  { managers, fields }: Pick<Note, 'managers' | 'fields'>,
): Failure {
  const status = objectStatus(object, 'conflict', reason, message, {
    managers: managers.slice(0, MAX_NAMED),
    path: fields[0] ?? '',
  });
  return { kind: 'failed', class: 'policy', status };
}

/** An applied object as the event tells of it; undefined when there is nothing to tell. */
export function appliedStatus({ result, entry, notes }: Extract<Outcome, { kind: 'applied' }>): ObjectStatus | undefined {
  if (notes.length === 0) return result === 'adopted' ? objectStatus(entry, result, '', '') : undefined;
  const sorted = [...notes].sort((a, b) => ORDER.indexOf(a.reason) - ORDER.indexOf(b.reason));
  const managers = [...new Set(sorted.flatMap((note) => note.managers))].slice(0, MAX_NAMED);
  return objectStatus(entry, result, sorted[0]?.reason ?? '', sorted.map(noteText).join('; '), { managers });
}

/** The most important first: it is the reason of the status. */
const ORDER: readonly Note['reason'][] = ['replaced', 'immutable', 'handover', 'forced', 'taken_over', 'yielded'];

function noteText({ reason, managers, fields }: Note): string {
  switch (reason) {
    case 'replaced':
      return 'another object had taken its name';
    case 'immutable':
      return `created anew because ${named(fields)} cannot be changed`;
    case 'handover':
      return `handed over by ${named(managers)}, another stack of this agent`;
    case 'forced':
      return `${named(fields)} taken from ${named(managers)}`;
    case 'taken_over':
      return `all fields of ${named(managers)} were taken over`;
    case 'yielded':
      return `${named(fields)} left to ${named(managers)}`;
  }
}

/** Names for a message, not too many of them. */
export function named(names: readonly string[]): string {
  const more = names.length - MAX_NAMED;
  return `${names.slice(0, MAX_NAMED).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
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
