import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { Clock } from '#lib/clock.ts';
import { keyString } from '#lib/object.ts';
import type { Task } from '#lib/run.ts';
import { Wakeup } from '#lib/signal.ts';
import { Health, type HealthRule, type ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { type StackHealth, StackHealthSchema } from '#proto/brokkr/v1/sync_pb.js';
import { objectStatus } from '../apply/report.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { ReportSink } from '../stack/target.ts';
import { hasReadiness, type Readiness, type ReadyState } from './readiness.ts';
import { ruleFor } from './rule.ts';

/** Objects named in a health report. */
const MAX_OBJECTS = 20;
/** Two transitions of one stack are at least this far apart. */
const DEBOUNCE_MS = 2000;
const DEFAULT_INTERVAL_MS = 60_000;

/** Health of a stack as counted from its objects. */
export interface HealthCount {
  readonly health: Health;
  readonly objectsReady: number;
  readonly objectsTotal: number;
  readonly podsReady: number;
  readonly podsTotal: number;
  /** Objects that are not ready, at most 20. */
  readonly objects: readonly ObjectStatus[];
}

/**
 * Counts the health of the objects of a stack: `seen` is what is known of them, by key, `rules` are those of the stack. An object whose state
 * was not seen since it was written is on its way.
 */
export function countHealth(
  entries: Iterable<InventoryEntry>,
  seen: ReadonlyMap<string, Readiness>,
  rules: readonly HealthRule[] = [],
): HealthCount {
  const states = new Set<ReadyState>();
  const objects: ObjectStatus[] = [];
  const total = { objectsReady: 0, objectsTotal: 0, podsReady: 0, podsTotal: 0 };
  for (const entry of entries) {
    if (entry.state === 'kept' || entry.state === 'deleting') continue;
    const state = stateOf(entry, seen, rules);
    total.objectsTotal++;
    total.podsReady += state.podsReady;
    total.podsTotal += state.podsTotal;
    states.add(state.state);
    const ready = state.state === 'ready';
    if (ready) total.objectsReady++;
    if (objects.length < MAX_OBJECTS && (!ready || state === GONE_JOB)) {
      const since = state.sinceMs === undefined ? {} : { since: timestampFromMs(state.sinceMs) };
      objects.push(objectStatus(entry, ready ? 'finished' : 'not_ready', state.reason, state.message, since));
    }
  }
  return { ...total, objects, health: worst(states) };
}

const none = { podsReady: 0, podsTotal: 0 };

/** A job that was complete and is gone, by its time to live or by hand: that is its end, not a loss. */
const GONE_JOB: Readiness = {
  ...none,
  state: 'ready',
  reason: 'Complete',
  message: 'the job was complete and is gone; it is not run again',
};

/** State of one object of the inventory, as far as it is known. */
export function stateOf(entry: InventoryEntry, seen: ReadonlyMap<string, Readiness>, rules: readonly HealthRule[]): Readiness {
  if (entry.state === 'pending')
    return { ...none, state: 'progressing', reason: 'NotApplied', message: 'the object is not applied' };
  if (!hasReadiness(entry.group, entry.kind) && !ruleFor(rules, entry.group, entry.kind))
    return { ...none, state: 'ready', reason: 'Applied', message: '' };
  const known = seen.get(keyString(entry));
  const written = entry.print?.generation ?? 0;
  if (known && (known.uid ?? entry.uid) === entry.uid && (known.generation ?? written) >= written) return known;
  if (!known && entry.finished) return GONE_JOB;
  return { ...none, state: 'progressing', reason: 'NotSeen', message: 'its state was not seen yet' };
}

function worst(states: ReadonlySet<ReadyState>): Health {
  if (states.has('failing')) return Health.FAILING;
  if (states.has('progressing') || states.has('degraded') || states.has('suspended')) return Health.DEGRADED;
  return states.has('unknown') ? Health.UNKNOWN : Health.HEALTHY;
}

/** A stack, as far as its health is concerned. */
export interface HealthSubject {
  readonly stackId: string;
  readonly deploymentObjectId: string;
  /** Undefined while nothing is applied. */
  count(): HealthCount | undefined;
  /** Called when the health, or the objects that spoil it, changed. */
  healthChanged(count: HealthCount): void;
}

interface Tracked {
  dirty: boolean;
  reportedAt: number;
  last: string;
}

/**
 * Reports health: what changed at once (a stack that flaps, every 2 s), and everything at an interval. Counting is done here and only for
 * stacks of which something changed.
 */
export class HealthReporter implements Task {
  readonly name = 'health';
  readonly #report: ReportSink;
  readonly #clock: Clock;
  readonly #subjects = new Map<HealthSubject, Tracked>();
  readonly #wakeup = new Wakeup();
  #intervalMs = DEFAULT_INTERVAL_MS;
  #summaryAt: number;

  constructor({ report, clock }: { readonly report: ReportSink; readonly clock: Clock }) {
    this.#report = report;
    this.#clock = clock;
    this.#summaryAt = clock.monotonic() + this.#intervalMs;
  }

  /** Time between two reports of everything, in milliseconds. */
  set intervalMs(ms: number) {
    if (ms === this.#intervalMs || ms <= 0) return;
    this.#intervalMs = ms;
    this.#summaryAt = this.#clock.monotonic() + ms;
    this.#wakeup.wake();
  }

  /** Something about the health of a stack may have changed. */
  touch(subject: HealthSubject): void {
    const tracked = this.#subjects.get(subject) ?? { dirty: false, reportedAt: Number.NEGATIVE_INFINITY, last: '' };
    this.#subjects.set(subject, tracked);
    if (tracked.dirty) return;
    tracked.dirty = true;
    this.#wakeup.wake();
  }

  /** The stack is gone. */
  forget(subject: HealthSubject): void {
    this.#subjects.delete(subject);
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const next = this.#tick();
      try {
        await this.#wakeup.waitAtMost(Math.max(0, next - this.#clock.monotonic()), this.#clock, signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    }
  }

  /** Reports what is due and says when to look again. */
  #tick(): number {
    const now = this.#clock.monotonic();
    if (now >= this.#summaryAt) {
      this.#summaryAt = now + this.#intervalMs;
      const all = [...this.#subjects.keys()].map((subject) => this.#item(subject)).filter((item) => item !== undefined);
      if (all.length > 0) this.#report.health(all, 'summary');
    }
    let next = this.#summaryAt;
    const changed: StackHealth[] = [];
    for (const [subject, tracked] of this.#subjects) {
      if (!tracked.dirty) continue;
      if (now < tracked.reportedAt + DEBOUNCE_MS) {
        next = Math.min(next, tracked.reportedAt + DEBOUNCE_MS);
        continue;
      }
      tracked.dirty = false;
      const count = subject.count();
      if (!count) continue;
      const { health, objectsReady, objectsTotal, podsReady, podsTotal, objects } = count;
      const facts = [
        health,
        objectsReady,
        objectsTotal,
        podsReady,
        podsTotal,
        ...objects.map(({ name, reason }) => `${name} ${reason}`),
      ];
      if (facts.join() === tracked.last) continue;
      const first = tracked.last === '';
      const same = tracked.last.split(',')[0] === String(health);
      tracked.last = facts.join();
      tracked.reportedAt = now;
      subject.healthChanged(count);
      const item = first || !same ? this.#item(subject, count) : undefined;
      if (item) changed.push(item);
    }
    if (changed.length > 0) this.#report.health(changed, 'transition');
    return next;
  }

  #item(subject: HealthSubject, known?: HealthCount): StackHealth | undefined {
    const count = known ?? subject.count();
    if (!count) return undefined;
    const { stackId, deploymentObjectId } = subject;
    const checkedAt = timestampFromMs(this.#clock.now());
    return create(StackHealthSchema, { ...count, objects: [...count.objects], stackId, deploymentObjectId, checkedAt });
  }
}
