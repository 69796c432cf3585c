import type { Clock } from '#lib/clock.ts';
import type { Kube } from '../kube/kube.ts';
import { doubled } from '../stack/schedule.ts';
import { STACK_LABEL } from '../stack-identity.ts';
import type { WatchedKind } from './watch.ts';

/** A server that has just started refuses what it will allow, and grants are not announced: so it is asked again, less and less often. */
const ASK_AGAIN_MS = { baseMs: 60_000, capMs: 3_600_000 };

interface Confinement {
  readonly kind: WatchedKind;
  readonly refusals: number;
  /** Monotonic time of the next question. */
  readonly askAt: number;
}

/** The kinds that the agent may not watch in the whole cluster, as far as is known. */
export class Confinements {
  readonly #kube: Kube;
  readonly #clock: Clock;
  /** By group and kind. */
  readonly #confined = new Map<string, Confinement>();

  constructor({ kube, clock }: { readonly kube: Kube; readonly clock: Clock }) {
    this.#kube = kube;
    this.#clock = clock;
  }

  /** Whether the kind was refused; `group/kind`. */
  has(key: string): boolean {
    return this.#confined.has(key);
  }

  /** Milliseconds until the next question; undefined without one. */
  get dueInMs(): number | undefined {
    if (this.#confined.size === 0) return undefined;
    const next = Math.min(...[...this.#confined.values()].map(({ askAt }) => askAt));
    return Math.max(0, next - this.#clock.monotonic());
  }

  /** The server refused the kind. */
  refused(kind: WatchedKind): void {
    const key = `${kind.group}/${kind.kind}`;
    const refusals = (this.#confined.get(key)?.refusals ?? 0) + 1;
    this.#confined.set(key, { kind, refusals, askAt: this.#clock.monotonic() + doubled(ASK_AGAIN_MS, refusals) });
  }

  /** Asks for what is due, one list of one object a kind, and forgets kinds that are not used any more. */
  async ask(isUsed: (key: string) => boolean, signal: AbortSignal): Promise<void> {
    for (const [key, { kind, askAt }] of this.#confined) {
      if (!isUsed(key)) this.#confined.delete(key);
      else if (askAt <= this.#clock.monotonic()) {
        if (await this.#isAllowed(kind, signal)) this.#confined.delete(key);
        else this.refused(kind);
      }
    }
  }

  async #isAllowed(kind: WatchedKind, signal: AbortSignal): Promise<boolean> {
    const resource = { ...kind, verbs: [] };
    try {
      await this.#kube.list({ resource, labelSelector: STACK_LABEL, content: 'metadata', limit: 1 }, signal).next();
      return true;
    } catch {
      signal.throwIfAborted();
      return false; // or the server is away: asked again either way
    }
  }
}
