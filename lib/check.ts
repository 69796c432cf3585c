import { type Clock, TimeoutError } from './clock.ts';
import { failureText, nextStep, type ReachFailure, reachFailure } from './reach-failure.ts';
import { abortable } from './signal.ts';

/** One thing that was tried. */
export interface CheckStep {
  readonly tried: string;
  readonly ok: boolean;
  readonly ms: number;
  /** What came of it: an answer, or what was wrong. */
  readonly said: string;
}

/** What a check found. */
export interface CheckReport {
  readonly check: string;
  readonly target: string;
  readonly result: 'ok' | ReachFailure;
  /** Why the result is not `ok`. */
  readonly reason?: string;
  /** What to look at next when it is not. */
  readonly next?: string;
  readonly steps: readonly CheckStep[];
}

/** What checks need. */
export interface CheckDeps {
  readonly clock: Clock;
  /** Bound of one step. */
  readonly timeoutMs: number;
}

/** Does one step and notes it; rejects when it fails, and with a `TimeoutError` when its time is over. */
export type Step = <T>(tried: string, attempt: (signal: AbortSignal) => Promise<T>, said: (value: T) => string) => Promise<T>;

/** Does the steps of a check up to the first that `work` does not survive. Rejects only with the reason of `signal`. */
export async function runCheck(
  subject: { readonly check: string; readonly target: string },
  work: (step: Step) => Promise<void>,
  { clock, timeoutMs }: CheckDeps,
  signal: AbortSignal,
): Promise<CheckReport> {
  const steps: CheckStep[] = [];
  const step: Step = async (tried, attempt, said) => {
    const started = clock.monotonic();
    const note = (ok: boolean, text: string) =>
      steps.push({ tried, ok, ms: Math.round(clock.monotonic() - started), said: text });
    using deadline = clock.deadline(timeoutMs, signal);
    try {
      const value = await abortable(attempt(deadline.signal), deadline.signal);
      note(true, said(value));
      return value;
    } catch (error) {
      signal.throwIfAborted();
      note(false, stepText(error, timeoutMs));
      throw error;
    }
  };
  try {
    await work(step);
    return { ...subject, result: 'ok', steps };
  } catch (error) {
    signal.throwIfAborted();
    const result = reachFailure(error) ?? 'unknown';
    return { ...subject, result, reason: stepText(error, timeoutMs), next: nextStep(result, error), steps };
  }
}

/** The report for people; the last line is the next step. */
export function reportText({ check, target, result, next, steps }: CheckReport): string {
  const lines = steps.map(({ tried, ok, ms, said }) => {
    return `  ${ok ? 'ok    ' : 'FAILED'} ${String(ms).padStart(6)} ms  ${tried}${said && `: ${said}`}`;
  });
  return [`check ${check} ${target}`, ...lines, `result: ${result}`, ...(next === undefined ? [] : [`next: ${next}`]), ''].join(
    '\n',
  );
}

function stepText(error: unknown, timeoutMs: number): string {
  return error instanceof TimeoutError ? `no answer within ${timeoutMs} ms` : failureText(error);
}
