import { type Clock, TimeoutError } from './clock.ts';

/** Rejects with the signal's reason once it aborts; otherwise settles like `promise`. The promise itself goes on. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) {
      onAbort();
      promise.catch(() => undefined); // its owner gave up; the failure has no one left to go to
      return;
    }
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

/** Resolves once `signal` aborts. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** A wake-up that remembers one call made while nobody waited. One waiter at a time. */
export class Wakeup {
  #set = false;
  #resolve: (() => void) | undefined;

  /** Wakes the waiter, or makes the next `wait` return at once. */
  wake(): void {
    this.#set = true;
    this.#resolve?.();
  }

  /** Resolves at the next `wake` (or at once if one is pending) and consumes it; rejects when `signal` aborts. */
  async wait(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (!this.#set) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#resolve = resolve;
      try {
        await abortable(promise, signal);
      } finally {
        this.#resolve = undefined;
      }
    }
    this.#set = false;
  }

  /** Like `wait`, at most `ms`. False when that time was over first. */
  async waitAtMost(ms: number, clock: Clock, signal: AbortSignal): Promise<boolean> {
    using deadline = clock.deadline(ms, signal);
    try {
      await this.wait(deadline.signal);
      return true;
    } catch (error) {
      if (signal.aborted || !(error instanceof TimeoutError)) throw error;
      return false;
    }
  }
}
