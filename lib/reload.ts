import type { Clock } from './clock.ts';
import { errorText } from './errors.ts';

/** How often files are looked at unless told otherwise, milliseconds. */
const RELOAD_MS = 5000;

/** What is read from files, and who hears of it. */
export interface Reloading<T> {
  /** What is in use. */
  readonly used: T;
  /** Reads it anew; rejects when it is not usable. */
  readonly read: () => Promise<T>;
  readonly isSame: (found: T, used: T) => boolean;
  /** Hears of what is usable and new. */
  readonly changed: (found: T) => void;
  /** Hears why what is there is not usable, once for each reason in a row; what was in use stays. */
  readonly refused: (reason: string) => void;
  /** 5,000 when absent. */
  readonly everyMs?: number | undefined;
}

/** Looks at files again and again until `signal` aborts. Works through renames, links and mounts, which watching a file does not. */
export async function reload<T>(
  { used: first, read, isSame, changed, refused, everyMs = RELOAD_MS }: Reloading<T>,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  let used = first;
  let said = '';
  while (!signal.aborted) {
    await clock.sleep(everyMs, signal).catch(() => undefined);
    if (signal.aborted) return;
    try {
      const found = await read();
      said = '';
      if (isSame(found, used)) continue;
      used = found;
      changed(found);
    } catch (error) {
      const reason = errorText(error);
      if (reason !== said) refused(reason);
      said = reason;
    }
  }
}
