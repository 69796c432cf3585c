import type { ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { managerKind } from './apply/field-managers.ts';
import type { ApplyResult, Outcome } from './apply/run.ts';
import type { ErrorClass } from './kube/errors.ts';
import type { KubeDeps } from './kube/kube.ts';
import type { AgentMetrics } from './metrics.ts';
import type { Removal } from './prune/run.ts';
import type { SupervisorDeps } from './session/supervisor.ts';

/** How the apply of an object ended, for counting. */
export type ApplyVerdict = ApplyResult | 'conflict' | 'rejected' | 'error';

/** Told by the engine what happens, for metrics. Calls are cheap and never throw. */
export interface EngineObserver {
  /** An object was applied or could not be, after so many seconds. What was not sent is not told. */
  applied(kind: string, verdict: ApplyVerdict, seconds: number): void;
  /** A call is made again. */
  retried(kind: ErrorClass): void;
  /** An object was found changed or deleted by others, and put back or left so. */
  drifted(object: ObjectStatus, isCorrected: boolean): void;
  /** An object is changed back after each correction: a fight begins. */
  fought(object: ObjectStatus): void;
  /** What became of an object that should go; `guard` is what holds it, '' when nothing does. */
  removed(result: Removal['kind'], guard: string): void;
  /** A stack left a phase of its work after so many seconds. */
  phaseEnded(phase: string, seconds: number): void;
  /** A generation is applied as a whole, so many seconds after it was published (by the clocks of broker and agent). */
  synced(lagSeconds: number): void;
}

/** Values of one label at most: kinds come from users. Those beyond are counted as `other`. */
const MAX_VALUES = 100;

/** Counts what the engine tells. */
export function engineObserver(metrics: AgentMetrics): EngineObserver {
  const kinds = bounded();
  return {
    applied(kind, verdict, seconds) {
      metrics.applies.inc({ kind: kinds(kind), result: verdict });
      metrics.applySeconds.observe(seconds);
    },
    retried: (kind) => metrics.retries.inc({ class: kind }),
    drifted({ kind, managers: [manager] }, isCorrected) {
      const by = manager === undefined ? 'unknown' : managerKind({ manager }, '');
      metrics.driftDetected.inc({ kind: kinds(kind), manager: by });
      if (isCorrected) metrics.driftCorrected.inc({ kind: kinds(kind) });
    },
    fought: ({ kind }) => metrics.fights.inc({ kind: kinds(kind) }),
    removed: (result, guard) => metrics.removals.inc({ result, guard }),
    phaseEnded: (phase, seconds) => metrics.phaseSeconds.observe({ phase }, seconds),
    synced: (lagSeconds) => metrics.syncLag.observe(Math.max(0, lagSeconds)),
  };
}

/** Counts what becomes of sessions with the broker. */
export function linkObserver(metrics: AgentMetrics): NonNullable<SupervisorDeps['observe']> {
  return {
    ended(tier, end) {
      metrics.sessionEnds.inc({ tier, kind: end.kind });
      if ('failure' in end && end.failure) metrics.connectionFailures.inc({ to: 'broker', kind: end.failure });
      if ('heldMs' in end && end.heldMs > 0) metrics.sessionSeconds.observe({ tier }, end.heldMs / 1000);
    },
    moved: (to) => metrics.tierChanges.inc({ to }),
  };
}

/** Counts what the client of the API server tells. */
export function kubeObserver(metrics: AgentMetrics): NonNullable<KubeDeps['observe']> {
  const resources = bounded();
  return {
    request(operation, code, seconds, failure) {
      if (failure) metrics.connectionFailures.inc({ to: 'api_server', kind: failure });
      metrics.kubernetesRequests.inc({ operation, code });
      metrics.kubernetesSeconds.observe({ operation }, seconds);
    },
    reflector: {
      restarted: (resource, reason) => metrics.watchRestarts.inc({ resource: resources(resource), reason }),
      listed: (resource) => metrics.watchLists.inc({ resource: resources(resource) }),
    },
    down: () => metrics.circuitOpened.inc(),
  };
}

/** The verdict on an outcome; undefined for an object that was not sent. */
export function verdictOf(outcome: Outcome): ApplyVerdict | undefined {
  switch (outcome.kind) {
    case 'applied':
      return outcome.result;
    case 'skipped':
      return undefined;
    case 'failed':
      if (outcome.class === 'policy') return 'conflict';
      return REJECTING.has(outcome.class) ? 'rejected' : 'error';
  }
}

const REJECTING: ReadonlySet<ErrorClass> = new Set(['permanent', 'denied', 'permission', 'size']);

function bounded(): (value: string) => string {
  const known = new Set<string>();
  return (value) => {
    if (known.size < MAX_VALUES) known.add(value);
    return known.has(value) ? value : 'other';
  };
}
