/** A long-running part of a process. */
export interface Task {
  /** For logs. */
  readonly name: string;
  /** Works until `signal` aborts, then drains and returns. A rejection before the abort stops the whole process. */
  run(signal: AbortSignal): Promise<void>;
}

/**
 * Runs every task until the first one fails or `signal` aborts, then aborts the rest and waits for all of them.
 * Rejects with the first failure; an abort from outside is a normal end. A task that returns early is fine.
 */
export async function runTasks(tasks: readonly Task[], signal: AbortSignal): Promise<void> {
  const stop = new AbortController();
  const onAbort = () => stop.abort(signal.reason);
  if (signal.aborted) onAbort();
  else signal.addEventListener('abort', onAbort, { once: true });
  let failure: { readonly error: unknown } | undefined;
  await Promise.all(
    tasks.map(async (task) => {
      try {
        await task.run(stop.signal);
      } catch (error) {
        if (stop.signal.aborted) return; // ended because it was told to
        failure = { error };
        stop.abort(error);
      }
    }),
  );
  signal.removeEventListener('abort', onAbort);
  if (failure) throw failure.error;
}

/**
 * A signal that aborts at the first SIGINT or SIGTERM. After `graceMs` (or at a second signal) the process exits with
 * 1: the only place that calls `process.exit`. Call once, from `main.ts`.
 */
export function stopSignal(graceMs = 30_000): AbortSignal {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) process.exit(1);
    controller.abort(new Error(`received ${name}`));
    setTimeout(() => process.exit(1), graceMs).unref();
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return controller.signal;
}
