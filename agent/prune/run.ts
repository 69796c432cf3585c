import { MARKS, markAnnotation } from '#lib/object-marks.ts';
import { inSpan } from '#lib/tracing.ts';
import type { ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { inReverse } from '../apply/order.ts';
import { failureText, objectStatus } from '../apply/report.ts';
import { type Engine, forEachLimited, serviceAccountUser } from '../engine.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import { classify } from '../kube/errors.ts';
import type { ObjectMeta, ObjectRef, RemoveRequest } from '../kube/objects.ts';
import type { Resource } from '../kube/resource.ts';
import type { Impersonation } from '../kube/transport.ts';
import { objectSpan } from '../spans.ts';
import { OWNER_ANNOTATION, STACK_LABEL, type StackIdentity } from '../stack-identity.ts';
import { hasInstances, interceptorsFirst, isDefinition, resourceOf } from './kinds.ts';
import { holdsForeign } from './namespace.ts';
import { orphan } from './orphan.ts';
import { type Guard, isNamespace, type Judged, keptStatus, livesOn } from './prune.ts';
import { terminatingStatus } from './terminating.ts';

/** Deletions in flight at most (APPLY §5.3). */
const PARALLEL = 8;
/** An object that changes between the look at it and its deletion is looked at again, this often. */
const MAX_LOOKS = 4;
/** Reason of an object that another stack is to take over. */
const MOVING = 'moving';
/** Reason of an object that may not be deleted. */
const FORBIDDEN = 'forbidden';

/** What became of an object that should go. */
export type Removal =
  | { readonly kind: 'deleted' | 'gone' }
  /** Our marks are off, the object stays. */
  | { readonly kind: 'orphaned'; readonly status?: ObjectStatus }
  /** Deletion was accepted, finalizers hold it: `entry` is to be kept in the inventory until it is gone. */
  | { readonly kind: 'terminating'; readonly status: ObjectStatus; readonly entry: InventoryEntry }
  /** It belongs to another stack of this agent now. */
  | { readonly kind: 'moved'; readonly status: ObjectStatus }
  /** It is not ours (any more) or was meant to stay, and is forgotten. */
  | { readonly kind: 'released'; readonly status: ObjectStatus }
  /** A guard or a failure holds it, it stays in the inventory. `retry`: that may change by itself. */
  | { readonly kind: 'kept'; readonly status: ObjectStatus; readonly retry: boolean };

/** Whether something became of an object in this run; a deletion that was under way before is none. */
export function isNews(entry: InventoryEntry, { kind }: Removal): boolean {
  return kind !== 'kept' && !(kind === 'terminating' && entry.state === 'deleting');
}

/** Counts what became of the removals of one run. */
export function tellRemovals({ observe }: Engine, removed: ReadonlyMap<InventoryEntry, Removal>): void {
  for (const [entry, removal] of removed) {
    const guard = removal.kind === 'kept' ? removal.status.reason : '';
    if (guard !== '' || isNews(entry, removal)) observe.removed(removal.kind, guard);
  }
}

/**
 * When to try again what is kept: `soon` while another stack is about to take something over, `forbidden` while a right is missing;
 * undefined when nothing changes by itself.
 */
export type RemoveAgain = 'soon' | 'forbidden' | 'later' | undefined;

/** When what became of the removals is worth another try. */
export function removeAgain(removals: Iterable<Removal>): RemoveAgain {
  const waiting = [...removals].filter((removal) => removal.kind === 'kept' && removal.retry);
  if (waiting.length === 0) return undefined;
  const reasons = new Set(waiting.map((removal) => ('status' in removal ? removal.status?.reason : undefined)));
  if (reasons.has(MOVING)) return 'soon';
  return reasons.has(FORBIDDEN) ? 'forbidden' : 'later';
}

/** Circumstances of a prune. */
export interface PruneRun {
  readonly engine: Engine;
  readonly identity: StackIdentity;
  readonly stackId: string;
  /** Service account whose rights are used ("namespace/name"); empty for the agent's own. */
  readonly serviceAccount: string;
  /** What the guards let through so far. */
  readonly removals: Pick<Judged, 'open' | 'moving'>;
  /** UIDs applied in this sync: an object that moved to another API group or version must not be deleted under its old name. */
  readonly appliedUids: ReadonlySet<string>;
  /** Whether anything in a namespace stays: objects of any inventory but those being deleted. Asked when the namespace's turn has come. */
  readonly usesNamespace: (namespace: string) => boolean;
  /** UIDs of the stack's own objects as the inventory knows them now. */
  readonly ownUids: () => ReadonlySet<string>;
  /** `orphan` takes our marks off and leaves the objects. */
  readonly mode: 'delete' | 'orphan';
  /** Called as soon as it is known what became of an object. */
  readonly onRemoval: (entry: InventoryEntry, removal: Removal) => void;
  readonly stop: AbortSignal;
}

/** Removes objects in reverse order, each only when all guards agree. Entries not reported when it resolves were not looked at. */
export async function pruneAll(run: PruneRun, signal: AbortSignal): Promise<void> {
  const { engine } = run;
  const open: InventoryEntry[] = [];
  for (const entry of run.removals.open) {
    if (livesOn(entry, run.appliedUids)) run.onRemoval(entry, { kind: 'gone' });
    else open.push(entry);
  }
  if (open.length === 0) return;
  const rights = await rightsOf(run, signal);
  for (const { items } of interceptorsFirst(open).flatMap(inReverse)) {
    await forEachLimited(
      items,
      () => Math.min(PARALLEL, engine.share()),
      async (entry) => {
        if (run.stop.aborted || engine.deletionsHeld()) return;
        const removal = await inSpan(
          () => objectSpan('prune', entry),
          async (span) => {
            const end = await removeOne(run, rights, entry, signal);
            span?.setAttribute('brokkr.result', end.kind);
            return end;
          },
        );
        run.onRemoval(entry, removal);
      },
    );
  }
}

/** On whose behalf objects are removed; `lost` when that service account is no more: nobody may delete in its name then. */
type Rights = { readonly impersonate: Impersonation | undefined; readonly lost?: string };

async function rightsOf({ engine, serviceAccount }: PruneRun, signal: AbortSignal): Promise<Rights> {
  if (serviceAccount === '') return { impersonate: undefined };
  const impersonate = serviceAccountUser(serviceAccount);
  const [namespace, name = ''] = serviceAccount.split('/');
  try {
    // The API server impersonates accounts that do not exist, with whatever roles are still bound to their names.
    const account = await engine.kube.findMetadata({ resource: SERVICE_ACCOUNTS, namespace, name }, signal);
    if (account) return { impersonate };
    return {
      impersonate: undefined,
      lost: `service account ${serviceAccount}, on whose behalf it was applied, does not exist any more`,
    };
  } catch (error) {
    signal.throwIfAborted();
    if (classify(error) === 'permission') return { impersonate }; // the deletions will tell
    throw error;
  }
}

async function removeOne(run: PruneRun, rights: Rights, entry: InventoryEntry, signal: AbortSignal): Promise<Removal> {
  try {
    const resource = await resourceOf(run.engine, entry, signal);
    if (resource === 'gone') return { kind: 'gone' };
    if (typeof resource === 'string') return kept(entry, { reason: 'discovery', message: resource });
    const ref = { resource, namespace: entry.namespaced ? entry.namespace : undefined, name: entry.name };
    return await tryRemove(run, rights, entry, ref, signal);
  } catch (error) {
    signal.throwIfAborted();
    const reason = classify(error) === 'permission' ? FORBIDDEN : 'delete_failed';
    return kept(entry, { reason, message: failureText(entry.kind, error) });
  }
}

async function tryRemove(
  run: PruneRun,
  rights: Rights,
  entry: InventoryEntry,
  ref: ObjectRef,
  signal: AbortSignal,
): Promise<Removal> {
  const { engine } = run;
  for (let look = isUnseen(run, rights, entry) ? 0 : 1; ; look++) {
    try {
      if (look === 0) return await remove(run, rights, entry, ref, lastSeen(entry), signal);
      const live = await engine.kube.limiter.run(() => engine.kube.findMetadata(ref, signal), 'normal', signal);
      if (!live) return { kind: 'gone' };
      const left = leaves(run, entry, live);
      if (left) return left;
      if (live.deletionTimestamp !== undefined) return terminating(engine, { ...entry, uid: live.uid });
      const wishes = [live.annotations?.[markAnnotation('prune')], entry.marks.prune]; // on the live object or in our last copy: either protects
      if (wishes.includes('never')) return released(entry, 'prune_never', 'the object is marked as never to be pruned');
      if (run.mode === 'orphan' || wishes.includes('orphan') || rights.lost !== undefined) {
        await orphan(engine, run.identity, ref, live, rights.impersonate, signal);
        if (rights.lost === undefined) return { kind: 'orphaned' };
        return { kind: 'orphaned', status: objectStatus(entry, 'orphaned', 'service_account_missing', rights.lost) };
      }
      const guard = await holds(run, entry, signal);
      if (guard) return kept(entry, guard);
      return await remove(run, rights, entry, ref, live, signal);
    } catch (error) {
      if (classify(error) !== 'race' || look >= MAX_LOOKS) throw error;
    }
  }
}

/** Why an object is no concern of this stack, or not now: it is another one, was taken from us, or another stack is to take it over. */
function leaves({ engine, identity, stackId, removals }: PruneRun, entry: InventoryEntry, live: ObjectMeta): Removal | undefined {
  const owner = live.annotations?.[OWNER_ANNOTATION];
  if (entry.uid !== '' && live.uid !== entry.uid)
    return released(entry, 'not_ours', 'the object was replaced by another one of the same name');
  if (live.labels?.[STACK_LABEL] !== identity.short || owner !== identity.owner) {
    if (owner !== identity.owner && owner?.startsWith(`${engine.agentId}/`))
      return {
        kind: 'moved',
        status: objectStatus(entry, 'moved', 'handover', 'another stack of this agent has the object now'),
      };
    const lost = owner === identity.owner ? 'no longer carries the label of the stack' : 'belongs to another owner';
    return released(entry, 'not_ours', `the object ${lost}`);
  }
  const claimant = engine.claimedBy(entry, stackId);
  if (claimant === undefined && !removals.moving.has(entry)) return undefined;
  if (claimant !== undefined && entry.state !== 'kept') engine.nudge(claimant.stackId); // only once: it has a pace of its own
  const name = claimant?.stackName ?? 'another stack';
  return kept(entry, { reason: MOVING, message: `stack ${name} has the object in its target and takes it over` });
}

/** Guards that ask the server. */
async function holds(run: PruneRun, entry: InventoryEntry, signal: AbortSignal): Promise<Guard | undefined> {
  const { engine } = run;
  if (isDefinition(entry)) return hasInstances(engine, entry, signal);
  if (!isNamespace(entry)) return undefined;
  if (run.usesNamespace(entry.name)) return { reason: 'in_use', message: 'objects that stay are in the namespace' };
  return holdsForeign(engine, entry.name, run.ownUids(), signal);
}

/** What decides about a deletion, as it is on the live object. */
type Seen = Pick<ObjectMeta, 'uid' | 'resourceVersion' | 'annotations'>;

/**
 * Whether the object need not be looked at first: a deletion on condition that it is still as our last write left it meets
 * the same label, owner and marks as a look would find.
 */
function isUnseen({ mode, removals, engine, stackId }: PruneRun, rights: Rights, entry: InventoryEntry): boolean {
  const special = isNamespace(entry) || isDefinition(entry) || entry.marks.prune !== undefined || rights.lost !== undefined;
  if (special || mode === 'orphan' || entry.uid === '' || !entry.print || entry.state === 'deleting') return false;
  return !removals.moving.has(entry) && engine.claimedBy(entry, stackId) === undefined;
}

function lastSeen({ uid, print }: InventoryEntry): Seen {
  return { uid, resourceVersion: print?.resourceVersion ?? '' };
}

/** Deletes the object if it is still as seen. */
async function remove(
  { engine }: PruneRun,
  { impersonate }: Rights,
  entry: InventoryEntry,
  ref: ObjectRef,
  { uid, resourceVersion, annotations }: Seen,
  signal: AbortSignal,
): Promise<Removal> {
  const asked = annotations?.[markAnnotation('propagation')] ?? entry.marks.propagation;
  const propagation = MARKS.propagation.find((value) => value === asked) ?? 'Background';
  const request: RemoveRequest = { ...ref, uid, resourceVersion, propagation, impersonate };
  const removed = await engine.kube.limiter.run(() => engine.kube.remove(request, signal), 'normal', signal);
  return removed === 'terminating' ? terminating(engine, entry) : { kind: removed === 'absent' ? 'gone' : 'deleted' };
}

function terminating({ clock }: Engine, entry: InventoryEntry): Removal {
  const deletingSinceMs = entry.deletingSinceMs ?? clock.now();
  const deleting: InventoryEntry = { ...entry, digest: '', state: 'deleting', deletingSinceMs };
  return { kind: 'terminating', entry: deleting, status: terminatingStatus(deleting) };
}

function kept(entry: InventoryEntry, guard: Guard): Removal {
  return { kind: 'kept', status: keptStatus(entry, guard), retry: true };
}

function released(entry: InventoryEntry, reason: string, message: string): Removal {
  return { kind: 'released', status: objectStatus(entry, 'kept', reason, message) };
}

const SERVICE_ACCOUNTS: Resource = {
  group: '',
  version: 'v1',
  kind: 'ServiceAccount',
  plural: 'serviceaccounts',
  namespaced: true,
  verbs: ['get'],
};
