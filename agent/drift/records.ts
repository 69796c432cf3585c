import type { ApplyOptions, ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { attemptEvent, statusText } from '../apply/report.ts';
import type { Engine } from '../engine.ts';
import type { Fingerprint, InventoryEntry } from '../inventory/codec.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { KubeObject } from '../kube/objects.ts';
import type { StackTarget } from '../stack/target.ts';
import { fingerprint, type Sighting, samePrint } from './drift.ts';
import type { FightDetector } from './fights.ts';
import { prepareSome } from './inspect.ts';
import type { Mode } from './mode.ts';
import { driftStatus, explain } from './report.ts';

/** An object that keeps changing under the mode `detect` is looked at this often. */
const AGAIN_MS = 5000;

/** An object that was put back, with what had happened to it. */
export interface Correction {
  readonly key: string;
  readonly status: ObjectStatus;
}

/** An object found to differ from what is wanted, which is not corrected now. */
export interface Left {
  readonly key: string;
  readonly entry: InventoryEntry;
  readonly live: KubeObject | undefined;
  readonly whole: boolean;
  readonly strict: boolean;
  readonly mode: Mode;
}

interface Record {
  /** Undefined while the values are as wanted, though the fields belong to somebody else. */
  readonly status: ObjectStatus | undefined;
  readonly sinceMs: number;
  /** The fingerprint of our last write: another one there, and this is history. */
  readonly of: Fingerprint | undefined;
  /** As it was looked at. */
  readonly uid: string | undefined;
  readonly print: Fingerprint | undefined;
  readonly atMs: number;
}

/** What is known to differ and is left so: reported by one event when it begins, shown in the status until it is over. */
export class DriftRecords {
  readonly #engine: Engine;
  readonly #inventory: Inventory;
  readonly #fights: FightDetector;
  readonly #records = new Map<string, Record>();
  #statuses: readonly ObjectStatus[] = [];

  constructor(engine: Engine, inventory: Inventory, fights: FightDetector) {
    this.#engine = engine;
    this.#inventory = inventory;
    this.#fights = fights;
  }

  /** One for each object; another array each time something changed. */
  get statuses(): readonly ObjectStatus[] {
    for (const key of this.#records.keys()) if (!this.has(key)) this.#forget(key);
    return this.#statuses;
  }

  /** Whether the object was looked at since our last write, and left as it was. */
  has(key: string): boolean {
    const record = this.#records.get(key);
    return record !== undefined && record.of === this.#inventory.entries.get(key)?.print;
  }

  /** What was left as it was. */
  get keys(): Iterable<string> {
    return this.#records.keys();
  }

  /** Whether this state of the object was looked at before. */
  knows(key: string, { uid, print: now }: Sighting): boolean {
    const record = this.#records.get(key);
    if (!record?.print || !this.has(key) || record.uid !== uid) return false;
    // Without a generation only the version tells that a field which is no longer ours changed again.
    return samePrint(now, record.print) && (now.generation > 0 || now.resourceVersion === record.print.resourceVersion);
  }

  /** Monotonic time from which the object may be looked at again. */
  againAt(key: string): number {
    return this.has(key) ? (this.#records.get(key)?.atMs ?? 0) + AGAIN_MS : 0;
  }

  /** The object was seen as we left it. True when that is news. */
  clear(key: string, uid: string): boolean {
    return this.#inventory.entries.get(key)?.uid === uid && this.#forget(key);
  }

  /** Explains what is left as it is, with one event for all that is new. */
  async report(target: StackTarget, left: readonly Left[], signal: AbortSignal): Promise<void> {
    if (left.length === 0) return;
    const keys = new Set(left.filter(({ whole }) => whole).map(({ key }) => key));
    const objects = keys.size === 0 ? undefined : await prepareSome(this.#engine, target, this.#inventory, keys, signal);
    const detected: ObjectStatus[] = [];
    const fights: ObjectStatus[] = [];
    for (const each of left) {
      const known = this.#differs(each.key);
      const status = this.#record(each, objects?.get(each.key)?.json, target.options);
      if (!status) continue;
      if (each.mode === 'detect' && !known) detected.push(status);
      if (each.mode !== 'detect' && this.#fights.tell(each.key)) fights.push(status);
    }
    for (const status of detected) this.#engine.observe.drifted(status, false);
    for (const status of fights) this.#engine.observe.fought(status);
    await this.#tell(target, detected, true, 'changed by others and left as they are');
    await this.#tell(target, fights, false, 'changed again after each of three corrections');
  }

  /** Undefined when the values turn out to be as wanted: then only the ownership is to be watched. */
  #record(
    { key, entry, live, whole, strict, mode }: Left,
    wanted: string | undefined,
    options: ApplyOptions,
  ): ObjectStatus | undefined {
    const cause = explain({ entry, live, wanted, strict }, this.#inventory.identity, options);
    const print = live && fingerprint(live.metadata, this.#inventory.identity.fieldManager);
    const asWanted =
      cause.reason === 'disowned' || (cause.reason === 'changed' && whole && wanted !== undefined && cause.path === '');
    const { clock } = this.#engine;
    const sinceMs = (this.#differs(key) ? this.#records.get(key)?.sinceMs : undefined) ?? clock.now();
    const fight = mode === 'detect' ? {} : { reason: 'fight', text: this.#wait(key) };
    const status = mode === 'detect' && asWanted ? undefined : driftStatus(entry, cause, { state: 'drifted', sinceMs, ...fight });
    this.#records.set(key, { status, sinceMs, of: entry.print, uid: live?.metadata.uid, print, atMs: clock.monotonic() });
    this.#restate();
    return status;
  }

  #wait(key: string): string {
    const ms = this.#fights.notBefore(key) - this.#engine.clock.monotonic();
    return `; it is changed back each time, so the next correction waits ${Math.ceil(ms / 1000)} s`;
  }

  async #tell(target: StackTarget, objects: readonly ObjectStatus[], success: boolean, text: string): Promise<void> {
    const { report, clock, newId } = this.#engine;
    const [first] = objects;
    if (!first) return;
    const { stackId, generation, deploymentObjectId } = target;
    const message = `generation ${generation}: ${objects.length} ${text}: ${statusText(first)}`;
    const counts = { drifted: objects.length };
    const common = { attemptId: newId(), stackId, generation, deploymentObjectId, eventType: 'DRIFT', durationMs: 0 };
    await report.event(attemptEvent({ ...common, success, message, objects: [...objects], counts, atMs: clock.now() }));
  }

  #differs(key: string): boolean {
    return this.has(key) && this.#records.get(key)?.status !== undefined;
  }

  #forget(key: string): boolean {
    if (!this.#records.delete(key)) return false;
    this.#restate();
    return true;
  }

  #restate(): void {
    this.#statuses = [...this.#records.values()].flatMap((record) => record.status ?? []);
  }
}
