import type { ApplyOptions, ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { type Engine, forEachLimited } from '../engine.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { classify } from '../kube/errors.ts';
import type { KubeObject, ObjectMeta } from '../kube/objects.ts';
import { retryMs } from '../stack/schedule.ts';
import type { StackTarget } from '../stack/target.ts';
import { judge, type Sighting, sight } from './drift.ts';
import { FightDetector } from './fights.ts';
import { type Answer, askServer, type Question, readLive } from './inspect.ts';
import { driftMode, type Mode } from './mode.ts';
import { type Correction, DriftRecords } from './records.ts';
import { additions } from './strict.ts';
import { VerifySchedule } from './trickle.ts';

/** Suspects dealt with at a time: one event and one sync for all of them. */
const MAX_TAKEN = 1000;
/** Of those, how many are read whole, to say in words what changed; of the others the metadata has to do. */
const MAX_WHOLE = 50;

/**
 * Why an object is looked at: it looks `changed` or `gone`, people `added` fields (matters in the mode `strict` only), it is its turn to
 * be `verified`, or a dry-run has `proven` that it is not as wanted.
 */
type Reason = 'changed' | 'gone' | 'added' | 'verify' | 'proven';

/** An object to be applied again, as it was found. */
export interface Suspect {
  readonly entry: InventoryEntry;
  /** Undefined when it is gone. */
  readonly live: KubeObject | undefined;
  /** Whether `live` has more than its metadata. */
  readonly whole: boolean;
  /** Whether what people added has to go. */
  readonly strict: boolean;
}

interface Due {
  readonly key: string;
  readonly entry: InventoryEntry;
  readonly reason: Reason;
  readonly mode: Mode;
  readonly whole: boolean;
}

/**
 * Objects of one stack that look changed or gone, or are to be verified. Only their keys are kept: each is read again before anything is
 * done about it. What may be done is a matter of its mode.
 */
export class Suspects {
  readonly #engine: Engine;
  readonly #inventory: Inventory;
  /** With the last sighting, where it was seen. */
  readonly #seen = new Map<string, { readonly reason: Reason; readonly sighting?: Sighting }>();
  readonly #fights = new FightDetector();
  readonly #records: DriftRecords;
  readonly #schedule: VerifySchedule;
  /** Monotonic time of the next batch to verify. */
  #verifyAt: number | undefined;
  /** Nothing is taken before this monotonic time: the last try failed. */
  #notBefore = 0;
  #failures = 0;

  constructor(engine: Engine, inventory: Inventory) {
    this.#engine = engine;
    this.#inventory = inventory;
    this.#records = new DriftRecords(engine, inventory, this.#fights);
    this.#schedule = new VerifySchedule(engine.verifyIntervalMs, inventory.identity.short);
  }

  /** Objects that are known to differ from what is wanted and are left so for now. Another array each time something changed. */
  get drifted(): readonly ObjectStatus[] {
    return this.#records.statuses;
  }

  /** An object of the stack was seen. True when that is news. */
  see(key: string, metadata: ObjectMeta): boolean {
    const entry = this.#inventory.entries.get(key);
    if (entry?.state !== 'applied') return false;
    const { identity } = this.#inventory;
    const sighting = sight(metadata, identity);
    if (judge(entry, sighting) === 'same') {
      if (additions(metadata, identity).length > 0) return this.#suspect(key, 'added');
      return this.#records.clear(key, metadata.uid);
    }
    return !this.#records.knows(key, sighting) && this.#suspect(key, 'changed', sighting);
  }

  /** An object of the stack was not among those listed, or left the watch. True when the inventory says that it should be there. */
  miss(key: string): boolean {
    const entry = this.#inventory.entries.get(key);
    return entry?.state === 'applied' && !entry.finished && this.#suspect(key, 'gone');
  }

  /** Whether the object looks changed or gone and was not judged yet. */
  has(key: string): boolean {
    const reason = this.#seen.get(key)?.reason;
    return reason === 'changed' || reason === 'gone' || reason === 'proven';
  }

  /** There is another target: what was left as it is is judged anew, and what made the last try fail may be over. */
  reconsider(): void {
    this.retryNow();
    for (const key of this.#records.keys) this.#suspect(key, 'changed');
  }

  /** Looks at objects whatever their fingerprints say: at all of the stack unless told which. */
  verify(keys: Iterable<string> = this.#inventory.entries.keys()): void {
    for (const key of keys) {
      const reason = this.#seen.get(key)?.reason ?? 'added';
      if (reason === 'added') this.#seen.set(key, { reason: 'verify' }); // every other one is looked at anyway
    }
  }

  /** Monotonic time of the next batch to be verified. */
  get verifyAt(): number {
    const { clock } = this.#engine;
    this.#verifyAt ??= clock.monotonic() + this.#schedule.nextIn(clock.now(), this.#inventory.entries.size);
    return this.#verifyAt;
  }

  /** Marks the batch whose time has come. True when there is something to verify. */
  verifyDue(): boolean {
    const { clock } = this.#engine;
    if (clock.monotonic() < this.verifyAt) return false;
    this.#verifyAt = undefined;
    const keys = this.#schedule.batch(clock.now(), this.#inventory.entries);
    this.verify(keys);
    return keys.length > 0;
  }

  /** Monotonic time at which the next suspect may be dealt with under these options. */
  dueAt(options: ApplyOptions): number {
    let due = Number.POSITIVE_INFINITY;
    for (const [key, { reason }] of this.#seen) due = Math.min(due, this.#dueAt(key, reason, options));
    return Math.max(due, this.#notBefore);
  }

  /** Takes back what could not be corrected, to be tried again at `at`. What was seen meanwhile is newer and stays. */
  putBack(suspects: ReadonlyMap<string, Suspect>, at: number | undefined): void {
    const { entries } = this.#inventory;
    const uncorrected = [...suspects].filter(
      ([key, { entry }]) => entries.get(key) === entry || entries.get(key)?.state !== 'applied',
    );
    if (uncorrected.length === 0) return;
    for (const [key, { live }] of uncorrected) {
      if (!this.#seen.has(key)) this.#seen.set(key, { reason: live ? 'proven' : 'gone' });
    }
    this.#notBefore = at ?? this.#engine.clock.monotonic() + retryMs('transient', 1);
  }

  /** What made the last try fail is over. */
  retryNow(): void {
    this.#notBefore = 0;
  }

  /** Remembers what was corrected, to notice fights. */
  corrected(corrections: readonly Correction[]): void {
    const now = this.#engine.clock.monotonic();
    for (const { key } of corrections) this.#fights.corrected(key, now);
  }

  /**
   * Deals with what is due: reads each object, asks the server by dry-run where metadata cannot tell, reports what may not be corrected
   * (now), and gives the rest to be applied. All of it at low priority.
   */
  async take(target: StackTarget, signal: AbortSignal): Promise<ReadonlyMap<string, Suspect>> {
    const suspects = new Map<string, Suspect>();
    const left: (Suspect & Due)[] = [];
    const questions: (Question & Due)[] = [];
    await forEachLimited(this.#due(target.options), this.#engine.share, async (due) => {
      const live = await this.#read(due, signal);
      if (live === 'unknown') return;
      const finding = this.#find(due, live);
      const suspect = { entry: due.entry, live, whole: due.whole, strict: due.mode === 'strict' };
      if (finding === 'ask' && live) questions.push({ ...due, metadata: live.metadata });
      else if (finding === 'drifted' && due.reason === 'verify') this.#seen.set(due.key, { reason: 'proven' });
      else if (finding === 'drifted' && this.#corrects(due)) suspects.set(due.key, suspect);
      else if (finding === 'drifted') left.push({ ...due, ...suspect });
    });
    const answers = await askServer(this.#engine, target, this.#inventory, questions, signal);
    for (const question of questions) this.#answered(question, answers.get(question.key) ?? 'unknown');
    await this.#records.report(target, left, signal);
    for (const { key, mode } of left) if (mode !== 'detect') this.#suspect(key, 'changed'); // its time will come
    return suspects;
  }

  #suspect(key: string, reason: Reason, sighting?: Sighting): boolean {
    const before = this.#seen.get(key)?.reason;
    if (before === 'proven') return false;
    this.#seen.set(key, { reason, ...(sighting && { sighting }) });
    return before !== reason;
  }

  #dueAt(key: string, reason: Reason, options: ApplyOptions): number {
    const entry = this.#inventory.entries.get(key);
    if (entry?.state !== 'applied') return 0; // only to be dropped
    const mode = driftMode(entry, options);
    if (mode === 'off' || (reason === 'added' && mode !== 'strict')) return Number.POSITIVE_INFINITY;
    if (mode === 'detect') return this.#records.againAt(key);
    const held = this.#fights.notBefore(key);
    return held > this.#engine.clock.monotonic() && !this.#records.has(key) ? 0 : held;
  }

  #due(options: ApplyOptions): Due[] {
    const now = this.#engine.clock.monotonic();
    const due: Due[] = [];
    if (now < this.#notBefore) return due;
    for (const [key, { reason, sighting }] of this.#seen) {
      if (due.length >= MAX_TAKEN) break;
      if (this.#dueAt(key, reason, options) > now) continue;
      this.#seen.delete(key);
      const entry = this.#inventory.entries.get(key);
      if (entry?.state !== 'applied') continue;
      if (reason === 'changed' && sighting && judge(entry, sighting) === 'same') continue; // applied or verified since
      due.push({ key, entry, reason, mode: driftMode(entry, options), whole: reason !== 'verify' && due.length < MAX_WHOLE });
    }
    return due;
  }

  #corrects({ key, mode }: Due): boolean {
    return mode !== 'detect' && this.#fights.notBefore(key) <= this.#engine.clock.monotonic();
  }

  async #read({ key, entry, reason, whole }: Due, signal: AbortSignal): Promise<KubeObject | undefined | 'unknown'> {
    try {
      const live = await readLive(this.#engine, entry, whole, signal);
      this.#failures = 0;
      return live;
    } catch (error) {
      signal.throwIfAborted(); // the server cannot be asked: no conclusion
      if (reason === 'verify') {
        this.#engine.verification.skipped++;
        return 'unknown';
      }
      if (!this.#seen.has(key)) this.#seen.set(key, { reason });
      this.#failures += 1;
      this.#notBefore = this.#engine.clock.monotonic() + retryMs(classify(error), this.#failures);
      return 'unknown';
    }
  }

  /** What the object as it is now says. A version we know is proof that nobody wrote it since. */
  #find({ key, entry, reason, mode }: Due, live: KubeObject | undefined): 'same' | 'ask' | 'drifted' {
    if (!live) return entry.finished ? 'same' : 'drifted';
    if (reason === 'proven') return 'drifted';
    const { metadata } = live;
    if (reason === 'verify') this.#engine.verification.verified++;
    const verdict = judge(entry, sight(metadata, this.#inventory.identity));
    if (verdict === 'drifted') return 'drifted';
    if (mode === 'strict' && additions(metadata, this.#inventory.identity).length > 0) return 'drifted';
    if (verdict === 'check' || (reason === 'verify' && metadata.resourceVersion !== entry.print?.resourceVersion)) return 'ask';
    this.#records.clear(key, metadata.uid);
    return 'same';
  }

  #answered({ key, entry, metadata, mode }: Question & Due, answer: Answer): void {
    const { verification } = this.#engine;
    if (answer === 'changed' || (answer === 'conflict' && mode !== 'detect')) this.#seen.set(key, { reason: 'proven' });
    if (answer === 'unknown') verification.skipped++;
    if (answer !== 'same' && !(answer === 'conflict' && mode === 'detect')) return;
    if (this.#inventory.entries.get(key) !== entry) return;
    // Kept in memory: what is stored stays true, and the next restart asks once more.
    this.#inventory.entries.set(key, { ...entry, print: sight(metadata, this.#inventory.identity).print });
  }
}
