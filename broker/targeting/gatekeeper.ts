import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Task } from '#lib/run.ts';
import { Wakeup } from '#lib/signal.ts';
import type { Database } from '../database.ts';
import { passGates, untilNextGateMs } from './gate-store.ts';

/** What the gatekeeper needs. */
export interface GatekeeperDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called after a commit that wrote change-log rows. */
  readonly committed: () => void;
}

/** Longest wait: a clock of the database that was set forward is noticed after so long. */
const MAX_WAIT_MS = 60_000;
/** After a failure, and while another transaction holds what is due. */
const RETRY_MS = 1_000;

/**
 * Tells the change feed when a gate opens or closes. Every replica runs one; whoever comes first does the work, which is
 * the same whoever does it and however late: what is open is worked out anew from the rows.
 */
export class Gatekeeper implements Task {
  readonly name = 'gatekeeper';
  readonly #deps: GatekeeperDeps;
  readonly #wakeup = new Wakeup();

  constructor(deps: GatekeeperDeps) {
    this.#deps = deps;
  }

  /** Call when heads may have moved: a new one may have the next gate. */
  headsChanged(): void {
    this.#wakeup.wake();
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    while (!signal.aborted) {
      const waitMs = await this.#look().catch((error: unknown) => {
        log.warn({ error: errorText(error) }, 'gates could not be looked at, trying again');
        return RETRY_MS;
      });
      using deadline = clock.deadline(waitMs, signal);
      await this.#wakeup.wait(deadline.signal).catch(() => undefined);
    }
  }

  /** Passes what is due; returns how long nothing will be. */
  async #look(): Promise<number> {
    const { db, log, committed } = this.#deps;
    const passed = await passGates(db);
    if (passed > 0) {
      log.info({ stacks: passed }, 'gates of stacks have opened or closed');
      committed();
    }
    const nextMs = await untilNextGateMs(db);
    if (nextMs === null) return MAX_WAIT_MS;
    return Math.min(nextMs === 0 ? RETRY_MS : Math.ceil(nextMs), MAX_WAIT_MS);
  }
}
