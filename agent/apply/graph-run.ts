import type { Node } from './graph.ts';
import { RANK_COUNT } from './order.ts';

/** The work on one node. `leave` gives its place up before the end, for a wait that sends nothing. */
export type NodeWork<Item> = (node: Node<Item>, leave: () => void) => Promise<void>;

/**
 * Works on the nodes of a step, at most `width()` at a time (asked before each start): on a node once the work on all it needs has ended,
 * however it ended, earlier kinds first. Resolves when all is done. After a rejection nothing more is started; rejects with the first one
 * once the rest has ended.
 */
export function runStep<Item>(nodes: readonly Node<Item>[], width: () => number, work: NodeWork<Item>): Promise<void> {
  return new StepRun(nodes, width, work).done;
}

class StepRun<Item> {
  readonly done: Promise<void>;
  readonly #settle: { readonly resolve: () => void; readonly reject: (error: unknown) => void };
  readonly #width: () => number;
  readonly #work: NodeWork<Item>;
  readonly #ready = new ReadyQueue<Item>();
  /** By node, how many it still waits for. */
  readonly #waits = new Map<Node<Item>, number>();
  readonly #dependents = new Map<Node<Item>, Node<Item>[]>();
  #left: number;
  #working = 0;
  #places = 0;
  #failure: { readonly error: unknown } | undefined;

  constructor(nodes: readonly Node<Item>[], width: () => number, work: NodeWork<Item>) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.done = promise;
    this.#settle = { resolve, reject };
    this.#width = width;
    this.#work = work;
    this.#left = nodes.length;
    for (const node of nodes) this.#waits.set(node, 0);
    for (const node of nodes) this.#queue(node);
    this.#start();
  }

  #queue(node: Node<Item>): void {
    const waits = node.needs.filter((need) => this.#waits.has(need)); // the others are in steps before this one
    this.#waits.set(node, waits.length);
    if (waits.length === 0) this.#ready.push(node);
    for (const need of waits) {
      const dependents = this.#dependents.get(need);
      if (dependents) dependents.push(node);
      else this.#dependents.set(need, [node]);
    }
  }

  #start(): void {
    while (!this.#failure && this.#places < Math.max(1, this.#width())) {
      const node = this.#ready.take();
      if (!node) break;
      void this.#run(node);
    }
    if (this.#failure) {
      if (this.#working === 0) this.#settle.reject(this.#failure.error);
    } else if (this.#left === 0) this.#settle.resolve();
  }

  async #run(node: Node<Item>): Promise<void> {
    this.#working += 1;
    this.#places += 1;
    let holds = true;
    const leave = () => {
      if (holds) this.#places -= 1;
      holds = false;
    };
    try {
      await this.#work(node, () => {
        leave();
        this.#start();
      });
    } catch (error) {
      this.#failure ??= { error };
    }
    leave();
    this.#working -= 1;
    this.#left -= 1;
    for (const dependent of this.#dependents.get(node) ?? []) {
      const waits = (this.#waits.get(dependent) ?? 0) - 1;
      this.#waits.set(dependent, waits);
      if (waits === 0) this.#ready.push(dependent);
    }
    this.#start();
  }
}

/** Nodes that wait for nothing but a place: the lowest rank first, of equal rank the first to come. */
class ReadyQueue<Item> {
  readonly #ranks: { readonly nodes: Node<Item>[]; taken: number }[] = Array.from({ length: RANK_COUNT }, () => ({
    nodes: [],
    taken: 0,
  }));
  push(node: Node<Item>): void {
    this.#ranks[node.rank]?.nodes.push(node);
  }

  take(): Node<Item> | undefined {
    const rank = this.#ranks.find(({ nodes, taken }) => taken < nodes.length);
    return rank?.nodes[rank.taken++];
  }
}
