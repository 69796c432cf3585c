import { createHash } from 'node:crypto';
import type { Logger } from '#lib/log.ts';
import { keyString } from '#lib/object.ts';
import { agentShort, INVENTORY_LABEL, type StackIdentity, stackIdentity } from './apply-identity.ts';
import {
  decodeEntries,
  decodeHead,
  emptyHead,
  encodeEntries,
  encodeHead,
  type Head,
  type InventoryEntry,
} from './inventory-codec.ts';
import { KubeError, missing } from './kube/errors.ts';
import type { Kube } from './kube/kube.ts';
import type { KubeObject } from './kube/objects.ts';
import type { Resource } from './kube/resource.ts';

/** Entries that fit beside the head, in one ConfigMap of at most about 120 KiB. */
const MAX_INLINE = 1000;
/** Entries a shard has on average once there are several; the largest stays well below 1,000. */
const PER_SHARD = 500;
const FIELD_MANAGER = 'brokkr-inventory';
const SHARD_LABEL = 'brokkr.io/inventory-shard';

const CONFIG_MAPS: Resource = core('ConfigMap', 'configmaps', true);
const NAMESPACES: Resource = core('Namespace', 'namespaces', false);

/** Another process has written this inventory since we read it. */
export class InventoryTakenError extends Error {
  override readonly name = 'InventoryTakenError';
}

/** Who writes inventories and where. */
export interface InventoryPlace {
  readonly kube: Kube;
  readonly log: Logger;
  readonly agentId: string;
  readonly namespace: string;
  /** Random per process: tells our own writes from those of another one. */
  readonly writer: string;
}

/**
 * What a stack has, or may have, in the cluster, in ConfigMaps of the agent's namespace. Small stacks are one ConfigMap (so a change is
 * one atomic write); larger ones have shards, written before the head that counts them. Changes are made to `entries` and `head` and
 * stored by `save`. Not for concurrent use.
 */
export class Inventory {
  readonly identity: StackIdentity;
  /** By `keyString`. */
  readonly entries = new Map<string, InventoryEntry>();
  head: Head;
  readonly #place: InventoryPlace;
  /** Digest of each ConfigMap as last written, by name, with its uid. */
  readonly #written = new Map<string, { readonly uid: string; readonly digest: string }>();
  #headVersion: string | undefined;
  /** The answer to our last write was lost: it may or may not have happened. */
  #uncertain = false;

  constructor(place: InventoryPlace, stackId: string, stackName: string) {
    this.#place = place;
    this.identity = stackIdentity(place.agentId, stackId, place.namespace);
    this.head = emptyHead(stackId, stackName);
  }

  /** Whether anything of this stack is stored. */
  get stored(): boolean {
    return this.#headVersion !== undefined;
  }

  /** Whether a crash or a removal left something open, so that what is stored as applied is not the whole truth. */
  get inDoubt(): boolean {
    if (this.head.attempt || this.head.tombstone) return true;
    return [...this.entries.values()].some(({ state }) => state === 'pending');
  }

  /**
   * Stores head and entries; writes only the ConfigMaps that differ from what is stored. Rejects with an `InventoryTakenError` when
   * somebody else wrote the head, and with a `KubeError`; then nothing may be written to the cluster on the strength of it.
   */
  async save(signal: AbortSignal): Promise<void> {
    if (this.#uncertain) await this.#ask(signal);
    const shards = shardCount(this.entries.size, this.head.shards);
    this.head = { ...this.head, shards };
    if (shards > 1) await this.#saveShards(shards, signal);
    const name = this.identity.headName;
    const data = { head: encodeHead(this.head), writer: this.#place.writer };
    const entries = shards === 1 ? encodeEntries(this.entries.values()) : undefined;
    await this.#write(name, data, entries, signal);
    for (const old of this.#written.keys()) {
      if (old !== name && !old.startsWith(`${name}-${shards}-`)) await this.#remove(old, signal);
    }
  }

  /** Removes everything but the head. */
  async removeShards(signal: AbortSignal): Promise<void> {
    for (const name of [...this.#written.keys()]) if (name !== this.identity.headName) await this.#remove(name, signal);
    this.head = { ...this.head, shards: 1 };
  }

  /** Removes the head, last of all. */
  async removeHead(signal: AbortSignal): Promise<void> {
    await this.#remove(this.identity.headName, signal);
    this.#headVersion = undefined;
  }

  /** Takes over what is stored. Throws when it is damaged. */
  restore(head: KubeObject, shards: readonly KubeObject[]): void {
    const data = textData(head);
    this.head = decodeHead(data.head ?? '');
    this.entries.clear();
    this.#written.clear();
    this.#headVersion = head.metadata.resourceVersion;
    this.#uncertain = false;
    this.#remember(head);
    const layout = `${this.identity.headName}-${this.head.shards}-`;
    for (const object of this.head.shards === 1 ? [head] : shards) {
      const { entries } = textData(object);
      if (entries === undefined || (object !== head && !object.metadata.name.startsWith(layout))) continue;
      for (const entry of decodeEntries(entries)) this.entries.set(keyString(entry), entry);
    }
    for (const object of shards) this.#remember(object);
  }

  /** Reads again what is stored, after another process wrote it. */
  async reload(signal: AbortSignal): Promise<void> {
    const { kube, namespace } = this.#place;
    const labelSelector = `${SHARD_LABEL}=${this.identity.short}`;
    const objects: KubeObject[] = [];
    for await (const { items } of kube.list({ resource: CONFIG_MAPS, namespace, labelSelector, content: 'full' }, signal)) {
      objects.push(...items);
    }
    const head = objects.find(({ metadata }) => metadata.name === this.identity.headName);
    if (head)
      this.restore(
        head,
        objects.filter((object) => object !== head),
      );
  }

  async #saveShards(count: number, signal: AbortSignal): Promise<void> {
    const buckets: InventoryEntry[][] = Array.from({ length: count }, () => []);
    for (const [key, entry] of this.entries) buckets[shardOf(key, count)]?.push(entry);
    await Promise.all(
      buckets.map(async (bucket, index) => {
        const name = `${this.identity.headName}-${count}-${index}`;
        await this.#write(name, {}, encodeEntries(bucket), signal);
      }),
    );
  }

  async #write(
    name: string,
    data: Readonly<Record<string, string>>,
    entries: string | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { kube, namespace } = this.#place;
    const isHead = name === this.identity.headName;
    const content = { data, ...(entries !== undefined && { binaryData: { entries } }) };
    const digest = createHash('sha256').update(JSON.stringify(content)).digest('hex');
    if (this.#written.get(name)?.digest === digest) return;
    const body = JSON.stringify({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: {
        name,
        namespace,
        labels: this.#labels(isHead),
        ...(isHead && { annotations: { 'applyset.kubernetes.io/tooling': 'brokkr/1' } }),
        ...(isHead && this.#headVersion !== undefined && { resourceVersion: this.#headVersion }),
      },
      ...content,
    });
    const request = { resource: CONFIG_MAPS, namespace, name, fieldManager: FIELD_MANAGER, force: true, body };
    try {
      const { metadata } = await this.#retry(() => kube.limiter.run(() => kube.apply(request, signal), 'high', signal), signal);
      this.#written.set(name, { uid: metadata.uid, digest });
      if (isHead) this.#headVersion = metadata.resourceVersion;
    } catch (error) {
      this.#written.set(name, { uid: this.#written.get(name)?.uid ?? '', digest: '' });
      this.#uncertain = true;
      throw error;
    }
  }

  #labels(isHead: boolean): Record<string, string> {
    const { short, applySet } = this.identity;
    return {
      [INVENTORY_LABEL]: agentShort(this.#place.agentId),
      [SHARD_LABEL]: short,
      ...(isHead && { 'applyset.kubernetes.io/id': applySet }),
    };
  }

  /** Creates the namespace when it is the namespace that is missing. */
  async #retry<T>(call: () => Promise<T>, signal: AbortSignal): Promise<T> {
    try {
      return await call();
    } catch (error) {
      if (missing(error, CONFIG_MAPS.plural) !== 'namespace') throw error;
      await createNamespace(this.#place.kube, this.#place.namespace, signal);
      return await call();
    }
  }

  /** Finds out what became of a write whose answer was lost, and whether somebody else wrote meanwhile. */
  async #ask(signal: AbortSignal): Promise<void> {
    const { kube, namespace, writer } = this.#place;
    const name = this.identity.headName;
    const live = await kube.find({ resource: CONFIG_MAPS, namespace, name }, signal);
    if (live && textData(live).writer !== writer && live.metadata.resourceVersion !== this.#headVersion) {
      throw new InventoryTakenError(`the inventory of stack ${this.head.stackName} was written by another process`);
    }
    this.#headVersion = live?.metadata.resourceVersion;
    if (!live) this.#written.delete(name);
    this.#uncertain = false;
  }

  #remember(object: KubeObject): void {
    this.#written.set(object.metadata.name, { uid: object.metadata.uid, digest: '' });
  }

  async #remove(name: string, signal: AbortSignal): Promise<void> {
    const { kube, namespace } = this.#place;
    const ref = { resource: CONFIG_MAPS, namespace, name };
    const uid = this.#written.get(name)?.uid || (await kube.findMetadata(ref, signal))?.uid;
    if (uid !== undefined) await kube.remove({ ...ref, uid, propagation: 'Background' }, signal);
    this.#written.delete(name);
  }
}

/** All inventories of the agent, in one list. One that is damaged is logged and left alone: nothing of that stack is deleted then. */
export async function loadInventories(place: InventoryPlace, signal: AbortSignal): Promise<Inventory[]> {
  const { kube, log, agentId, namespace } = place;
  const labelSelector = `${INVENTORY_LABEL}=${agentShort(agentId)}`;
  const objects: KubeObject[] = [];
  for await (const page of kube.list({ resource: CONFIG_MAPS, namespace, labelSelector, content: 'full', limit: 0 }, signal)) {
    objects.push(...page.items);
  }
  const inventories: Inventory[] = [];
  for (const object of objects) {
    const { head } = textData(object);
    if (head === undefined) continue;
    try {
      const { stackId, stackName } = decodeHead(head);
      const inventory = new Inventory(place, stackId, stackName);
      const { headName } = inventory.identity;
      if (headName !== object.metadata.name) continue; // a copy somebody made
      inventory.restore(
        object,
        objects.filter(({ metadata }) => metadata.name.startsWith(`${headName}-`)),
      );
      inventories.push(inventory);
    } catch (error) {
      log.error({ configMap: object.metadata.name, error }, 'inventory cannot be read');
    }
  }
  return inventories;
}

/** Number of shards for so many entries; never fewer than before, so that shards move only while a stack grows. */
export function shardCount(entries: number, before: number): number {
  if (entries <= MAX_INLINE) return before;
  let count = Math.max(before, 2);
  while (count * PER_SHARD < entries) count *= 2;
  return count;
}

function shardOf(key: string, count: number): number {
  return createHash('sha256').update(key).digest().readUInt32BE(0) % count;
}

/** Text keys as they are, binary ones in base64. */
function textData(object: KubeObject): { readonly head?: string; readonly writer?: string; readonly entries?: string } {
  const part = (value: unknown) => (typeof value === 'object' && value !== null ? value : {});
  return { ...part(object.data), ...part(object.binaryData) };
}

/** Creates a namespace unless it is there. */
export async function createNamespace(kube: Kube, namespace: string, signal: AbortSignal): Promise<void> {
  const body = JSON.stringify({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } });
  try {
    await kube.create({ resource: NAMESPACES, body }, signal);
  } catch (error) {
    if (!(error instanceof KubeError && error.status === 409)) throw error;
  }
}

function core(kind: string, plural: string, namespaced: boolean): Resource {
  return { group: '', version: 'v1', kind, plural, namespaced, verbs: ['get', 'list', 'patch', 'delete'] };
}
