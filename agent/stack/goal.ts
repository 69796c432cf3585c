import { jitter } from '#lib/backoff.ts';
import type { WantedKind } from '../apply/content.ts';
import type { Engine } from '../engine.ts';
import type { Head } from '../inventory/codec.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { isUnjudged } from './good-generation.ts';
import type { StackTarget, StackTombstone } from './target.ts';

/** What a stack is to become; `none` until the broker has spoken. */
export type Goal =
  | { readonly kind: 'none' }
  | { readonly kind: 'target'; readonly target: StackTarget }
  | { readonly kind: 'tombstone'; readonly tombstone: StackTombstone };

/** When a worker goes on without news: at a monotonic time, and, if `until` is given, only once the server answers or serves kinds. */
export interface Next {
  readonly at: number;
  readonly until?: 'server' | { readonly kinds: readonly WantedKind[] };
}

const SERVER_RECHECK_MS = 1000;

/**
 * What to do with a target: `take` it, `same` as the goal already, or `old`. Generations are compared within one history of the broker
 * only. A target that comes after a tombstone brings the stack back, also at the tombstone's generation: labels and targets, which decide
 * who gets a stack, do not raise it.
 */
export function compareTarget(goal: Goal, target: StackTarget): 'take' | 'same' | 'old' {
  switch (goal.kind) {
    case 'none':
      return 'take';
    case 'tombstone': {
      const { incarnation, generation } = goal.tombstone;
      return incarnation === target.incarnation && generation > target.generation ? 'old' : 'take';
    }
    case 'target': {
      const known = goal.target;
      if (known.incarnation === target.incarnation && known.generation > target.generation) return 'old';
      return known.generation === target.generation && known.incarnation === target.incarnation && sameContent(known, target)
        ? 'same'
        : 'take';
    }
  }
}

/** Whether a tombstone is older than what is known. */
export function isStale(goal: Goal, tombstone: StackTombstone): boolean {
  if (goal.kind !== 'target' || goal.target.incarnation !== tombstone.incarnation) return false;
  return goal.target.generation > tombstone.generation;
}

/** A crash after the last deletion leaves a head that only has to be removed: the tombstone to go on with. */
export function unfinishedRemoval({ head, entries }: Inventory): StackTombstone | undefined {
  const { tombstone, stackId, stackName, incarnation, revision } = head;
  if (!tombstone || entries.size > 0) return undefined;
  return { ...tombstone, stackId, stackName, incarnation, revision, approved: false, traceparent: '' };
}

/** Whether two states have the same manifest and options. */
export function sameContent(
  a: Pick<StackTarget, 'manifestDigest' | 'optionsDigest'>,
  b: Pick<StackTarget, 'manifestDigest' | 'optionsDigest'>,
): boolean {
  return sameDigest(a.manifestDigest, b.manifestDigest) && sameDigest(a.optionsDigest, b.optionsDigest);
}

function sameDigest(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/**
 * Whether the inventory says that this target, received or good before it, was applied as a whole. Numbers alone do not tell: another
 * history of the broker may give the same one to something else.
 */
export function isSettled({ head }: Pick<Inventory, 'head'>, target: StackTarget): boolean {
  const underWay = head.attempt?.type === 'APPLY' || head.attempt?.type === 'ROLLBACK';
  if (underWay || head.appliedGeneration !== target.generation) return false;
  if (head.receivedGeneration === target.generation) return sameContent(head, target);
  return head.good?.generation === target.generation && sameDigest(head.good.manifestDigest, target.manifestDigest);
}

/**
 * The target is received and verified: from here on a reconnect tells the broker so. Still to be stored. `origin` says which broker and key
 * it came from.
 */
export function receive(inventory: Inventory, target: StackTarget, origin: string): void {
  const { stackName, manifestDigest, optionsDigest, deploymentObjectId, incarnation, revision } = target;
  const { tombstone: _, ...head } = inventory.head;
  const receivedGeneration = target.generation;
  const sameHistory = head.incarnation === incarnation;
  // Within one history options alone differ when this agent is paused or resumed: what is applied stays applied.
  const sameApplied = sameHistory ? sameDigest(head.manifestDigest, manifestDigest) : sameContent(head, target);
  // An inventory that begins here, and not because one was lost, never holds what another broker had applied.
  const begins = !inventory.stored && !head.partial;
  const next: Head = {
    ...head,
    ...(begins && { origin }),
    ...(head.appliedGeneration === target.generation && !sameApplied && { appliedGeneration: 0n }),
    ...(!sameHistory && { good: undefined, failed: undefined }),
    ...((!sameHistory || head.receivedGeneration !== receivedGeneration) && { unconfirmed: false }),
    ...{ stackName, receivedGeneration, manifestDigest, optionsDigest, deploymentObjectId, incarnation, revision },
  };
  inventory.head = { ...next, unjudged: isUnjudged(next, target) };
}

/** Whether what was waited for is there: undefined when it is, else when to look again. Makes no attempt and leaves no event. */
export async function stillWaiting(engine: Engine, { until }: Next, signal: AbortSignal): Promise<Next | undefined> {
  const { kube, clock, random, kindRecheckMs } = engine;
  if (until === undefined) return undefined;
  if (until === 'server') {
    if (await kube.ready(signal)) return undefined;
    return { at: clock.monotonic() + jitter(SERVER_RECHECK_MS, 0.5, random), until };
  }
  const later: Next = { at: clock.monotonic() + jitter(kindRecheckMs, 0.2, random), until };
  try {
    kube.resources.invalidate();
    for (const { group, version, kind } of until.kinds) {
      const mapping = await kube.resources.resourceFor(group, version, kind, signal);
      if (mapping.kind !== 'found') return later;
    }
    return undefined;
  } catch {
    signal.throwIfAborted();
    return later;
  }
}
