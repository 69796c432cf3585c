import {
  ALL_CONNECTIONS,
  type ConnectionSet,
  intersectConnections,
  NO_CONNECTIONS,
  subtractConnections,
  unionConnections,
} from './connections.ts';

/** Number of a set in a `ConnectionTable`: equal sets have equal numbers. */
export type ConnectionId = number;

/** The numbers every table begins with. */
export const NONE: ConnectionId = 0;
export const ALL: ConnectionId = 1;

/**
 * Sets of connections by number, with operations that are worked out once for each pair of sets. A matrix of a million cells has a few
 * hundred distinct sets, so that most operations are one look-up. Lives as long as the evaluator that owns it.
 */
export class ConnectionTable {
  readonly #sets: ConnectionSet[] = [];
  readonly #ids = new Map<string, ConnectionId>();
  /** Results of an operation: by the first number, then by the second. */
  readonly #unions: ConnectionId[][] = [];
  readonly #intersections: ConnectionId[][] = [];
  readonly #differences: ConnectionId[][] = [];

  constructor() {
    this.idOf(NO_CONNECTIONS);
    this.idOf(ALL_CONNECTIONS);
  }

  /** The set of a number. */
  get(id: ConnectionId): ConnectionSet {
    return this.#sets[id] ?? NO_CONNECTIONS;
  }

  /** The number of a set; a new one when the set is new. */
  idOf(set: ConnectionSet): ConnectionId {
    const key = `${set.TCP.join()}/${set.UDP.join()}/${set.SCTP.join()}`;
    const known = this.#ids.get(key);
    if (known !== undefined) return known;
    const id = this.#sets.push(set) - 1;
    this.#ids.set(key, id);
    return id;
  }

  union(a: ConnectionId, b: ConnectionId): ConnectionId {
    if (a === b || b === NONE || a === ALL) return a;
    if (a === NONE || b === ALL) return b;
    return this.#once(this.#unions, a, b, unionConnections);
  }

  intersect(a: ConnectionId, b: ConnectionId): ConnectionId {
    if (a === b || b === ALL || a === NONE) return a;
    if (a === ALL || b === NONE) return b;
    return this.#once(this.#intersections, a, b, intersectConnections);
  }

  subtract(a: ConnectionId, b: ConnectionId): ConnectionId {
    if (a === b || a === NONE || b === ALL) return NONE;
    if (b === NONE) return a;
    return this.#once(this.#differences, a, b, subtractConnections);
  }

  #once(
    results: ConnectionId[][],
    a: ConnectionId,
    b: ConnectionId,
    operation: (a: ConnectionSet, b: ConnectionSet) => ConnectionSet,
  ): ConnectionId {
    const row = results[a] ?? [];
    const known = row[b];
    if (known !== undefined) return known;
    const id = this.idOf(operation(this.get(a), this.get(b)));
    row[b] = id;
    results[a] = row;
    return id;
  }
}
