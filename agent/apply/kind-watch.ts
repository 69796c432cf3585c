import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import type { Task } from '#lib/run.ts';
import { Wakeup } from '#lib/signal.ts';
import type { Kube } from '../kube/kube.ts';
import { DEFINITIONS } from './definitions.ts';

/** Discovery lists a kind moments after its definition changed, so what changed is told once more after this time. */
const SETTLE_MS = 250;

/** What the watch needs. */
export interface KindWatchDeps {
  readonly kube: Kube;
  readonly clock: Clock;
  readonly log: Logger;
  /** The server may serve other kinds than before. */
  readonly changed: () => void;
}

/**
 * Watches the definitions of the cluster, their metadata only and only while a stack waits for a kind, so that it goes on as soon as the
 * kind is served. Kinds of aggregated API servers, and clusters whose definitions the agent may not watch, are left to the recheck of the
 * stacks.
 */
export class KindWatch implements Task {
  readonly name = 'kind watch';
  readonly #deps: KindWatchDeps;
  readonly #waiting = new Set<string>();
  readonly #wakeup = new Wakeup();
  #stop: AbortController | undefined;

  constructor(deps: KindWatchDeps) {
    this.#deps = deps;
  }

  /** Says whether a stack waits for kinds. */
  use(stackId: string, waits: boolean): void {
    if (waits) this.#waiting.add(stackId);
    else this.#waiting.delete(stackId);
    if (this.#waiting.size === 0) this.#stop?.abort(new Error('no stack waits for kinds'));
    else this.#wakeup.wake();
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#wakeup.wait(signal).catch(() => undefined);
      if (signal.aborted || this.#waiting.size === 0) continue;
      this.#stop = new AbortController();
      await this.#watch(AbortSignal.any([signal, this.#stop.signal]));
    }
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const { kube, clock, log, changed } = this.#deps;
    const news = new Wakeup();
    const reflector = kube.reflector({
      resource: DEFINITIONS,
      content: 'metadata',
      onEvent(event) {
        if (event.kind === 'degraded') log.warn({ error: event.error }, 'definitions cannot be watched');
        else news.wake();
      },
    });
    const tell = async () => {
      for (;;) {
        await news.wait(signal);
        changed();
        await clock.sleep(SETTLE_MS, signal);
        changed();
      }
    };
    const stopped = tell().catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
    await Promise.all([reflector.run(signal), stopped]);
  }
}
