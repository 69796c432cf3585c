import { create } from '@bufbuild/protobuf';
import { keyString } from '#lib/object.ts';
import { ApplyOptionsSchema, DeletionPolicy, type ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import type { Engine } from './apply-engine.ts';
import { statusText } from './apply-report.ts';
import type { Inventory } from './inventory.ts';
import type { InventoryEntry } from './inventory-codec.ts';
import { pruneAll, type Removal } from './prune-run.ts';
import { type Attempt, beginAttempt, endAttempt, openAttempt } from './reconcile-attempt.ts';
import type { StackTombstone } from './target.ts';

/** How the removal of a stack ended. */
export type LeaveEnd =
  /** Nothing of the stack is left but the inventory head, which goes once the broker was told. */
  | { readonly kind: 'gone' }
  | { readonly kind: 'kept'; readonly message: string; readonly objects: readonly ObjectStatus[]; readonly retry: boolean }
  | { readonly kind: 'stopped' };

/** Guards that never open: the object is left behind so that the stack can leave. */
const FINAL: ReadonlySet<string> = new Set(['system_namespace', 'own_namespace', 'in_use']);

/**
 * Removes everything a stack has, as its deletion policy says, and its inventory but for the head. Call `Inventory.removeHead` when the
 * broker has been told. Rejects with the signal's reason or when the inventory cannot be stored.
 */
export async function leaveStack({ engine, inventory, tombstone, stop }: LeaveInput, signal: AbortSignal): Promise<LeaveEnd> {
  if (!inventory.stored && inventory.entries.size === 0) return { kind: 'gone' };
  if (engine.deletionsHeld() && inventory.entries.size > 0) {
    return {
      kind: 'kept',
      message: 'deletions are held until the history of the broker is confirmed',
      objects: [],
      retry: false,
    };
  }
  const { policy, generation } = tombstone;
  const { deploymentObjectId } = inventory.head;
  const attempt = await beginAttempt(engine, inventory, { type: 'PRUNE', generation, deploymentObjectId });
  inventory.head = { ...inventory.head, tombstone: { policy, generation }, attempt: openAttempt(attempt) };
  // Should the stack come back after a crash, nothing counts as applied that may be gone.
  for (const [key, entry] of inventory.entries) inventory.entries.set(key, { ...entry, digest: '', state: 'pending' });
  await inventory.save(signal);
  const removed = new Map<InventoryEntry, Removal>();
  const total = inventory.entries.size;
  await pruneAll(
    {
      engine,
      identity: inventory.identity,
      options: create(ApplyOptionsSchema),
      guards: {
        removals: [...inventory.entries.values()],
        total,
        approvedDeletes: 0,
        approved: tombstone.approved,
        ownNamespace: engine.namespace,
        appliedUids: new Set(),
        usesNamespace: (namespace) => engine.usesNamespace(namespace, tombstone.stackId),
      },
      mode: modeOf(policy),
      onRemoval(entry, removal) {
        removed.set(entry, removal);
        if (removal.kind !== 'kept' || FINAL.has(removal.status.reason)) inventory.entries.delete(keyString(entry));
      },
      stop,
    },
    signal,
  );
  if (stop.aborted && removed.size < total) return { kind: 'stopped' };
  return finish(engine, inventory, attempt, removed, signal);
}

/** What a removal works on. */
export interface LeaveInput {
  readonly engine: Engine;
  readonly inventory: Inventory;
  readonly tombstone: StackTombstone;
  readonly stop: AbortSignal;
}

async function finish(
  engine: Engine,
  inventory: Inventory,
  attempt: Attempt,
  removed: ReadonlyMap<InventoryEntry, Removal>,
  signal: AbortSignal,
): Promise<LeaveEnd> {
  const objects = [...removed.values()].flatMap((removal) => ('status' in removal ? [removal.status] : []));
  const counts: Record<string, number> = { deleted: 0 };
  for (const { kind } of removed.values()) {
    const name = kind === 'gone' ? 'deleted' : kind;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  const gone = inventory.entries.size === 0;
  const words = Object.entries(counts)
    .filter(([, number]) => number > 0)
    .map(([name, number]) => `${number} ${name}`);
  const [first] = objects;
  const message = `${words.join(', ') || 'nothing was left'}${gone || !first ? '' : `; ${statusText(first)}`}`;
  await endAttempt(engine, inventory, attempt, { eventType: 'PRUNE', success: gone, message, objects, counts });
  if (gone) {
    await inventory.removeShards(signal);
    return { kind: 'gone' };
  }
  await inventory.save(signal);
  const retry = [...removed.values()].some((removal) => removal.kind === 'kept' && removal.retry);
  return { kind: 'kept', message, objects, retry };
}

function modeOf(policy: DeletionPolicy): 'delete' | 'orphan' | 'wait' {
  switch (policy) {
    case DeletionPolicy.ORPHAN:
      return 'orphan';
    case DeletionPolicy.DELETE_AND_WAIT:
      return 'wait';
    case DeletionPolicy.UNSPECIFIED:
    case DeletionPolicy.DELETE:
      return 'delete';
  }
}
