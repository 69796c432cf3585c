import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { objectStatus } from '../apply/report.ts';
import type { Engine } from '../engine.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { missing } from '../kube/errors.ts';
import type { ObjectMeta } from '../kube/objects.ts';

/** Waits after the server could not be asked. */
const RETRY_MS = 2000;

/**
 * Deletions of one stack that finalizers hold up. Nothing asks for them: the watches tell when an object is gone, and only then the server
 * is asked whether that is so (a watch by label also tells so of an object that lost the label).
 */
export class Terminating {
  readonly #engine: Engine;
  readonly #inventory: Inventory;
  readonly #missed = new Set<string>();
  #notBefore = 0;

  constructor(engine: Engine, inventory: Inventory) {
    this.#engine = engine;
    this.#inventory = inventory;
  }

  /** An object of the stack was not among those listed, or left the watch. True when its end was waited for. */
  miss(key: string): boolean {
    if (this.#inventory.entries.get(key)?.state !== 'deleting') return false;
    this.#missed.add(key);
    return true;
  }

  /** Monotonic time at which there is something to be looked at. */
  get dueAt(): number {
    return this.#missed.size > 0 ? this.#notBefore : Number.POSITIVE_INFINITY;
  }

  /** Takes those that are gone out of the inventory and stores it. True when there were any. Rejects when it cannot be stored. */
  async settle(signal: AbortSignal): Promise<boolean> {
    const { clock } = this.#engine;
    if (clock.monotonic() < this.dueAt) return false;
    let any = false;
    for (const key of [...this.#missed]) {
      const entry = this.#inventory.entries.get(key);
      this.#missed.delete(key);
      if (entry?.state !== 'deleting') continue;
      try {
        if (await findTerminating(this.#engine, entry, signal)) continue;
      } catch {
        signal.throwIfAborted();
        this.#missed.add(key); // the server cannot be asked: no conclusion
        this.#notBefore = clock.monotonic() + RETRY_MS;
        break;
      }
      this.#inventory.entries.delete(key);
      any = true;
    }
    if (any) await this.#inventory.save(signal);
    return any;
  }
}

/** The object whose deletion was accepted, as long as it is there. */
export async function findTerminating(
  { kube }: Engine,
  entry: InventoryEntry,
  signal: AbortSignal,
): Promise<ObjectMeta | undefined> {
  const { group, version, kind, plural, namespaced, namespace, name, uid } = entry;
  const resource = { group, version, kind, plural, namespaced, verbs: [] };
  const ref = { resource, namespace: namespaced ? namespace : undefined, name };
  try {
    const live = await kube.limiter.run(() => kube.findMetadata(ref, signal), 'low', signal);
    return live?.uid === uid ? live : undefined;
  } catch (error) {
    if (missing(error, plural) === 'kind') return undefined; // gone with its kind
    throw error;
  }
}

/** An object whose deletion was accepted, for reports. */
export function terminatingStatus(entry: InventoryEntry): ObjectStatus {
  const message = 'its deletion was accepted, finalizers have not let it go yet';
  return objectStatus(entry, 'terminating', 'finalizers', message, { since: timestampFromMs(entry.deletingSinceMs ?? 0) });
}
