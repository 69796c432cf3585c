import { keyString } from '#lib/object.ts';
import { inSpanOf } from '#lib/tracing.ts';
import { DeletionPolicy, type ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { statusText } from '../apply/report.ts';
import type { Engine } from '../engine.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { rebuildInventory } from '../inventory/rebuild.ts';
import { type Judged, judgeRemovals, keptStatus } from '../prune/prune.ts';
import { isNews, pruneAll, type Removal, type RemoveAgain, removeAgain, tellRemovals } from '../prune/run.ts';
import { stackAttributes } from '../spans.ts';
import { type Attempt, beginAttempt, endAttempt, openAttempt } from './attempt.ts';
import { forget, inventoryView } from './removals.ts';
import type { StackTombstone } from './target.ts';

/** How the removal of a stack ended. */
export type LeaveEnd =
  /** Nothing of the stack is left but the inventory head, which goes once the broker was told. */
  | { readonly kind: 'gone' }
  /** Every deletion was accepted; finalizers hold some of the objects, which the policy says to wait for. */
  | { readonly kind: 'waiting'; readonly message: string }
  | { readonly kind: 'kept'; readonly message: string; readonly objects: readonly ObjectStatus[]; readonly again: RemoveAgain }
  | { readonly kind: 'stopped' };

/** Guards that never open: the object is left behind so that the stack can leave. */
const FINAL: ReadonlySet<string> = new Set(['system_namespace', 'own_namespace', 'in_use']);

/** What a removal works on. */
export interface LeaveInput {
  readonly engine: Engine;
  readonly inventory: Inventory;
  readonly tombstone: StackTombstone;
  readonly stop: AbortSignal;
}

/**
 * Removes everything a stack has, as its deletion policy says, and its inventory but for the head. Call `Inventory.removeHead` when the
 * broker has been told. Rejects with the signal's reason or when the inventory cannot be stored.
 */
export async function leaveStack(input: LeaveInput, signal: AbortSignal): Promise<LeaveEnd> {
  const { tombstone } = input;
  const span = { name: 'remove stack', attributes: stackAttributes(tombstone) };
  return await inSpanOf(tombstone.traceparent, span, () => removeAll(input, signal));
}

async function removeAll(input: LeaveInput, signal: AbortSignal): Promise<LeaveEnd> {
  const { engine, inventory, tombstone, stop } = input;
  if (inventory.head.partial) {
    const problem = await rebuildInventory(engine, inventory, stop, signal);
    if (stop.aborted) return { kind: 'stopped' };
    if (problem !== undefined) return kept(`what the stack has cannot be found out: ${problem}`, 'later');
  }
  if (!inventory.stored && inventory.entries.size === 0) return { kind: 'gone' };
  if (engine.deletionsHeld() && inventory.entries.size > 0) {
    return kept('deletions are held until the history of the broker is confirmed', undefined);
  }
  const { policy, generation, traceparent } = tombstone;
  const { deploymentObjectId } = inventory.head;
  const attempt = await beginAttempt(engine, inventory, { type: 'PRUNE', generation, deploymentObjectId, traceparent });
  inventory.head = { ...inventory.head, tombstone: { policy, generation }, attempt: openAttempt(attempt) };
  const judged = judge(input);
  const total = inventory.entries.size;
  const removed = new Map<InventoryEntry, Removal>();
  const onRemoval = (entry: InventoryEntry, removal: Removal) => {
    removed.set(entry, removal);
    const isFinal = removal.kind === 'kept' && FINAL.has(removal.status.reason);
    // Without being told to wait, the stack leaves as soon as its deletions are accepted: nothing can take them back.
    const isOver = removal.kind === 'terminating' && policy !== DeletionPolicy.DELETE_AND_WAIT;
    if (isFinal || isOver) inventory.entries.delete(keyString(entry));
    else forget(inventory, entry, removal);
  };
  for (const [entry, guard] of judged.kept) onRemoval(entry, { kind: 'kept', status: keptStatus(entry, guard), retry: false });
  // Should the stack come back after a crash, nothing counts as applied that may be gone.
  for (const [key, entry] of inventory.entries) {
    if (entry.state !== 'deleting') inventory.entries.set(key, { ...entry, digest: '', state: 'pending' });
  }
  await inventory.save(signal);
  const run = {
    ...{ engine, stop, onRemoval, removals: judged, appliedUids: new Set<string>() },
    ...inventoryView(engine, inventory, tombstone.stackId),
    serviceAccount: inventory.head.impersonate,
    mode: policy === DeletionPolicy.ORPHAN ? ('orphan' as const) : ('delete' as const),
  };
  await pruneAll(run, signal);
  if (stop.aborted && removed.size < total) return { kind: 'stopped' };
  return finish(input, attempt, removed, signal);
}

/** The guards of a withdrawal. What is only to be left as it is needs none. */
function judge({ engine, inventory, tombstone }: LeaveInput): Judged {
  const removals = [...inventory.entries.values()];
  const isMoving = (entry: InventoryEntry) => engine.claimedBy(entry, tombstone.stackId) !== undefined;
  if (tombstone.policy === DeletionPolicy.ORPHAN) {
    return { open: removals, moving: new Set(removals.filter(isMoving)), kept: new Map() };
  }
  return judgeRemovals({
    ...{ removals, isMoving, total: removals.length, approvedDeletes: 0, approved: tombstone.approved },
    ...{ ownNamespace: engine.namespace, frozen: undefined },
  });
}

async function finish(
  { engine, inventory }: LeaveInput,
  attempt: Attempt,
  removed: ReadonlyMap<InventoryEntry, Removal>,
  signal: AbortSignal,
): Promise<LeaveEnd> {
  const objects = [...removed.values()].flatMap((removal) => ('status' in removal && removal.status ? [removal.status] : []));
  tellRemovals(engine, removed);
  const counts: Record<string, number> = { deleted: 0 };
  for (const { kind } of removed.values()) {
    const name = kind === 'gone' ? 'deleted' : kind;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  const left = [...inventory.entries.values()];
  const gone = left.length === 0;
  const words = Object.entries(counts)
    .filter(([, number]) => number > 0)
    .map(([name, number]) => `${number} ${name}`);
  const [first] = objects;
  const message = `${words.join(', ') || 'nothing was left'}${gone || !first ? '' : `; ${statusText(first)}`}`;
  const news = gone || [...removed].some(([entry, removal]) => removal.kind === 'kept' || isNews(entry, removal));
  if (news) await endAttempt(engine, inventory, attempt, { eventType: 'PRUNE', success: gone, message, objects, counts });
  if (gone) {
    await inventory.removeShards(signal);
    return { kind: 'gone' };
  }
  await inventory.save(signal);
  if (left.every(({ state }) => state === 'deleting')) return { kind: 'waiting', message };
  return { kind: 'kept', message, objects, again: removeAgain(removed.values()) };
}

function kept(message: string, again: RemoveAgain): LeaveEnd {
  return { kind: 'kept', message, objects: [], again };
}
