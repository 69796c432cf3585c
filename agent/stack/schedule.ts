import type { ErrorClass } from '../kube/errors.ts';

interface Schedule {
  readonly baseMs: number;
  readonly capMs: number;
}

/** When a failed attempt is repeated, by the class of its failure (APPLY §5.8); the wait doubles from the first to the second number. */
export const SCHEDULES: Readonly<Record<ErrorClass, Schedule>> = {
  transient: { baseMs: 500, capMs: 60_000 },
  race: { baseMs: 500, capMs: 30_000 },
  expired: { baseMs: 500, capMs: 30_000 },
  credential: { baseMs: 5000, capMs: 300_000 },
  'transient-slow': { baseMs: 1000, capMs: 60_000 },
  dependency: { baseMs: 5000, capMs: 60_000 },
  policy: { baseMs: 10_000, capMs: 600_000 },
  // Grants are not announced: a right that is given is used within a minute, jitter included.
  permission: { baseMs: 15_000, capMs: 45_000 },
  denied: { baseMs: 300_000, capMs: 300_000 },
  permanent: { baseMs: 600_000, capMs: 600_000 },
  size: { baseMs: 600_000, capMs: 600_000 },
};

/** Milliseconds until the next attempt after `failures` failed ones (1 is the first). */
export function retryMs(kind: ErrorClass, failures: number): number {
  return doubled(SCHEDULES[kind], failures);
}

/** The wait after so many tries (1 is the first), in milliseconds. */
export function doubled({ baseMs, capMs }: Schedule, failures: number): number {
  return Math.min(capMs, baseMs * 2 ** Math.min(failures - 1, 20));
}
