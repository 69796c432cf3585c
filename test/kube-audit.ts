import { randomUUID } from 'node:crypto';
import { open } from 'node:fs/promises';
import type { KubeClient } from '../hack/kube/request.ts';
import { systemClock } from '../lib/clock.ts';

/** One request as the API server recorded it (audit.k8s.io/v1 at level Metadata). */
export interface AuditEvent {
  readonly auditID: string;
  readonly stage: 'ResponseStarted' | 'ResponseComplete' | 'Panic';
  readonly verb: string;
  readonly requestURI: string;
  readonly user: { readonly username: string; readonly groups?: readonly string[] };
  readonly userAgent?: string;
  readonly objectRef?: {
    readonly resource: string;
    readonly namespace?: string;
    readonly name?: string;
    readonly apiGroup?: string;
    readonly subresource?: string;
  };
  readonly responseStatus?: { readonly code: number };
  readonly requestReceivedTimestamp: string;
  /** When this stage was reached: for ResponseComplete the end of the answer. */
  readonly stageTimestamp: string;
}

/** All conditions given must hold. */
export interface AuditFilter {
  /** `user.username`, for instance of an identity. */
  readonly user?: string;
  readonly verbs?: readonly string[];
  /** Plural, as in `objectRef.resource`. */
  readonly resource?: string;
  readonly namespace?: string;
  /** True: only requests with `dryRun=All`; false: only those without. */
  readonly dryRun?: boolean;
  /** Only what came after `auditMark()` returned this. */
  readonly since?: number;
}

/** Reads the audit log of an API server, up to and including every request that was answered before the call. */
export function createAuditLog(path: string, request: KubeClient) {
  return {
    /** A place in the log: every request answered before the call lies before it. */
    async mark(signal: AbortSignal): Promise<number> {
      return (await flush(path, request, signal)).size;
    },
    /** Requests that match, one event a request (a watch only once), in the order of the log. */
    async events({ since = 0, ...filter }: AuditFilter, signal: AbortSignal): Promise<AuditEvent[]> {
      const { text } = await flush(path, request, signal, since);
      const byId = new Map<string, AuditEvent>();
      for (const line of text.split('\n')) {
        if (line === '' || line.includes(markerPath)) continue;
        const event = JSON.parse(line) as AuditEvent;
        if (matches(event, filter)) byId.set(event.auditID, event); // the last stage wins, at the place of the first
      }
      return [...byId.values()];
    },
  };
}

const markerPath = '/version?brokkr-audit-mark=';

/** Whether a request is a watch, or the list that a watch begins with (`Reflector`). */
export function isWatching({ verb, requestURI }: AuditEvent): boolean {
  return verb === 'watch' || /[?&]resourceVersion=0(&|$)|[?&]resourceVersionMatch=NotOlderThan/.test(requestURI);
}

/** Sends a request of our own and waits until the log holds it, with all that went before. */
async function flush(path: string, request: KubeClient, signal: AbortSignal, from = 0) {
  const marker = `${markerPath}${randomUUID()}`;
  await request({ method: 'GET', path: marker }, signal);
  for (;;) {
    const text = await readFrom(path, from);
    const at = text.lastIndexOf(marker);
    const end = at < 0 ? -1 : text.indexOf('\n', at);
    if (end >= 0) return { text: text.slice(0, end + 1), size: from + Buffer.byteLength(text.slice(0, end + 1)) };
    await systemClock.sleep(20, signal);
  }
}

async function readFrom(path: string, from: number): Promise<string> {
  await using file = await open(path, 'r');
  const { size } = await file.stat();
  const buffer = Buffer.alloc(Math.max(0, size - from));
  const { bytesRead } = await file.read(buffer, 0, buffer.length, from);
  return buffer.toString('utf8', 0, bytesRead);
}

function matches(event: AuditEvent, { user, verbs, resource, namespace, dryRun }: Omit<AuditFilter, 'since'>): boolean {
  return (
    (user === undefined || event.user.username === user) &&
    (verbs === undefined || verbs.includes(event.verb)) &&
    (resource === undefined || event.objectRef?.resource === resource) &&
    (namespace === undefined || event.objectRef?.namespace === namespace) &&
    (dryRun === undefined || event.requestURI.includes('dryRun=All') === dryRun)
  );
}
