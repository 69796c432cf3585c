/** Bounds the pieces of work done at a time; first come, first served. */
export class Slots {
  readonly #size: number;
  #free: number;
  readonly #waiting = new Set<() => void>();

  constructor(size: number) {
    this.#size = size;
    this.#free = size;
  }

  /** Pieces of work that have a place now. */
  get taken(): number {
    return this.#size - this.#free;
  }

  /** Runs a piece of work once there is a place. Rejects as the work does, or with the signal's reason while it waits. */
  async run(work: () => Promise<void>, signal: AbortSignal): Promise<void> {
    await this.#take(signal);
    try {
      await work();
    } finally {
      this.#give();
    }
  }

  /** Gives the place of the work that calls up for a wait, and takes one again in its turn, also when the wait rejects. */
  async aside<T>(wait: () => Promise<T>): Promise<T> {
    this.#give();
    try {
      return await wait();
    } finally {
      await this.#take(new AbortController().signal); // work that ends gives its place back: the turn comes
    }
  }

  async #take(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#free > 0) this.#free -= 1;
    else await this.#turn(signal);
  }

  #give(): void {
    const [next] = this.#waiting;
    if (next) {
      this.#waiting.delete(next);
      next();
    } else this.#free += 1;
  }

  #turn(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const grant = () => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    };
    const onAbort = () => {
      this.#waiting.delete(grant);
      reject(signal.reason);
    };
    this.#waiting.add(grant);
    signal.addEventListener('abort', onAbort, { once: true });
    return promise;
  }
}
