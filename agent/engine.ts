import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import type { Rules } from '#lib/rules.ts';
import type { YamlPool } from '#lib/yaml-pool.ts';
import type { ApplyOptions } from '#proto/brokkr/v1/content_pb.js';
import type { InventoryEntry } from './inventory/codec.ts';
import type { MarkedObjects, MarkedSearch } from './inventory/rebuild.ts';
import type { Kube } from './kube/kube.ts';
import type { Impersonation } from './kube/transport.ts';
import type { EngineObserver } from './observe.ts';
import type { Reach } from './reach.ts';
import type { ContentSource, ReportSink } from './stack/target.ts';

/** What all stacks of an agent share. */
export interface Engine {
  readonly kube: Kube;
  readonly yaml: YamlPool;
  readonly content: ContentSource;
  readonly report: ReportSink;
  /** What the agent has to reach. */
  readonly reach: Reach;
  readonly clock: Clock;
  readonly log: Logger;
  /** In [0, 1). */
  readonly random: () => number;
  /** Ids of attempts. */
  readonly newId: () => string;
  /** Told what happens, for metrics. */
  readonly observe: EngineObserver;
  readonly agentId: string;
  /** Namespace of the inventories. */
  readonly namespace: string;
  /** For namespaced objects that name none. */
  readonly defaultNamespace: string;
  /** Time between two looks for kinds the server did not know, in milliseconds. */
  readonly kindRecheckMs: number;
  /** How long the end of an object that is to be created anew is waited for, in milliseconds. */
  readonly recreateWaitMs: number;
  /** The rules of the environment that new content must keep; undefined when there are none. Throws a `RulesError` when they are invalid. */
  rules(): Rules | undefined;
  /** Every object is verified once in this time, in milliseconds. */
  readonly verifyIntervalMs: number;
  /** What came of verifying objects, since the start. */
  readonly verification: VerifyCounts;
  /** A stack that was restored from its inventory has work to do (drift, a held deletion) but no target since the restart. */
  needTarget(stackId: string): void;
  /** Whether nothing may be deleted now. */
  deletionsHeld(): boolean;
  /** Calls one stack may have in flight now: a stack whose calls hang leaves room for the others. */
  share(): number;
  /** Whether another stack of this agent has objects in a namespace. */
  usesNamespace(namespace: string, exceptStackId: string): boolean;
  /** Another stack of this agent whose target has an object: it is to be moved there, not deleted. */
  claimedBy(object: OwnedKey, exceptStackId: string): StackRef | undefined;
  /**
   * The stack of this agent behind a field manager, if its newest target is known and is without the object; `gone` when the `owner`
   * (annotation) is a stack that this agent does not have any more: the object was left behind, as one that is never to be pruned.
   */
  releasedBy(fieldManager: string, object: OwnedKey, owner: string | undefined): StackRef | 'gone' | undefined;
  /** What a stack waits for may have happened: it looks again without waiting any longer. */
  nudge(stackId: string): void;
  /** Objects that carry the marks of a stack, of every kind the server lists: what an inventory that was lost held. */
  findMarked(search: MarkedSearch, signal: AbortSignal): Promise<MarkedObjects>;
  /** Digest of who the agent and its broker are: what `Head.origin` is compared with. */
  origin(incarnation: string): string;
}

/** Which object, and whether its kind has namespaces. */
export type OwnedKey = Pick<InventoryEntry, 'group' | 'kind' | 'namespace' | 'name' | 'namespaced'>;

/** A stack, for messages. */
export interface StackRef {
  readonly stackId: string;
  readonly stackName: string;
}

/** Counts of the verification of objects that look untouched. */
export interface VerifyCounts {
  /** Objects looked at. */
  verified: number;
  /** Objects that could not be judged: their content, or the server, could not be had. Their turn comes again. */
  skipped: number;
}

/** The service account a stack is applied as, if it names one. */
export function impersonation({ impersonate }: Pick<ApplyOptions, 'impersonate'>): Impersonation | undefined {
  return impersonate === '' ? undefined : serviceAccountUser(impersonate);
}

/** A service account ("namespace/name") as the API server knows it: its user and the groups every service account is in. */
export function serviceAccountUser(serviceAccount: string): Impersonation {
  const [namespace = '', name = ''] = serviceAccount.split('/');
  return {
    user: `system:serviceaccount:${namespace}:${name}`,
    groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
  };
}

/** Runs `work` on each item, at most `width()` at a time (asked before each start), in the order given. */
export async function forEachLimited<Item>(
  items: readonly Item[],
  width: () => number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const running = new Set<Promise<void>>();
  let failure: { readonly error: unknown } | undefined;
  for (const item of items) {
    while (running.size >= Math.max(1, width())) await Promise.race(running);
    if (failure) break;
    const one: Promise<void> = work(item)
      .catch((error: unknown) => {
        failure ??= { error };
      })
      .finally(() => running.delete(one));
    running.add(one);
  }
  await Promise.all(running);
  if (failure) throw failure.error;
}
