import { randomBytes } from 'node:crypto';

/** A trace that a caller of ours has begun. */
export interface CallersTrace {
  readonly traceId: string;
  /** The caller's span. */
  readonly spanId: string;
  /** What it sends along. */
  readonly headers: { readonly traceparent: string };
}

/** Begins one. */
export function beginTrace({ sampled = true }: { readonly sampled?: boolean } = {}): CallersTrace {
  const [traceId, spanId] = [randomBytes(16).toString('hex'), randomBytes(8).toString('hex')];
  return { traceId, spanId, headers: { traceparent: `00-${traceId}-${spanId}-0${sampled ? 1 : 0}` } };
}
