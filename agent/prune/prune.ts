import type { ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { objectStatus } from '../apply/report.ts';
import type { InventoryEntry } from '../inventory/codec.ts';

/** Why an object that should go is kept. */
export interface Guard {
  readonly reason: string;
  readonly message: string;
}

/** What the guards have to know that need not ask the server. */
export interface GuardInput {
  /** Objects to be removed. */
  readonly removals: readonly InventoryEntry[];
  /** Objects in the inventory, those to be removed included. */
  readonly total: number;
  /** Number of deletions the publisher approved. */
  readonly approvedDeletes: number;
  /** A user deleted the stack: the deletion is its own approval. */
  readonly approved: boolean;
  /** Namespace of the agent. */
  readonly ownNamespace: string;
  /** Why nothing at all may be deleted now. */
  readonly frozen: Guard | undefined;
  /** Whether another stack of this agent is to have the object: it will be moved, not deleted. */
  readonly isMoving: (entry: InventoryEntry) => boolean;
}

/** Removals after the guards that look at the inventory alone. */
export interface Judged {
  /** May go as far as the inventory tells. */
  readonly open: readonly InventoryEntry[];
  /** Of those, the ones that another stack takes over: they are never deleted. */
  readonly moving: ReadonlySet<InventoryEntry>;
  readonly kept: ReadonlyMap<InventoryEntry, Guard>;
}

/** Removals up to this number need no approval, whatever their share (APPLY §5.4). */
const FUSE_COUNT = 20;
/** Above that: this share of the stack. */
const FUSE_SHARE = 0.25;

/** Kinds that take data or other people's objects with them. */
const PRECIOUS: ReadonlySet<string> = new Set([
  '/Namespace',
  'apiextensions.k8s.io/CustomResourceDefinition',
  '/PersistentVolume',
  '/PersistentVolumeClaim',
  'apps/StatefulSet',
]);

const APPROVAL = 'approval';

const SYSTEM_NAMESPACE = /^(default|kube-.*)$/;

/** Judges every removal by what is known without asking the server. One whose deletion is under way is open: it is only looked at. */
export function judgeRemovals(input: GuardInput): Judged {
  const { removals, total, frozen, approvedDeletes, approved } = input;
  const moving = new Set(removals.filter((entry) => entry.state !== 'deleting' && input.isMoving(entry)));
  const deletions = removals.filter((entry) => entry.state !== 'deleting' && !moving.has(entry));
  const covered = approved || approvedDeletes >= deletions.length;
  const most = Math.max(FUSE_COUNT, Math.floor(total * FUSE_SHARE));
  const message = `${deletions.length} of ${total} objects would be deleted; more than ${most} need approve_deletes`;
  const fuse = !covered && deletions.length > most ? { reason: APPROVAL, message } : undefined;
  const kept = new Map<InventoryEntry, Guard>();
  for (const entry of frozen ? [...moving, ...deletions] : deletions) {
    const guard = frozen ?? fuse ?? guardOne(entry, covered, input.ownNamespace);
    if (guard) kept.set(entry, guard);
  }
  return { open: removals.filter((entry) => !kept.has(entry)), moving, kept };
}

function guardOne(entry: InventoryEntry, covered: boolean, ownNamespace: string): Guard | undefined {
  if (isNamespace(entry)) {
    if (SYSTEM_NAMESPACE.test(entry.name))
      return { reason: 'system_namespace', message: `namespace ${entry.name} is never deleted` };
    if (entry.name === ownNamespace) return { reason: 'own_namespace', message: 'the namespace of the agent is never deleted' };
  }
  if (!covered && PRECIOUS.has(`${entry.group}/${entry.kind}`)) {
    return { reason: APPROVAL, message: `deleting a ${entry.kind} needs approve_deletes` };
  }
  return undefined;
}

/** Whether an object is a namespace, with everything that is in it. */
export function isNamespace({ group, kind }: Pick<InventoryEntry, 'group' | 'kind'>): boolean {
  return group === '' && kind === 'Namespace';
}

/** Whether the object lives on under another name of its kind: then only the inventory forgets the old one. */
export function livesOn(entry: InventoryEntry, appliedUids: ReadonlySet<string>): boolean {
  return entry.uid !== '' && appliedUids.has(entry.uid);
}

/** A kept object for reports. */
export function keptStatus(entry: InventoryEntry, { reason, message }: Guard): ObjectStatus {
  return objectStatus(entry, 'kept', reason, message);
}

/** Number of objects that are kept until the publisher approves their deletion. */
export function awaitingApproval(objects: readonly ObjectStatus[]): number {
  return objects.filter(({ state, reason }) => state === 'kept' && reason === APPROVAL).length;
}
