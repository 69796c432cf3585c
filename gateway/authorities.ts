import { readAuthorities } from '#lib/authorities.ts';
import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { reload } from '#lib/reload.ts';
import type { Task } from '#lib/run.ts';

/** The authorities that upstreams are checked with: those of a file, which may change. */
export class Authorities implements Task {
  readonly name = 'authorities';
  readonly #file: string | undefined;
  readonly #deps: { readonly clock: Clock; readonly log: Logger };
  #pem: string | undefined;

  /** `pem`: what the file holds. Without a file they are those of the system. */
  constructor(
    { file, pem }: { readonly file: string | undefined; readonly pem: string | undefined },
    deps: { readonly clock: Clock; readonly log: Logger },
  ) {
    this.#file = file;
    this.#pem = pem;
    this.#deps = deps;
  }

  /** For the next connection, PEM; undefined: those of the system. */
  get pem(): string | undefined {
    return this.#pem;
  }

  /** Puts a changed file into use for new connections; old ones live on. */
  async run(signal: AbortSignal): Promise<void> {
    const file = this.#file;
    if (file === undefined) return;
    const { clock, log } = this.#deps;
    const reloading = {
      used: this.#pem,
      read: () => readAuthorities(file),
      isSame: (found: string | undefined, used: string | undefined) => found === used,
      changed: (found: string | undefined) => {
        this.#pem = found;
        log.info({ file }, 'authorities reloaded');
      },
      refused: (error: string) => log.error({ file, error }, 'new authorities not usable, keeping the old ones'),
    };
    await reload(reloading, clock, signal);
  }
}
