/** What a worker tells its reconciler. */
export interface WorkerEvents {
  /** The objects of the stack, what is known of their health, or what the worker waits for changed. */
  changed(): void;
  /** The objects of the stack are to be watched from now on, though the work on them goes on. */
  watch(): void;
  /** The stack has left for good. */
  gone(): void;
  /** Runs one piece of work when one of the bounded places is free. */
  run(work: () => Promise<void>, signal: AbortSignal): Promise<void>;
  /** Gives the place up for a wait within a piece of work, and takes one again. */
  aside<T>(wait: () => Promise<T>): Promise<T>;
}
