import { errorText } from '#lib/errors.ts';
import { keyString } from '#lib/object.ts';
import { readMarks } from '#lib/object-marks.ts';
import { abortable } from '#lib/signal.ts';
import { type Engine, forEachLimited } from '../engine.ts';
import { classify, type ErrorClass } from '../kube/errors.ts';
import { listableKinds } from '../kube/listable.ts';
import type { ObjectMeta } from '../kube/objects.ts';
import type { Resource } from '../kube/resource.ts';
import { OWNER_ANNOTATION, STACK_LABEL, type StackIdentity } from '../stack-identity.ts';
import type { InventoryEntry } from './codec.ts';
import type { Inventory } from './inventory.ts';

/** Lists in flight. */
const PARALLEL = 4;
/** Stacks looked for in one go: a label selector of about 1.5 KiB. */
const MAX_STACKS = 100;
/** Namespaces asked one by one for a kind that may not be listed in the whole cluster. */
const MAX_NAMESPACES = 50;
/** Failures after which asking again may help. */
const PASSING: ReadonlySet<ErrorClass> = new Set(['transient', 'transient-slow', 'expired', 'credential', 'race']);

/** Whose objects to look for. */
export interface MarkedSearch {
  readonly identity: StackIdentity;
  /** Where to look for kinds that may not be listed in the whole cluster. */
  readonly namespaces: readonly string[];
}

/** Objects with the marks of a stack. */
export interface MarkedObjects {
  readonly entries: readonly InventoryEntry[];
  /** What could not be asked now; undefined when every kind was. A kind the agent may not list cannot be asked at all. */
  readonly problem: string | undefined;
}

interface Batch {
  readonly searches: MarkedSearch[];
  readonly found: Promise<ReadonlyMap<string, MarkedObjects>>;
}

/** Looks for objects by their marks. One look at a time over all kinds; searches that come meanwhile share the next one. */
export class MarkedObjectSearch {
  readonly #engine: Pick<Engine, 'kube' | 'log'>;
  #last: Promise<unknown> = Promise.resolve();
  #waiting: Batch | undefined;

  constructor(engine: Pick<Engine, 'kube' | 'log'>) {
    this.#engine = engine;
  }

  /** Every object of a stack. Rejects when discovery fails, and with the signal's reason. */
  async find(search: MarkedSearch, signal: AbortSignal): Promise<MarkedObjects> {
    if (!this.#waiting || this.#waiting.searches.length >= MAX_STACKS) this.#waiting = this.#plan();
    const { searches, found } = this.#waiting;
    searches.push(search);
    return (await abortable(found, signal)).get(search.identity.short) ?? { entries: [], problem: undefined };
  }

  #plan(): Batch {
    const searches: MarkedSearch[] = [];
    const found = this.#last.then(() => {
      if (this.#waiting?.searches === searches) this.#waiting = undefined;
      return this.#look(searches);
    });
    this.#last = found.catch(() => undefined);
    return { searches, found };
  }

  /** Shared by several stacks, so none of their signals may end it: the deadlines of the requests bound it. */
  async #look(searches: readonly MarkedSearch[]): Promise<ReadonlyMap<string, MarkedObjects>> {
    const { kube, log } = this.#engine;
    const { signal } = new AbortController();
    const { resources, unknown } = listableKinds(await kube.resources.all(signal));
    const found = new Map(searches.map(({ identity }) => [identity.short, new Map<string, InventoryEntry>()]));
    const owners = new Map(searches.map(({ identity }) => [identity.short, identity.owner]));
    const namespaces = [...new Set(searches.flatMap((search) => search.namespaces))].slice(0, MAX_NAMESPACES);
    let problem = unknown[0] === undefined ? undefined : `${unknown[0]} does not answer`;
    const collect = (resource: Resource, metadata: ObjectMeta) => {
      const short = metadata.labels?.[STACK_LABEL] ?? '';
      if (metadata.annotations?.[OWNER_ANNOTATION] !== owners.get(short) || metadata.deletionTimestamp !== undefined) return;
      // One object may be served by several groups.
      if (!found.get(short)?.has(metadata.uid)) found.get(short)?.set(metadata.uid, markedEntry(resource, metadata));
    };
    const list = async (resource: Resource, namespace: string | undefined) => {
      const labelSelector = `${STACK_LABEL} in (${[...owners.keys()].join(',')})`;
      const request = { resource, namespace, labelSelector, content: 'metadata' } as const;
      for await (const { items } of kube.list(request, signal)) for (const { metadata } of items) collect(resource, metadata);
    };
    await forEachLimited(
      resources,
      () => PARALLEL,
      async (resource) => {
        try {
          await list(resource, undefined).catch(async (error: unknown) => {
            if (classify(error) !== 'permission' || !resource.namespaced) throw error;
            for (const namespace of namespaces) await list(resource, namespace);
          });
        } catch (error) {
          if (PASSING.has(classify(error))) problem ??= `${resource.kind}: ${errorText(error)}`;
          else log.info({ kind: resource.kind, group: resource.group, error: errorText(error) }, 'objects cannot be looked for');
        }
      },
    );
    return new Map([...found].map(([short, entries]) => [short, { entries: [...entries.values()], problem }]));
  }
}

/**
 * Fills up an inventory that was lost with the objects that carry the stack's marks and stores it as whole. They are not known to be
 * wanted: the next sync removes what is not, under the usual guards. Undefined when done, else what could not be asked, or that `stop`
 * aborted. Rejects with the signal's reason, or when the inventory cannot be stored.
 */
export async function rebuildInventory(
  engine: Engine,
  inventory: Inventory,
  stop: AbortSignal,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { identity, entries } = inventory;
  const namespaces = [...new Set([...entries.values()].map(({ namespace }) => namespace)), engine.defaultNamespace];
  const search = { identity, namespaces: namespaces.filter((name) => name !== '') };
  const found = await engine.findMarked(search, AbortSignal.any([stop, signal])).catch((error: unknown) => {
    signal.throwIfAborted();
    return { entries: [], problem: errorText(error) };
  });
  const known = new Set([...entries.values()].map(({ uid }) => uid));
  for (const entry of found.entries) {
    const key = keyString(entry);
    if (!entries.has(key) && !known.has(entry.uid)) entries.set(key, entry);
  }
  if (found.problem !== undefined) return found.problem;
  inventory.head = { ...inventory.head, partial: false };
  if (inventory.stored || entries.size > 0) await inventory.save(signal);
  return undefined;
}

function markedEntry({ group, version, kind, plural, namespaced }: Resource, metadata: ObjectMeta): InventoryEntry {
  const { name, namespace = '', uid, annotations = {} } = metadata;
  return {
    ...{ group, version, kind, plural, namespaced, namespace, name, uid },
    ...{ digest: '', wave: 0, state: 'kept', print: undefined },
    marks: readMarks({ annotations: { ...annotations } }),
  };
}
