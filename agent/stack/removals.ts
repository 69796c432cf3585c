import { keyString } from '#lib/object.ts';
import { type ObjectStatus, PruneMode } from '#proto/brokkr/v1/content_pb.js';
import type { Outcomes } from '../apply/apply.ts';
import type { Plan, PlannedObject } from '../apply/plan.ts';
import { objectStatus } from '../apply/report.ts';
import type { Engine } from '../engine.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { type Guard, type Judged, judgeRemovals } from '../prune/prune.ts';
import { pruneAll, type Removal } from '../prune/run.ts';
import { findTerminating, terminatingStatus } from '../prune/terminating.ts';
import type { StackTarget } from './target.ts';

/** What a prune belongs to. */
export interface PruneInput {
  readonly engine: Engine;
  readonly inventory: Inventory;
  readonly target: StackTarget;
  /** The target takes the place of one that cut the agent off: what that one added goes whatever is held or needs approval. */
  readonly restores: boolean;
  readonly stop: AbortSignal;
}

/** What the guards say of everything that left the stack, by what the inventory tells. */
export function judgePlan({ engine, inventory, target, restores }: PruneInput, plan: Plan): Judged {
  const common = {
    total: inventory.entries.size + plan.changes.filter((object) => !inventory.entries.has(keyString(object))).length,
    approvedDeletes: target.options.approveDeletes,
    ownNamespace: engine.namespace,
    isMoving: (entry: InventoryEntry) => engine.claimedBy(entry, target.stackId) !== undefined,
  };
  const isAdded = ({ state }: InventoryEntry) => restores && state !== 'kept'; // what was kept is older
  const older = plan.removals.filter((entry) => !isAdded(entry));
  const judged = judgeRemovals({ ...common, removals: older, approved: false, frozen: frozenBy(engine, inventory, target) });
  if (!restores) return judged;
  const added = judgeRemovals({ ...common, removals: plan.removals.filter(isAdded), approved: true, frozen: undefined });
  return {
    open: [...added.open, ...judged.open],
    moving: added.moving.union(judged.moving),
    kept: new Map([...added.kept, ...judged.kept]),
  };
}

/** Why nothing may be deleted now, whatever it is. Ends with the first complete apply, but for held deletions. */
function frozenBy(engine: Engine, { head }: Inventory, target: StackTarget): Guard | undefined {
  if (engine.deletionsHeld())
    return { reason: 'held', message: 'deletions are held until the history of the broker is confirmed' };
  if (head.partial)
    return { reason: 'inventory_lost', message: 'the inventory was lost: nothing is deleted before it is rebuilt by label' };
  if (head.origin !== engine.origin(target.incarnation))
    return {
      reason: 'first_sync',
      message: 'nothing is deleted before one complete apply after a new key, another broker or a lost inventory',
    };
  return undefined;
}

/** Removes what may go. What is not in `removed` when it resolves was not looked at. */
export async function pruneRemovals(
  input: PruneInput,
  judged: Judged,
  outcomes: Outcomes,
  removed: Map<InventoryEntry, Removal>,
  signal: AbortSignal,
): Promise<void> {
  const { inventory, target, restores, stop } = input;
  const engine = restores ? { ...input.engine, deletionsHeld: () => false } : input.engine;
  const names = new Set(failures(outcomes).map(sameName));
  const open = judged.open.filter((entry) => {
    if (!names.has(sameName(entry))) return true;
    const message = 'an object of this kind and name in another API group could not be applied; both may be the same object';
    removed.set(entry, { kind: 'kept', status: objectStatus(entry, 'kept', 'group_move', message), retry: true });
    return false;
  });
  const applied = [...outcomes.values()].flatMap((outcome) => (outcome.kind === 'applied' ? [outcome.entry.uid] : []));
  const onRemoval = (entry: InventoryEntry, removal: Removal) => {
    removed.set(entry, removal);
    forget(inventory, entry, removal);
  };
  const run = {
    ...{ engine, stop, onRemoval, mode: 'delete' as const },
    ...inventoryView(engine, inventory, target.stackId),
    removals: { open, moving: judged.moving },
    serviceAccount: target.options.impersonate,
    appliedUids: new Set(applied),
  };
  await pruneAll(run, signal);
}

/** Whether removals wait: something that stays could not be applied, and the options do not say to go on all the same. */
export function prunesNow({ target, restores }: PruneInput, outcomes: Outcomes): boolean {
  const kinds = new Set([...outcomes.values()].map(({ kind }) => kind));
  if (kinds.has('skipped')) return false;
  return !kinds.has('failed') || restores || target.options.prune === PruneMode.BEST_EFFORT;
}

/** What a prune asks an inventory for. */
export function inventoryView(engine: Engine, inventory: Inventory, stackId: string) {
  const stays = (namespace: string) =>
    [...inventory.entries.values()].some(
      (entry) => entry.namespaced && entry.namespace === namespace && entry.state !== 'deleting',
    );
  return {
    stackId,
    identity: inventory.identity,
    usesNamespace: (namespace: string) => stays(namespace) || engine.usesNamespace(namespace, stackId),
    ownUids: () => new Set([...inventory.entries.values()].map(({ uid }) => uid)),
  };
}

/** Takes what became of an object over into the inventory. */
export function forget({ entries }: Inventory, entry: InventoryEntry, removal: Removal): void {
  if (removal.kind === 'terminating') entries.set(keyString(entry), removal.entry);
  else if (removal.kind !== 'kept') entries.delete(keyString(entry));
}

/** Objects that are wanted again while their deletion is not over, by key: they are created once it is. */
export async function stillTerminating(
  { engine, inventory }: PruneInput,
  objects: readonly PlannedObject[],
  signal: AbortSignal,
): Promise<Map<string, ObjectStatus>> {
  const waiting = new Map<string, ObjectStatus>();
  for (const object of objects) {
    const key = keyString(object);
    const entry = inventory.entries.get(key);
    if (entry?.state !== 'deleting') continue;
    if (await findTerminating(engine, entry, signal)) waiting.set(key, terminatingStatus(entry));
    else inventory.entries.delete(key);
  }
  return waiting;
}

function failures(outcomes: Outcomes): readonly ObjectStatus[] {
  return [...outcomes.values()].flatMap((outcome) => (outcome.kind === 'failed' ? [outcome.status] : []));
}

/** Kind and name without the group: what an object keeps when it moves to another API group. */
function sameName({ kind, namespace, name }: Pick<InventoryEntry, 'kind' | 'namespace' | 'name'>): string {
  return `${kind}/${namespace}/${name}`;
}
