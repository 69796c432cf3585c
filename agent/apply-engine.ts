import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import type { Rules } from '#lib/rules.ts';
import type { YamlPool } from '#lib/yaml-pool.ts';
import type { ApplyOptions } from '#proto/brokkr/v1/content_pb.js';
import type { Kube } from './kube/kube.ts';
import type { Impersonation } from './kube/transport.ts';
import type { ContentSource, ReportSink } from './target.ts';

/** What all stacks of an agent share. */
export interface Engine {
  readonly kube: Kube;
  readonly yaml: YamlPool;
  readonly content: ContentSource;
  readonly report: ReportSink;
  readonly clock: Clock;
  readonly log: Logger;
  /** In [0, 1). */
  readonly random: () => number;
  /** Ids of attempts. */
  readonly newId: () => string;
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
  /** A stack that was restored from its inventory has work to do (drift, a held deletion) but no target since the restart. */
  needTarget(stackId: string): void;
  /** Whether nothing may be deleted now. */
  deletionsHeld(): boolean;
  /** Calls one stack may have in flight now: a stack whose calls hang leaves room for the others. */
  share(): number;
  /** A definition or an API service was applied: stacks that wait for kinds look again. */
  kindsChanged(): void;
  /** Whether another stack of this agent has objects in a namespace. */
  usesNamespace(namespace: string, exceptStackId: string): boolean;
}

/** The service account a stack is applied as: its user and the groups every service account is in. */
export function impersonation(options: ApplyOptions): Impersonation | undefined {
  if (options.impersonate === '') return undefined;
  const [namespace = '', name = ''] = options.impersonate.split('/');
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
