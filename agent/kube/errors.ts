/** One cause of a refused request, as the server names it. Messages may quote field values: mind Secrets. */
export interface KubeCause {
  readonly reason: string;
  readonly message: string;
  readonly field: string;
}

/** What the server said the failure is about. */
export interface KubeSubject {
  readonly group: string;
  /** Kind or plural, as the server fills it. */
  readonly kind: string;
  readonly name: string;
}

/** An answer of the API server that is not a success. */
export class KubeError extends Error {
  override readonly name = 'KubeError';
  readonly status: number;
  /** `reason` of the Status object; empty when the server gave none. */
  readonly reason: string;
  readonly causes: readonly KubeCause[];
  readonly subject: KubeSubject | undefined;
  /** How long the server asks to wait (`Retry-After`), in milliseconds. */
  readonly retryAfterMs: number | undefined;

  constructor(
    status: number,
    message: string,
    rest: {
      readonly reason?: string;
      readonly causes?: readonly KubeCause[];
      readonly subject?: KubeSubject | undefined;
      readonly retryAfterMs?: number | undefined;
    } = {},
  ) {
    super(message);
    this.status = status;
    this.reason = rest.reason ?? '';
    this.causes = rest.causes ?? [];
    this.subject = rest.subject;
    this.retryAfterMs = rest.retryAfterMs;
  }
}

/**
 * What to do about a failure:
 * - `transient`: try again with backoff, honouring `retryAfterMs`
 * - `transient-slow`: an admission webhook is down: try again more slowly
 * - `race`: the object changed or appeared meanwhile: read and try again at once, a few times
 * - `policy`: another field manager owns a field of ours
 * - `permanent`: the same content will fail again
 * - `permission`: RBAC forbids it
 * - `denied`: an admission webhook, policy or quota refuses it
 * - `dependency`: kind or namespace is missing or terminating
 * - `size`: the object is larger than the server or etcd takes
 * - `credential`: the server does not know us
 * - `expired`: the resource version or continue token is too old
 */
export type ErrorClass =
  | 'transient'
  | 'transient-slow'
  | 'race'
  | 'policy'
  | 'permanent'
  | 'permission'
  | 'denied'
  | 'dependency'
  | 'size'
  | 'credential'
  | 'expired';

/**
 * The class of a failed request. Anything that is not an answer of the server (socket errors, deadlines) is `transient`;
 * ask the signal first whether the caller itself aborted. Some answers carry nothing but a message to tell them by.
 */
export function classify(error: unknown): ErrorClass {
  if (!(error instanceof KubeError)) {
    const tooLarge = error instanceof Error && 'code' in error && error.code === 'UND_ERR_RES_EXCEEDED_MAX_SIZE';
    return tooLarge ? 'size' : 'transient';
  }
  const { status, message } = error;
  if (/failed calling webhook|no endpoints available for service/.test(message)) return 'transient-slow';
  if (/denied the request|denied request:|exceeded quota|violates PodSecurity/.test(message)) return 'denied';
  if (
    status === 413 ||
    /request is too large|larger than max|must have at most \d+ bytes|[Tt]oo long: may not be more than/.test(message)
  )
    return 'size';
  switch (status) {
    case 401:
      return 'credential';
    case 403:
      return isTerminating(error) ? 'dependency' : 'permission';
    case 404:
      return 'dependency';
    case 409:
      return error.causes.some(({ reason }) => reason === 'FieldManagerConflict') ? 'policy' : 'race';
    case 410:
      return 'expired';
    case 408:
    case 429:
      return 'transient';
    case 500:
      // An unknown field in a server-side apply, whatever fieldValidation says (measured up to 1.36.3).
      return /^failed to create typed patch object/.test(message) || isConversion(error) ? 'permanent' : 'transient';
    default:
      return status >= 500 ? 'transient' : 'permanent';
  }
}

/**
 * Whether the server failed to convert an object between versions of its API while it worked out who owns what: an entry of
 * `managedFields` is of a version whose schema lacks a field of the object (measured on 1.36.3).
 */
export function isConversion({ status, message }: KubeError): boolean {
  return status === 500 && /^failed to (convert|prune fields)/.test(message);
}

/** What a 404 says is missing: the object itself, the namespace it should be in, or the kind (or its group). */
export function missing(error: unknown, plural: string): 'object' | 'namespace' | 'kind' | undefined {
  if (!(error instanceof KubeError) || error.status !== 404) return undefined;
  if (error.reason !== 'NotFound' || !error.subject?.name) return 'kind';
  return error.subject.kind === 'namespaces' && plural !== 'namespaces' ? 'namespace' : 'object';
}

/** Whether an object was refused because its namespace is being deleted. */
export function isTerminating(error: unknown): boolean {
  return error instanceof KubeError && error.causes.some(({ reason }) => reason === 'NamespaceTerminating');
}

/** Name of the admission webhook that refused the request or could not be called. */
export function webhookName(error: KubeError): string | undefined {
  return /(?:admission|calling) webhook "([^"]+)"/.exec(error.message)?.[1];
}

/** Field managers that own what a refused apply wanted, with the fields, from the causes of a 409. */
export function conflicts(error: KubeError): readonly { readonly manager: string; readonly field: string }[] {
  return error.causes
    .filter(({ reason }) => reason === 'FieldManagerConflict')
    .map(({ message, field }) => ({ manager: /^conflict with "(.*?)"/.exec(message)?.[1] ?? '', field }));
}

/** The error of an answer: reads the Status object, or takes the text as it is (aggregated servers, proxies). */
export function kubeError(status: number, body: string, retryAfter: string | undefined): KubeError {
  const retryAfterMs = /^\d+$/.test(retryAfter ?? '') ? Number(retryAfter) * 1000 : undefined; // the server never sends a date
  const parsed = parseStatus(body);
  if (!parsed) return new KubeError(status, body.slice(0, 1024).trim() || `HTTP ${status}`, { retryAfterMs });
  return statusError(parsed, status, retryAfterMs);
}

/** A Status object of the API (meta/v1), as far as it is read here. */
export interface KubeStatus {
  readonly code?: number;
  readonly reason?: string;
  readonly message?: string;
  readonly details?: {
    readonly group?: string;
    readonly kind?: string;
    readonly name?: string;
    readonly retryAfterSeconds?: number;
    readonly causes?: readonly { readonly reason?: string; readonly message?: string; readonly field?: string }[];
  };
}

/** The error a Status object describes; `status` stands in for a missing code. */
export function statusError(status: KubeStatus, code: number, retryAfterMs?: number): KubeError {
  const { details } = status;
  const seconds = details?.retryAfterSeconds;
  return new KubeError(status.code ?? code, status.message ?? `HTTP ${code}`, {
    reason: status.reason ?? '',
    causes: (details?.causes ?? []).map(({ reason = '', message = '', field = '' }) => ({ reason, message, field })),
    subject: details && { group: details.group ?? '', kind: details.kind ?? '', name: details.name ?? '' },
    retryAfterMs: retryAfterMs ?? (seconds ? seconds * 1000 : undefined),
  });
}

/** Whether an answer says that the server, or the store behind it, is in trouble: not this request alone. */
export function isTrouble(status: number, body: string): boolean {
  return status >= 500 && classify(kubeError(status, body, undefined)) === 'transient';
}

/** Whether the server closed an idle connection while we were writing to it: nothing of this request was handled or answered. */
export function isReusedSocketReset(error: unknown): boolean {
  if (!(error instanceof Error) || !('code' in error)) return false;
  if (error.code === 'ECONNRESET' || error.code === 'EPIPE') return true;
  if (error.code !== 'UND_ERR_SOCKET') return false;
  const socket = 'socket' in error ? (error.socket as { readonly bytesRead?: number } | null) : null;
  return (socket?.bytesRead ?? 0) > 0;
}

function parseStatus(body: string): KubeStatus | undefined {
  try {
    const value = JSON.parse(body);
    return value?.kind === 'Status' ? value : undefined;
  } catch {
    return undefined; // plain text of a proxy or an aggregated server
  }
}
