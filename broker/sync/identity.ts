import { BrokkrError } from '#lib/errors.ts';
import type { Hello } from '#proto/brokkr/v1/sync_pb.js';
import type { SessionRow } from './store.ts';

/** Whether a process may have the agent's session. */
export type IdentityVerdict =
  | { readonly kind: 'accepted'; readonly superseded: readonly string[] }
  | { readonly kind: 'refused'; readonly error: BrokkrError; readonly audit: boolean };

/** How long after its last sign of life a cluster still owns the identity. */
const CLUSTER_HOLD_MS = 10 * 60_000;
/** A live session that was silent for this long no longer keeps a superseded process out. */
const SUCCESSOR_HOLD_MS = 90_000;
/** Superseded processes remembered for each agent. */
const MAX_SUPERSEDED = 16;

/**
 * Decides by the agent's last session. Another cluster is refused while the first lives or was seen within ten minutes.
 * On the same cluster the newer process takes over once; the one it superseded stays out as long as its successor
 * lives, so that two processes cannot flap.
 */
export function assertIdentity(last: SessionRow | undefined, hello: Hello): IdentityVerdict {
  if (!last) return { kind: 'accepted', superseded: [] };
  const idleMs = last.idle_ms ?? Number.POSITIVE_INFINITY;
  if (last.cluster_uid !== hello.clusterUid && idleMs < CLUSTER_HOLD_MS && last.process_id !== hello.processId) {
    const error = new BrokkrError(
      'duplicate_identity',
      'this key is in use on another cluster: give each cluster an agent of its own',
      {
        details: { retry_after_ms: 300_000 },
      },
    );
    return { kind: 'refused', error, audit: true };
  }
  if (last.process_id === hello.processId) return { kind: 'accepted', superseded: last.superseded };
  if (last.superseded.includes(hello.processId) && last.live && idleMs < SUCCESSOR_HOLD_MS) {
    const error = new BrokkrError('superseded', 'a newer process of this agent has the session', {
      details: { retry_after_ms: 60_000 },
    });
    return { kind: 'refused', error, audit: false };
  }
  const superseded = last.superseded.filter((id) => id !== hello.processId);
  if (last.process_id !== null) superseded.push(last.process_id);
  return { kind: 'accepted', superseded: superseded.slice(-MAX_SUPERSEDED) };
}
