import { createContext, Script } from 'node:vm';

/** What the script below calls; a context of its own keeps the name off the thread's global object. */
const holder: { work: () => void } = { work: () => undefined };
const context = createContext(holder);
const call = new Script('work()');

/**
 * Calls `work` with each index below `count`, synchronously. A call that takes longer than `deadlineMs` is ended by force, whatever it is
 * doing (Node's `vm` watchdog; no code can catch it), and told to `killed`. Throws what `work` throws. For threads of a pool: it blocks.
 */
export function eachBounded(
  count: number,
  deadlineMs: number,
  work: (index: number) => void,
  killed: (index: number) => void,
): void {
  let index = 0;
  while (index < count) {
    const first = index;
    holder.work = () => {
      for (; index < count; index++) work(index);
    };
    try {
      call.runInContext(context, { timeout: deadlineMs });
    } catch (error) {
      if (!isTimeout(error)) throw error;
      // One watchdog guards many calls, since starting it costs more than most of them. The one that was under way when the time of all
      // was over gets the whole deadline for itself.
      if (index === first) killed(index++);
    } finally {
      holder.work = () => undefined;
    }
  }
}

function isTimeout(error: unknown): boolean {
  return typeof error === 'object' && error !== null && 'code' in error && error.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT';
}
