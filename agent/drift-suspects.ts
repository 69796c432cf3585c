import type { Engine } from './apply-engine.ts';
import { judge } from './drift.ts';
import type { Inventory } from './inventory.ts';
import type { InventoryEntry } from './inventory-codec.ts';
import type { ObjectMeta } from './kube/objects.ts';
import type { Resource } from './kube/resource.ts';
import { FightDetector } from './stack-worker-schedule.ts';

/** After a failed try. */
const RETRY_MS = 2000;

/** Objects of one stack that look changed or gone. What was seen is judged again before anything is done: we may have written meanwhile. */
export class Suspects {
  readonly #engine: Engine;
  readonly #inventory: Inventory;
  /** What was seen; undefined when the object seems gone. */
  readonly #seen = new Map<string, ObjectMeta | undefined>();
  readonly #fights = new FightDetector();
  /** Nothing is taken before this monotonic time: the last try failed. */
  #notBefore = 0;

  constructor(engine: Engine, inventory: Inventory) {
    this.#engine = engine;
    this.#inventory = inventory;
  }

  /** An object of the stack was seen. True when it looks changed. */
  see(key: string, metadata: ObjectMeta): boolean {
    const entry = this.#inventory.entries.get(key);
    if (entry?.state !== 'applied') return false;
    if (judge(entry, metadata, this.#inventory.identity) === 'same') return false;
    this.#seen.set(key, metadata);
    return true;
  }

  /** An object of the stack was not among those listed, or left the watch. True when the inventory says that it should be there. */
  miss(key: string): boolean {
    const entry = this.#inventory.entries.get(key);
    if (entry?.state !== 'applied' || entry.finished) return false;
    this.#seen.set(key, undefined);
    return true;
  }

  /** Monotonic time at which the next suspect may be dealt with. */
  dueAt(correcting: boolean): number {
    let due = Number.POSITIVE_INFINITY;
    if (correcting) for (const key of this.#seen.keys()) due = Math.min(due, this.#fights.notBefore(key));
    return Math.max(due, this.#notBefore);
  }

  /** Takes back what could not be corrected, to be tried again at `at`. What was seen meanwhile is newer and stays. */
  putBack(suspects: ReadonlyMap<string, ObjectMeta | undefined>, at: number | undefined): void {
    if (suspects.size === 0) return;
    for (const [key, seen] of suspects) if (!this.#seen.has(key)) this.#seen.set(key, seen);
    this.#notBefore = at ?? this.#engine.clock.monotonic() + RETRY_MS;
  }

  /** What made the last try fail is over. */
  retryNow(): void {
    this.#notBefore = 0;
  }

  /** Remembers what was corrected, to notice fights. */
  corrected(keys: readonly string[]): void {
    const now = this.#engine.clock.monotonic();
    for (const key of keys) this.#fights.corrected(key, now);
  }

  /**
   * The suspects that are changed or gone indeed, with what was seen of them; they are suspects no longer. One that seems gone is read
   * first (a watch by label also tells so of an object that lost the label).
   */
  async take(signal: AbortSignal): Promise<Map<string, ObjectMeta | undefined>> {
    const confirmed = new Map<string, ObjectMeta | undefined>();
    const now = this.#engine.clock.monotonic();
    if (now < this.#notBefore) return confirmed;
    for (const [key, seen] of [...this.#seen]) {
      if (this.#fights.notBefore(key) > now) continue;
      const entry = this.#inventory.entries.get(key);
      if (entry?.state !== 'applied') {
        this.#seen.delete(key);
        continue;
      }
      let metadata = seen;
      try {
        metadata ??= await this.#read(entry, signal);
      } catch {
        signal.throwIfAborted();
        this.#notBefore = now + RETRY_MS; // the server cannot be asked: no conclusion
        break;
      }
      this.#seen.delete(key);
      if (!metadata || judge(entry, metadata, this.#inventory.identity) !== 'same') confirmed.set(key, metadata);
    }
    return confirmed;
  }

  async #read(entry: InventoryEntry, signal: AbortSignal): Promise<ObjectMeta | undefined> {
    const { group, version, kind, plural, namespaced, namespace, name } = entry;
    const resource: Resource = { group, version, kind, plural, namespaced, verbs: [] };
    const { kube } = this.#engine;
    const ref = { resource, namespace: namespaced ? namespace : undefined, name };
    return await kube.limiter.run(() => kube.findMetadata(ref, signal), 'low', signal);
  }
}
