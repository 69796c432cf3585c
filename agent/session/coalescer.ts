/** The newest value of every key, until the other side has acknowledged it. Bounded by the number of keys. */
export class Coalescer<T> {
  readonly #entries = new Map<string, { readonly value: T; sentAs: bigint | undefined }>();

  /** Replaces what was to be said about the key. */
  set(key: string, value: T): void {
    this.#entries.delete(key); // the newest goes to the end of the line
    this.#entries.set(key, { value, sentAs: undefined });
  }

  /** What is still to be said, oldest first. */
  *unsent(): Generator<readonly [key: string, value: T]> {
    for (const [key, { value, sentAs }] of this.#entries) if (sentAs === undefined) yield [key, value];
  }

  /** The values of these keys travel in frame `seq`. */
  markSent(keys: Iterable<string>, seq: bigint): void {
    for (const key of keys) {
      const entry = this.#entries.get(key);
      if (entry) entry.sentAs = seq;
    }
  }

  /** Frames up to `seq` were taken: drops what travelled in them and returns it. */
  acknowledge(seq: bigint): T[] {
    const taken: T[] = [];
    for (const [key, { value, sentAs }] of this.#entries) {
      if (sentAs === undefined || sentAs > seq) continue;
      taken.push(value);
      this.#entries.delete(key);
    }
    return taken;
  }

  /** A new session begins: everything not acknowledged is to be said again. */
  rewind(): void {
    for (const entry of this.#entries.values()) entry.sentAs = undefined;
  }

  /** Number of keys with something unacknowledged. */
  get size(): number {
    return this.#entries.size;
  }
}
