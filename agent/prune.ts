import { keyString } from '#lib/object.ts';
import type { ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { objectStatus } from './apply-report.ts';
import type { InventoryEntry } from './inventory-codec.ts';

/** Why an object that should go is kept, or undefined when nothing speaks against its removal as far as the inventory tells. */
export type Guard = { readonly reason: string; readonly message: string } | undefined;

/** What the guards have to know. */
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
  /** UIDs applied in this sync: an object that moved to another API group or version must not be deleted under its old name. */
  readonly appliedUids: ReadonlySet<string>;
  /** Namespaces in which objects stay, of this stack or another one. */
  readonly usesNamespace: (namespace: string) => boolean;
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

const SYSTEM_NAMESPACE = /^(default|kube-.*)$/;

/** Judges every removal by what is known without asking the server. Result by `keyString`; only kept objects are in it. */
export function guardRemovals(input: GuardInput): Map<string, NonNullable<Guard>> {
  const { removals, total, approvedDeletes, approved } = input;
  const covered = approved || approvedDeletes >= removals.length;
  const most = Math.max(FUSE_COUNT, Math.floor(total * FUSE_SHARE));
  const mass: Guard =
    !covered && removals.length > most
      ? {
          reason: 'approval',
          message: `${removals.length} of ${total} objects would be deleted; more than ${most} need approve_deletes`,
        }
      : undefined;
  const kept = new Map<string, NonNullable<Guard>>();
  for (const entry of removals) {
    const guard = mass ?? guardOne(entry, covered, input);
    if (guard) kept.set(keyString(entry), guard);
  }
  return kept;
}

function guardOne(entry: InventoryEntry, covered: boolean, input: GuardInput): Guard {
  if (entry.group === '' && entry.kind === 'Namespace') {
    if (SYSTEM_NAMESPACE.test(entry.name))
      return { reason: 'system_namespace', message: `namespace ${entry.name} is never deleted` };
    if (entry.name === input.ownNamespace)
      return { reason: 'own_namespace', message: 'the namespace of the agent is never deleted' };
    if (input.usesNamespace(entry.name)) return { reason: 'in_use', message: 'objects that stay are in the namespace' };
  }
  if (!covered && PRECIOUS.has(`${entry.group}/${entry.kind}`)) {
    return { reason: 'approval', message: `deleting a ${entry.kind} needs approve_deletes` };
  }
  return undefined;
}

/** Whether the object lives on under another name of its kind: then only the inventory forgets the old one. */
export function livesOn(entry: InventoryEntry, appliedUids: ReadonlySet<string>): boolean {
  return entry.uid !== '' && appliedUids.has(entry.uid);
}

/** A kept object for reports. */
export function keptStatus(entry: InventoryEntry, { reason, message }: NonNullable<Guard>): ObjectStatus {
  return objectStatus(entry, 'kept', reason, message);
}
