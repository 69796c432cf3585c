import { createHash } from 'node:crypto';
import { errorText } from '#lib/errors.ts';
import type { KubeObject } from '../kube/objects.ts';
import { type StackIdentity, stackIdentity } from '../stack-identity.ts';
import {
  decodeEntries,
  decodeHead,
  type Entries,
  emptyHead,
  encodeEntries,
  encodeHead,
  type Head,
  type InventoryEntry,
  sameEntry,
} from './codec.ts';
import { InventoryMaps, type InventoryPlace, readInventoryMaps, textData } from './maps.ts';

/** Entries that fit in the head, a ConfigMap of at most about 120 KiB. */
const MAX_INLINE = 1000;
/** Entries a shard has on average once there are several; the largest stays well below 1,000. */
const PER_SHARD = 500;
/** Entries the head may say differently from the shards before the shards are written again, and their size in base64. */
const MAX_JOURNAL = 200;
const MAX_JOURNAL_BYTES = 64 * 1024;

/**
 * What a stack has, or may have, in the cluster, in ConfigMaps of the agent's namespace. The entries of a small stack are in one ConfigMap,
 * the head. Those of a larger one are in shards, and the head names what differs from them, so that a small change is one
 * atomic write whatever the size of the stack. Shards are written before the head; each has the sequence of the write it is from, and
 * where that is higher than the head's the shard knows better. Changes are made to `entries` and `head` and stored by `save`.
 * Not for concurrent use.
 */
export class Inventory {
  readonly identity: StackIdentity;
  /** By `keyString`. */
  readonly entries = new Map<string, InventoryEntry>();
  head: Head;
  readonly #maps: InventoryMaps;
  readonly #stackId: string;
  readonly #stackName: string;
  /** Sequences of the shards by number; one that is not here has to be written before the head may count on it. */
  readonly #shards = new Map<number, number>();
  /** What the shards hold. */
  readonly #sharded = new Map<string, InventoryEntry>();
  /** What the head was last written as; undefined when that is not certain. */
  #headText: string | undefined;
  /** Of the newest write, whether it was heard of or not. */
  #sequence = 0;

  constructor(place: InventoryPlace, stackId: string, stackName: string) {
    this.#stackId = stackId;
    this.#stackName = stackName;
    this.identity = stackIdentity(place.agentId, stackId, place.namespace);
    this.#maps = new InventoryMaps(place, this.identity);
    this.head = emptyHead(stackId, stackName);
  }

  /** Bytes of the entries, as stored. */
  get bytes(): number {
    return this.#maps.bytes;
  }

  /** Whether anything of this stack is stored. */
  get stored(): boolean {
    return this.#maps.has(this.identity.headName);
  }

  /** Whether a crash or a removal left something open, so that what is stored as applied is not the whole truth. */
  get inDoubt(): boolean {
    if (this.head.attempt || this.head.tombstone || this.head.partial) return true;
    return [...this.entries.values()].some(({ state }) => state !== 'applied' && state !== 'deleting');
  }

  /**
   * Stores head and entries: one write while few entries differ from the shards. Rejects with an `InventoryTakenError` when
   * somebody else wrote the inventory, and with a `KubeError`; then nothing may be written to the cluster on the strength of it.
   */
  async save(signal: AbortSignal): Promise<void> {
    const count = shardCount(this.entries.size, this.head.shards);
    if (count !== this.head.shards) this.#forgetShards(); // another layout, of which nothing is stored
    this.#sequence++;
    let journal = this.#journal();
    let text = encodeEntries(journal);
    const known = count === 1 || this.#shards.size === count;
    if (!known || (count > 1 && (journal.size > MAX_JOURNAL || text.length > MAX_JOURNAL_BYTES))) {
      await this.#saveShards(count, journal, signal);
      journal = new Map();
      text = encodeEntries(journal);
    }
    const head = { ...this.head, shards: count, sequence: 0 };
    const same = encodeHead(head) + text;
    if (this.#headText === same) return;
    this.#headText = undefined;
    this.head = { ...head, sequence: this.#sequence };
    const name = this.identity.headName;
    await this.#maps.write(name, { data: { head: encodeHead(this.head) }, entries: text }, signal);
    this.#headText = same;
    for (const old of this.#maps.names) {
      if (old !== name && (count === 1 || !old.startsWith(`${name}-${count}-`))) await this.#maps.remove(old, signal);
    }
  }

  /** Removes everything but the head. */
  async removeShards(signal: AbortSignal): Promise<void> {
    for (const name of this.#maps.names) if (name !== this.identity.headName) await this.#maps.remove(name, signal);
    this.#forgetShards();
    this.head = { ...this.head, shards: 1 };
    this.#headText = undefined;
  }

  /** Removes the head, last of all. */
  async removeHead(signal: AbortSignal): Promise<void> {
    await this.#maps.remove(this.identity.headName, signal);
  }

  /**
   * Takes over what is stored. Undefined when it is whole; else what is wrong: then the inventory holds what could be read, is `partial`,
   * and nothing of it counts as applied.
   */
  restore(objects: readonly KubeObject[]): string | undefined {
    this.entries.clear();
    this.#forgetShards();
    this.#headText = undefined;
    this.#maps.restore(objects);
    const problem = this.#read(new Map(objects.map((object) => [object.metadata.name, object])));
    this.#sequence = Math.max(this.#sequence, this.head.sequence, ...this.#shards.values());
    if (problem !== undefined) this.head = { ...this.head, partial: true, origin: '', appliedGeneration: 0n };
    return problem;
  }

  /** Reads again what is stored, after another process wrote it. */
  async reload(signal: AbortSignal): Promise<string | undefined> {
    return this.restore(await this.#maps.read(signal));
  }

  #read(objects: ReadonlyMap<string, KubeObject>): string | undefined {
    const { headName } = this.identity;
    this.head = emptyHead(this.#stackId, this.#stackName);
    const stored = objects.get(headName);
    if (!stored) return `the head ${headName} is missing`;
    const { head = '', entries = '' } = textData(stored);
    const problems: string[] = [];
    const attempt = (name: string, read: () => void) => {
      try {
        read();
      } catch (error) {
        problems.push(`${name}: ${errorText(error)}`);
      }
    };
    attempt(headName, () => {
      this.head = decodeHead(head);
    });
    const { shards: count, sequence } = this.head;
    for (let index = 0; count > 1 && index < count; index++) {
      const name = shardName(headName, count, index);
      attempt(name, () => this.#readShard(index, objects.get(name)));
    }
    attempt(headName, () => {
      for (const [key, entry] of decodeEntries(entries)) {
        if (count > 1 && (this.#shards.get(shardOf(key, count)) ?? 0) > sequence) continue; // the shard is newer
        if (entry) this.entries.set(key, entry);
        else this.entries.delete(key);
      }
    });
    if (problems.length === 0) this.#headText = encodeHead({ ...this.head, sequence: 0 }) + entries;
    return problems[0];
  }

  #readShard(index: number, object: KubeObject | undefined): void {
    if (!object) throw new Error('the shard is missing');
    const { sequence, entries = '' } = textData(object);
    for (const [key, entry] of decodeEntries(entries)) {
      if (!entry) continue;
      this.#sharded.set(key, entry);
      this.entries.set(key, entry);
    }
    this.#shards.set(index, Number(sequence));
  }

  /** What the shards do not say, or say wrongly. */
  #journal(): Map<string, InventoryEntry | undefined> {
    const journal = new Map<string, InventoryEntry | undefined>();
    for (const [key, entry] of this.entries) if (!sameEntry(this.#sharded.get(key), entry)) journal.set(key, entry);
    for (const key of this.#sharded.keys()) if (!this.entries.has(key)) journal.set(key, undefined);
    return journal;
  }

  /** Writes the shards that differ, and those of which it is not certain what they hold. */
  async #saveShards(count: number, journal: Entries, signal: AbortSignal): Promise<void> {
    const buckets = Array.from({ length: count }, () => new Map<string, InventoryEntry>());
    for (const [key, entry] of this.entries) buckets[shardOf(key, count)]?.set(key, entry);
    const touched = new Set([...journal.keys()].map((key) => shardOf(key, count)));
    const sequence = this.#sequence;
    await Promise.all(
      buckets.map(async (entries, index) => {
        if (this.#shards.has(index) && !touched.has(index)) return;
        this.#shards.delete(index);
        const name = shardName(this.identity.headName, count, index);
        await this.#maps.write(name, { data: { sequence: `${sequence}` }, entries: encodeEntries(entries) }, signal);
        this.#shards.set(index, sequence);
      }),
    );
    for (const [key, entry] of journal) {
      if (entry) this.#sharded.set(key, entry);
      else this.#sharded.delete(key);
    }
  }

  #forgetShards(): void {
    this.#shards.clear();
    this.#sharded.clear();
  }
}

/** The inventories of an agent as they are stored. */
export interface StoredInventories {
  readonly inventories: readonly Inventory[];
  /** ConfigMaps of inventories whose head cannot be read, by its name: to be restored once the stack is known. */
  readonly damaged: ReadonlyMap<string, readonly KubeObject[]>;
}

/** All inventories of the agent, in one list. What is damaged is logged and counts as lost in part: see `Inventory.restore`. */
export async function loadInventories(place: InventoryPlace, signal: AbortSignal): Promise<StoredInventories> {
  const objects = await readInventoryMaps(place, signal);
  const inventories: Inventory[] = [];
  const damaged = new Map<string, readonly KubeObject[]>();
  for (const object of objects) {
    const { head } = textData(object);
    if (head === undefined) continue;
    const { name } = object.metadata;
    const parts = objects.filter(({ metadata }) => metadata.name === name || metadata.name.startsWith(`${name}-`));
    let inventory: Inventory;
    try {
      const { stackId, stackName } = decodeHead(head);
      inventory = new Inventory(place, stackId, stackName);
    } catch (error) {
      damaged.set(name, parts);
      place.log.error({ configMap: name, error: errorText(error) }, 'inventory cannot be read');
      continue;
    }
    if (inventory.identity.headName !== name) continue; // a copy somebody made
    const problem = inventory.restore(parts);
    if (problem !== undefined) place.log.error({ configMap: name, error: problem }, 'inventory is damaged');
    inventories.push(inventory);
  }
  return { inventories, damaged };
}

/** Number of shards for so many entries; never fewer than before, so that shards move only while a stack grows. */
export function shardCount(entries: number, before: number): number {
  if (entries <= MAX_INLINE) return before;
  let count = Math.max(before, 2);
  while (count * PER_SHARD < entries) count *= 2;
  return count;
}

function shardName(headName: string, count: number, index: number): string {
  return `${headName}-${count}-${index}`;
}

function shardOf(key: string, count: number): number {
  return createHash('sha256').update(key).digest().readUInt32BE(0) % count;
}
