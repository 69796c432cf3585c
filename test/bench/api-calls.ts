import { type AuditEvent, createAuditLog } from '../kube-audit.ts';
import type { MeasuredControlPlane } from './cluster.ts';

/** What a request was for, as far as the budgets tell requests apart. */
export type CallKind =
  | 'dry-run'
  | 'apply'
  | 'inventory write'
  | 'lease'
  | 'other write'
  | 'get'
  | 'list'
  | 'watch'
  /** Neither object nor kind: discovery, schemas, version, readiness. */
  | 'discovery';

/** What one client asked of the API server. */
export interface Calls {
  readonly counts: ReadonlyMap<CallKind, number>;
  readonly total: number;
  /** Answered with 429. */
  readonly throttled: number;
  /** When the last LIST was answered, in milliseconds since the epoch; 0 without any. */
  readonly lastListAtMs: number;
}

/** Counts requests by the audit log, which the server writes in batches: a question may wait seconds for its answer. */
export function createCallCounter({ controlPlane }: MeasuredControlPlane) {
  const log = createAuditLog(controlPlane.auditLogPath, controlPlane.request);
  const bound = () => AbortSignal.timeout(60_000);
  return {
    /** A moment: what was answered before does not count after it. */
    mark: () => log.mark(bound()),
    /** What clients whose user agent begins so asked since the mark. */
    async since(mark: number, userAgent: string): Promise<Calls> {
      const events = await log.events({ since: mark }, bound());
      return summary(events.filter((event) => event.userAgent?.startsWith(userAgent)));
    },
  };
}

/** What `createCallCounter` returns. */
export type CallCounter = ReturnType<typeof createCallCounter>;

/** The sum over some kinds of call. */
export function countOf({ counts }: Calls, ...kinds: readonly CallKind[]): number {
  return kinds.reduce((sum, kind) => sum + (counts.get(kind) ?? 0), 0);
}

/** `3 apply, 1 list`. */
export function callsText({ counts }: Calls): string {
  return [...counts].map(([kind, count]) => `${count} ${kind}`).join(', ') || 'none';
}

function summary(events: readonly AuditEvent[]): Calls {
  const counts = new Map<CallKind, number>();
  for (const event of events) {
    const kind = kindOf(event);
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  const lists = events.filter((event) => kindOf(event) === 'list').map(({ stageTimestamp }) => Date.parse(stageTimestamp));
  return {
    counts,
    total: events.length,
    throttled: events.filter(({ responseStatus }) => responseStatus?.code === 429).length,
    lastListAtMs: Math.max(0, ...lists),
  };
}

function kindOf({ verb, objectRef, requestURI }: AuditEvent): CallKind {
  if (!objectRef) return 'discovery';
  if (objectRef.resource === 'leases') return 'lease';
  if (verb === 'get' || verb === 'list' || verb === 'watch') return verb;
  if (requestURI.includes('dryRun=All')) return 'dry-run';
  if (objectRef.resource === 'configmaps' && objectRef.name?.startsWith('brokkr-inv-')) return 'inventory write';
  return verb === 'patch' ? 'apply' : 'other write';
}
