/** Settings of an exponential backoff with full jitter. */
export interface BackoffOptions {
  /** Upper bound of the first wait, in milliseconds. */
  readonly baseMs: number;
  /** Upper bound of every wait, in milliseconds. */
  readonly capMs: number;
}

/**
 * The wait before attempt `attempt` (0 is the first retry): uniform in [0, min(cap, base · 2^attempt)), "full jitter"
 * (AWS Architecture Blog, "Exponential Backoff And Jitter"). `random` returns a number in [0, 1).
 */
export function backoffMs(attempt: number, { baseMs, capMs }: BackoffOptions, random: () => number): number {
  const bound = Math.min(capMs, baseMs * 2 ** Math.min(attempt, 30));
  return Math.floor(random() * bound);
}

/** `ms` varied by ± `fraction`, so that many processes do not act at once. */
export function jitter(ms: number, fraction: number, random: () => number): number {
  return Math.round(ms * (1 - fraction + 2 * fraction * random()));
}
