/** Corrections of one object within this time that look like a fight with somebody (APPLY §5.6). */
const FIGHT_CORRECTIONS = 3;
const FIGHT_WINDOW_MS = 600_000;
/** Wait before the next correction in a fight: the first, doubled each time up to the second. */
const FIGHT_WAIT = { baseMs: 30_000, capMs: 600_000 };
/** Objects remembered; the one not corrected for the longest time is forgotten first. */
const MAX_REMEMBERED = 1000;

interface Fight {
  /** Monotonic times of the last corrections, at most three. */
  readonly times: readonly number[];
  /** Wait after the last correction, in milliseconds; 0 while it is no fight. */
  readonly waitMs: number;
  /** Whether the fight was reported. */
  readonly told: boolean;
}

/**
 * Slows down the correction of objects that somebody keeps changing back. A fight is over when the object was left alone for ten
 * minutes longer than the wait.
 */
export class FightDetector {
  readonly #fights = new Map<string, Fight>();

  /** An object was corrected, at a monotonic time in milliseconds. */
  corrected(key: string, nowMs: number): void {
    const before = this.#fights.get(key) ?? { times: [], waitMs: 0, told: false };
    const last = before.times.at(-1) ?? Number.NEGATIVE_INFINITY;
    const over = nowMs > last + before.waitMs + FIGHT_WINDOW_MS;
    const times = before.times.filter((at) => before.waitMs > 0 || at > nowMs - FIGHT_WINDOW_MS).slice(1 - FIGHT_CORRECTIONS);
    const fight = over ? { times: [nowMs], waitMs: 0, told: false } : { ...before, times: [...times, nowMs] };
    const waitMs = fight.times.length < FIGHT_CORRECTIONS ? 0 : nextWait(fight.waitMs);
    this.#fights.delete(key);
    this.#fights.set(key, { ...fight, waitMs });
    const [oldest] = this.#fights.keys();
    if (this.#fights.size > MAX_REMEMBERED && oldest !== undefined) this.#fights.delete(oldest);
  }

  /** Monotonic time from which the object may be corrected again; 0 for at once. */
  notBefore(key: string): number {
    const fight = this.#fights.get(key);
    return fight && fight.waitMs > 0 ? (fight.times.at(-1) ?? 0) + fight.waitMs : 0;
  }

  /** True the first time it is asked in a fight: then the fight is worth an event. */
  tell(key: string): boolean {
    const fight = this.#fights.get(key);
    if (!fight || fight.told) return false;
    this.#fights.set(key, { ...fight, told: true });
    return true;
  }
}

function nextWait(waitMs: number): number {
  return waitMs === 0 ? FIGHT_WAIT.baseMs : Math.min(FIGHT_WAIT.capMs, waitMs * 2);
}
