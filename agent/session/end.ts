import { BrokkrError, errorText } from '#lib/errors.ts';
import { explainFailure, failureCode, ReachError, type ReachFailure, reachFailure } from '#lib/reach-failure.ts';
import { type GoAway, GoAwayReason } from '#proto/brokkr/v1/sync_pb.js';
import { CertificateError } from '../transport/endpoint.ts';
import { retryAfterMs } from '../transport/failure.ts';

/** How a session ended, for the supervisor to decide what comes next. `detail` is for people. */
export type SessionEnd =
  /** We closed it: replaced by another one, or the process stops. */
  | { readonly kind: 'closed' }
  /** Broken, cut, silent, or refused for now. `unanswered`: nothing came within the time for an answer. */
  | {
      readonly kind: 'lost';
      readonly heldMs: number;
      readonly welcomed: boolean;
      readonly unanswered: boolean;
      readonly retryAfterMs: number | undefined;
      /** See `failureCode`. */
      readonly code: string;
      readonly detail: string;
      /** What the network did, when it was that. */
      readonly failure?: ReachFailure | undefined;
    }
  /** Asked to come back within a window. */
  | { readonly kind: 'drained'; readonly heldMs: number; readonly minMs: number; readonly maxMs: number; readonly detail: string }
  /** A newer process of this agent has the session. */
  | { readonly kind: 'superseded'; readonly retryAfterMs: number | undefined; readonly detail: string }
  /** The agent may not act: stop writing and keep everything. */
  | { readonly kind: 'halted'; readonly reason: HaltReason; readonly retryAfterMs: number | undefined; readonly detail: string }
  /** The broker's certificate was not accepted. */
  | { readonly kind: 'untrusted'; readonly reason: string; readonly detail: string; readonly failure: ReachFailure }
  /** Trying again soon cannot help. */
  | { readonly kind: 'refused'; readonly retryAfterMs: number | undefined; readonly detail: string };

/** Why an agent may not act. */
export type HaltReason = 'inactive' | 'unauthorized' | 'deleted' | 'duplicate_identity';

/** How long a session lived and whether it was opened. */
export interface Lifetime {
  readonly heldMs: number;
  readonly welcomed: boolean;
  /** The time for the first answer ran out. */
  readonly unanswered: boolean;
}

/** The end that a failure means. */
export function endOfError(error: unknown, lifetime: Lifetime): SessionEnd {
  const wait = { retryAfterMs: retryAfterMs(error) };
  const detail = explanation(error, lifetime);
  if (error instanceof CertificateError) {
    return { kind: 'untrusted', reason: error.reason, detail, failure: reachFailure(error) ?? 'certificate' };
  }
  const failure = lifetime.unanswered ? 'timeout' : reachFailure(error);
  const code = failure ?? failureCode(error);
  const lost: SessionEnd = { kind: 'lost', ...lifetime, ...wait, code, detail, failure };
  if (!(error instanceof BrokkrError)) return lost;
  switch (error.code) {
    case 'superseded':
      return { kind: 'superseded', ...wait, detail };
    case 'agent_inactive':
      return { kind: 'halted', reason: 'inactive', ...wait, detail };
    case 'unauthorized':
    case 'agent_pak_required':
      return { kind: 'halted', reason: 'unauthorized', ...wait, detail };
    case 'agent_not_found':
      return { kind: 'halted', reason: 'deleted', ...wait, detail };
    case 'duplicate_identity':
      return { kind: 'halted', reason: 'duplicate_identity', ...wait, detail };
    case 'unsupported_version':
      return { kind: 'refused', ...wait, detail };
    default:
      return lost;
  }
}

/** What the broker says of a failure is enough; what the network says is explained. */
function explanation(error: unknown, { unanswered }: Lifetime): string {
  if (unanswered) return explainFailure(new ReachError('timeout', errorText(error)));
  const isOfTheNetwork = !(error instanceof CertificateError || (error instanceof BrokkrError && error.code !== 'unavailable'));
  return isOfTheNetwork ? explainFailure(error) : errorText(error);
}

/** The end that a GoAway means; for one that keeps the session until it is replaced, once it has ended without. */
export function endOfGoAway(goAway: GoAway, lifetime: Lifetime): SessionEnd {
  const { windowMinMs: minMs, windowMaxMs: maxMs, detail } = goAway;
  const wait = { retryAfterMs: minMs > 0 ? minMs : undefined };
  switch (goAway.reason) {
    case GoAwayReason.SUPERSEDED:
      return { kind: 'superseded', ...wait, detail: detail || 'a newer process of this agent has the session' };
    case GoAwayReason.REVOKED:
      return { kind: 'halted', reason: 'unauthorized', ...wait, detail: detail || 'the key was revoked' };
    case GoAwayReason.INACTIVE:
      return { kind: 'halted', reason: 'inactive', ...wait, detail: detail || 'the agent was set inactive' };
    case GoAwayReason.DELETED:
      return { kind: 'halted', reason: 'deleted', ...wait, detail: detail || 'the agent was deleted' };
    case GoAwayReason.DUPLICATE_IDENTITY:
      return { kind: 'halted', reason: 'duplicate_identity', ...wait, detail: detail || 'the key is in use on another cluster' };
    case GoAwayReason.PROTOCOL:
      return {
        kind: 'lost',
        ...lifetime,
        ...wait,
        code: 'protocol',
        detail: `the broker found a fault in what we sent: ${detail}`,
      };
    case GoAwayReason.UNSPECIFIED:
    case GoAwayReason.DRAINING:
    case GoAwayReason.AGE:
    case GoAwayReason.SLOW_CONSUMER:
      return {
        kind: 'drained',
        heldMs: lifetime.heldMs,
        minMs,
        maxMs,
        detail: detail || GoAwayReason[goAway.reason].toLowerCase().replaceAll('_', ' '),
      };
  }
}
