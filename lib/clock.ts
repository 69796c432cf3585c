/**
 * Time as a dependency. Production code gets `systemClock`; tests get a fake. The only file of `lib` and the processes
 * that may touch `Date`, timers and `performance` (lint).
 */
export interface Clock {
  /** Wall-clock time in milliseconds since the epoch; may jump. For records, never for measuring. */
  now(): number;
  /** Monotonic time in milliseconds. For measuring and deadlines. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason once it aborts. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
  /** A signal that aborts with a `TimeoutError` after `ms`, or with `signal`'s reason when that aborts first. */
  deadline(ms: number, signal: AbortSignal): Deadline;
}

/** A deadline owns a timer: dispose it (`using`) as soon as the guarded work has ended. */
export interface Deadline extends Disposable {
  readonly signal: AbortSignal;
}

/** Raised by `Clock.deadline` when the time is over. */
export class TimeoutError extends Error {
  override readonly name = 'TimeoutError';
}

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep(ms, signal) {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason);
        return;
      }
      const onAbort = () => {
        clearTimeout(timer);
        reject(signal.reason);
      };
      const timer = setTimeout(() => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      }, ms);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  },
  deadline(ms, signal) {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(new TimeoutError(`deadline of ${ms} ms exceeded`)), ms);
    const onAbort = () => controller.abort(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    return {
      signal: controller.signal,
      [Symbol.dispose]() {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
      },
    };
  },
};
