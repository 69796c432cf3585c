/** What a worker tells its reconciler. */
export interface WorkerEvents {
  /** The objects of the stack, or what is known of their health, changed. */
  changed(): void;
  /** The stack has left for good. */
  gone(): void;
  /** Runs one piece of work when one of the bounded places is free. */
  run(work: () => Promise<void>, signal: AbortSignal): Promise<void>;
}
