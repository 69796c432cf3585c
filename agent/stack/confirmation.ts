import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Reach } from '../reach.ts';

/**
 * Network plugins enforce a policy some time after it was written (Kubernetes, "Network Policies", pod lifecycle): what is asked earlier proves
 * nothing. At most half the time there is.
 */
const SETTLE_MS = 3_000;
/** One question may take so long. */
const ASK_MS = 5_000;
const PAUSE_MS = 500;

/** Whether the agent still reaches what it needs, in words. */
export type Proof = { readonly kind: 'reached' | 'cut_off'; readonly message: string } | { readonly kind: 'stopped' };

/** What has to be proven. */
export interface ProofInput {
  readonly generation: bigint;
  /** Time there is, from now. */
  readonly seconds: number;
  /** Ends it without a result. */
  readonly stop: AbortSignal;
}

/** What a proof needs. */
export interface ProofDeps {
  readonly reach: Reach;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * Proves that everything of `reach` answers after a generation was applied: each is asked until it answers once, or the time is over. Rejects
 * only with the signal's reason.
 */
export async function proveReach(
  { reach, clock, log }: ProofDeps,
  { generation, seconds, stop }: ProofInput,
  signal: AbortSignal,
): Promise<Proof> {
  const either = AbortSignal.any([signal, stop]);
  const end = clock.monotonic() + seconds * 1000;
  const left = () => end - clock.monotonic();
  try {
    await clock.sleep(Math.min(SETTLE_MS, (seconds * 1000) / 2), either);
    const checks = await reach();
    const silent = new Map(checks.map((check) => [check, '']));
    for (;;) {
      using deadline = clock.deadline(Math.max(1, Math.min(ASK_MS, left())), either);
      await Promise.all(
        [...silent.keys()].map((check) =>
          check.ask(deadline.signal).then(
            () => silent.delete(check),
            (error: unknown) => silent.set(check, errorText(error)),
          ),
        ),
      );
      either.throwIfAborted();
      if (silent.size === 0) return { kind: 'reached', message: `${listed(checks.map(({ reached }) => reached))} answered` };
      if (left() <= 0) break;
      await clock.sleep(Math.min(PAUSE_MS, left()), either);
    }
    log.warn({ generation, problems: [...silent.values()] }, 'cut off by what was applied');
    const what = listed([...silent.keys()].map(({ unreached }) => unreached));
    return { kind: 'cut_off', message: `${what} within ${seconds} s after generation ${generation} was applied` };
  } catch (error) {
    signal.throwIfAborted();
    if (stop.aborted) return { kind: 'stopped' };
    throw error;
  }
}

function listed(parts: readonly string[]): string {
  return parts.length < 2 ? parts.join() : `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`;
}
