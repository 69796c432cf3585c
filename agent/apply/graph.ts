import { keyString, type ObjectKey } from '#lib/object.ts';
import { LAST_RANK, rankOf } from './order.ts';

/** What the graph has to know of an object. */
export interface GraphItem extends ObjectKey {
  readonly wave: number;
  /** Keys (`keyString`) of objects to be applied before this one; those that are not in the graph are there already. */
  readonly needs: readonly string[];
}

/** An object in the graph. */
export interface Node<Item> {
  readonly item: Item;
  readonly key: string;
  readonly rank: number;
  /** What it waits for; never itself, not even by a detour. */
  readonly needs: readonly Node<Item>[];
  /** The wave it goes with: its own, or the latest one of what it needs. */
  readonly wave: number;
}

/** What is applied between two barriers: `steps` one after the other, the nodes of each as their needs allow. */
export interface Wave<Item> {
  readonly wave: number;
  /** Everything else, then what intercepts requests. Within a step in the order of kinds, and of equal kinds as given. */
  readonly steps: readonly (readonly Node<Item>[])[];
}

/**
 * The order to apply items in. An item refers only to kinds that come before its own (`rankOf`); other references are left out, so there are
 * no cycles. One that needs an item of a later wave goes with that wave. O(n log n) and the number of needs.
 */
export function wavesOf<Item extends GraphItem>(items: readonly Item[]): Wave<Item>[] {
  const ranked = items.map((item) => ({ item, key: keyString(item), rank: rankOf(item) }));
  ranked.sort((a, b) => a.rank - b.rank);
  const nodes = new Map<string, Node<Item>>();
  for (const { item, key, rank } of ranked) {
    const needs: Node<Item>[] = [];
    let { wave } = item;
    for (const name of item.needs) {
      const need = nodes.get(name);
      if (need === undefined || need.rank >= rank) continue;
      needs.push(need);
      wave = Math.max(wave, need.wave);
    }
    nodes.set(key, { item, key, rank, needs, wave });
  }
  const waves = Map.groupBy(nodes.values(), ({ wave }) => wave);
  return [...waves]
    .sort(([a], [b]) => a - b)
    .map(([wave, all]) => ({ wave, steps: [all.filter(isEarly), all.filter((node) => !isEarly(node))].filter(isFilled) }));
}

function isEarly({ rank }: Node<unknown>): boolean {
  return rank < LAST_RANK;
}

function isFilled({ length }: readonly unknown[]): boolean {
  return length > 0;
}
