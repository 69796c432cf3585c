import type { ErrorClass } from './kube/errors.ts';

interface Schedule {
  readonly baseMs: number;
  readonly capMs: number;
}

/** When a failed attempt is repeated, by the class of its failure (APPLY §5.8); the wait doubles from the first to the second number. */
const SCHEDULES: Readonly<Record<ErrorClass, Schedule>> = {
  transient: { baseMs: 500, capMs: 60_000 },
  race: { baseMs: 500, capMs: 30_000 },
  expired: { baseMs: 500, capMs: 30_000 },
  credential: { baseMs: 5000, capMs: 300_000 },
  'transient-slow': { baseMs: 1000, capMs: 60_000 },
  dependency: { baseMs: 5000, capMs: 60_000 },
  policy: { baseMs: 10_000, capMs: 600_000 },
  permission: { baseMs: 30_000, capMs: 1_800_000 },
  denied: { baseMs: 300_000, capMs: 300_000 },
  permanent: { baseMs: 600_000, capMs: 600_000 },
  size: { baseMs: 600_000, capMs: 600_000 },
};

/** Milliseconds until the next attempt after `failures` failed ones (1 is the first). */
export function retryMs(kind: ErrorClass, failures: number): number {
  const { baseMs, capMs } = SCHEDULES[kind];
  return Math.min(capMs, baseMs * 2 ** Math.min(failures - 1, 20));
}

/** Corrections of one object that look like a fight with somebody, and how long they are counted. */
const FIGHT_CORRECTIONS = 3;
const FIGHT_WINDOW_MS = 600_000;
const FIGHT_WAIT = { baseMs: 30_000, capMs: 600_000 };
/** Objects remembered. */
const MAX_REMEMBERED = 1000;

/** Slows down the correction of objects that somebody keeps changing back. */
export class FightDetector {
  readonly #corrections = new Map<string, number[]>();

  /** An object was corrected. */
  corrected(key: string, nowMs: number): void {
    const times = (this.#corrections.get(key) ?? []).filter((at) => at > nowMs - FIGHT_WINDOW_MS);
    times.push(nowMs);
    this.#corrections.delete(key);
    this.#corrections.set(key, times);
    const [oldest] = this.#corrections.keys();
    if (this.#corrections.size > MAX_REMEMBERED && oldest !== undefined) this.#corrections.delete(oldest);
  }

  /** Monotonic time from which the object may be corrected again; 0 for at once. */
  notBefore(key: string): number {
    const times = this.#corrections.get(key) ?? [];
    const last = times.at(-1);
    if (last === undefined || times.length < FIGHT_CORRECTIONS) return 0;
    return last + Math.min(FIGHT_WAIT.capMs, FIGHT_WAIT.baseMs * 2 ** (times.length - FIGHT_CORRECTIONS));
  }
}
