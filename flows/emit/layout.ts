import type { Drawing, DrawnElement, DrawnRelation } from './drawing.ts';

/** A point, in pixels from the top left. */
export interface Point {
  readonly x: number;
  readonly y: number;
}

/** A rectangle. */
export interface Box extends Point {
  readonly width: number;
  readonly height: number;
}

/** Where everything of a drawing goes: elements in columns by how far down the flows they are, groups as lanes across all columns. */
export interface Layout {
  readonly width: number;
  readonly height: number;
  readonly lanes: readonly (Box & { readonly title: string })[];
  readonly elements: readonly (Box & { readonly element: DrawnElement; readonly self: readonly string[] })[];
  readonly edges: readonly Edge[];
}

/** An arrow: horizontal at each of its points, the last stretch long enough for its label. */
export interface Edge {
  readonly relation: DrawnRelation;
  /** From left to right. */
  readonly points: readonly Point[];
  /** Whether the arrow's head is at its left end. */
  readonly backwards: boolean;
  /** Where its label begins; its text stands above, its detail below the line. */
  readonly label: Point;
}

/** Sizes, in pixels. */
export const SIZE = {
  element: 190,
  port: 40,
  minElement: 62,
  gapY: 22,
  lanePadding: 30,
  curve: 70,
  margin: 28,
  header: 56,
} as const;

/** Sweeps over the columns to put neighbours side by side; more change nothing on drawings that a person can still read. */
const SWEEPS = 8;

/** What stands in a column: an element, or a bend of an edge that passes. */
interface Slot {
  readonly id: string;
  readonly rank: number;
  readonly lane: number;
  readonly height: number;
  /** Place in its lane and column. */
  order: number;
  y: number;
}

/** An edge from left to right, with its slots in every column it touches. */
interface Track {
  readonly relation: DrawnRelation;
  readonly backwards: boolean;
  readonly slots: readonly Slot[];
}

/**
 * Lays a drawing out in layers (Sugiyama's method): ranks by the longest way, bends in the columns that an edge passes, order by the mean of
 * the neighbours, lanes for groups so that no box crosses another. `textWidth` measures labels.
 */
export function layoutOf(drawing: Drawing, textWidth: (text: string) => number): Layout {
  const lanes = [{ title: '', elements: drawing.loose }, ...drawing.groups].filter(({ elements }) => elements.length > 0);
  const elements = lanes.flatMap((lane) => lane.elements);
  const straight = drawing.relations.filter(({ from, to }) => from !== to);
  const { ranks, backwards } = ranksOf(
    elements.map(({ id }) => id),
    straight,
  );
  const slots = new Map<string, Slot>();
  lanes.forEach((lane, index) => {
    for (const { id } of lane.elements) {
      const leaving = straight.filter((relation) => (backwards.has(relation) ? relation.to : relation.from) === id).length;
      const reaching = straight.filter((relation) => (backwards.has(relation) ? relation.from : relation.to) === id).length;
      const height = Math.max(SIZE.minElement, Math.max(leaving, reaching) * SIZE.port + 12);
      slots.set(id, { id, rank: ranks.get(id) ?? 0, lane: index, height, order: slots.size, y: 0 });
    }
  });
  const tracks = straight.map((relation, index) => trackOf(relation, backwards.has(relation), slots, index));
  const columns = columnsOf(tracks, slots);
  sortColumns(columns, tracks);
  const laneBoxes = placeY(columns, lanes.length);
  const xs = columnXs(columns.length, tracks, textWidth);
  const width = (xs.at(-1) ?? 0) + SIZE.element + SIZE.lanePadding + SIZE.margin;
  return {
    width,
    height: (laneBoxes.at(-1)?.end ?? 0) + SIZE.margin,
    lanes: laneBoxes.map(({ start, end }, index) => {
      return { title: lanes[index]?.title ?? '', x: SIZE.margin, y: start, width: width - 2 * SIZE.margin, height: end - start };
    }),
    elements: elements.map((element) => {
      const { rank, y, height } = slots.get(element.id) as Slot;
      const self = drawing.relations.filter(({ from, to }) => from === to && from === element.id).map(({ detail }) => detail);
      return { element, self, x: xs[rank] ?? 0, y, width: SIZE.element, height };
    }),
    edges: edgesOf(tracks, xs),
  };
}

/** Columns of elements by the longest way to them; edges that would close a circle run backwards. */
function ranksOf(ids: readonly string[], relations: readonly DrawnRelation[]) {
  const backwards = new Set<DrawnRelation>();
  const state = new Map<string, 'open' | 'done'>();
  const visit = (id: string): void => {
    state.set(id, 'open');
    for (const relation of relations.filter(({ from }) => from === id)) {
      if (state.get(relation.to) === 'open') backwards.add(relation);
      else if (!state.has(relation.to)) visit(relation.to);
    }
    state.set(id, 'done');
  };
  const sources = ids.filter((id) => !relations.some(({ to }) => to === id));
  for (const id of [...sources, ...ids]) if (!state.has(id)) visit(id);
  const forward = relations.map((relation) => (backwards.has(relation) ? { from: relation.to, to: relation.from } : relation));
  const ranks = new Map(ids.map((id) => [id, 0]));
  const rank = (id: string) => ranks.get(id) ?? 0;
  // without circles the longest way has fewer edges than there are elements
  for (let round = 0; round < ids.length; round++)
    for (const { from, to } of forward) ranks.set(to, Math.max(rank(to), rank(from) + 1));
  for (const id of ids) {
    // what nothing leads to stands beside what it leads to
    const next = forward.filter(({ from }) => from === id).map(({ to }) => rank(to));
    if (next.length > 0 && !forward.some(({ to }) => to === id)) ranks.set(id, Math.min(...next) - 1);
  }
  return { ranks, backwards };
}

function trackOf(relation: DrawnRelation, backwards: boolean, slots: ReadonlyMap<string, Slot>, index: number): Track {
  const ends = [slots.get(relation.from) as Slot, slots.get(relation.to) as Slot];
  const [first, last] = (backwards ? ends.toReversed() : ends) as [Slot, Slot];
  const bends = Array.from({ length: last.rank - first.rank - 1 }, (_, step): Slot => {
    return { id: `${index}:${step}`, rank: first.rank + step + 1, lane: last.lane, height: SIZE.port, order: last.order, y: 0 };
  });
  return { relation, backwards, slots: [first, ...bends, last] };
}

function columnsOf(tracks: readonly Track[], slots: ReadonlyMap<string, Slot>): Slot[][] {
  const all = [...new Set([...slots.values(), ...tracks.flatMap((track) => track.slots)])];
  const count = Math.max(0, ...all.map(({ rank }) => rank + 1));
  return Array.from({ length: count }, (_, rank) => all.filter((slot) => slot.rank === rank));
}

/** Sorts each column by the mean place of neighbours, from left to right and back in turn; lanes stay together. */
function sortColumns(columns: readonly Slot[][], tracks: readonly Track[]): void {
  const [left, right] = [new Map<Slot, Slot[]>(), new Map<Slot, Slot[]>()];
  for (const { slots } of tracks) {
    for (const [index, slot] of slots.entries()) {
      const [before, after] = [slots[index - 1], slots[index + 1]];
      if (before) left.set(slot, [...(left.get(slot) ?? []), before]);
      if (after) right.set(slot, [...(right.get(slot) ?? []), after]);
    }
  }
  const place = ({ lane, order }: Slot) => lane * 1_000 + order;
  const renumber = (column: Slot[]) => {
    column.sort((a, b) => a.lane - b.lane || a.order - b.order);
    for (const [order, slot] of column.entries()) slot.order = order;
  };
  for (const column of columns) renumber(column);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const neighbours = sweep % 2 === 0 ? left : right;
    for (const column of sweep % 2 === 0 ? columns : columns.toReversed()) {
      for (const slot of column) {
        const near = neighbours.get(slot) ?? [];
        if (near.length > 0) slot.order = near.reduce((sum, other) => sum + place(other), 0) / near.length - slot.lane * 1_000;
      }
      renumber(column);
    }
  }
}

/** Stacks the slots of each lane, centred in it, and returns where lanes begin and end. */
function placeY(columns: readonly (readonly Slot[])[], lanes: number): { readonly start: number; readonly end: number }[] {
  const boxes: { start: number; end: number }[] = [];
  let top = SIZE.header + SIZE.margin;
  for (let lane = 0; lane < lanes; lane++) {
    const stacks = columns.map((column) => column.filter((slot) => slot.lane === lane));
    const heights = stacks.map((stack) => stack.reduce((sum, { height }) => sum + height + SIZE.gapY, -SIZE.gapY));
    const inner = Math.max(SIZE.minElement, ...heights);
    for (const [index, stack] of stacks.entries()) {
      let y = top + SIZE.lanePadding + (inner - (heights[index] ?? 0)) / 2;
      for (const slot of stack) {
        slot.y = y;
        y += slot.height + SIZE.gapY;
      }
    }
    boxes.push({ start: top, end: top + inner + 2 * SIZE.lanePadding });
    top += inner + 2 * SIZE.lanePadding + SIZE.gapY;
  }
  return boxes;
}

/** Columns are as far apart as the longest label between them needs. */
function columnXs(count: number, tracks: readonly Track[], textWidth: (text: string) => number): number[] {
  const xs = [SIZE.margin + SIZE.lanePadding];
  for (let rank = 1; rank < count; rank++) {
    const labels = tracks
      .filter(({ slots }) => slots.at(-1)?.rank === rank)
      .map(({ relation }) => labelWidth(relation, textWidth));
    xs.push((xs[rank - 1] ?? 0) + SIZE.element + SIZE.curve + Math.max(30, ...labels));
  }
  return xs;
}

function labelWidth({ label, detail }: DrawnRelation, textWidth: (text: string) => number): number {
  return Math.max(textWidth(label), textWidth(detail)) + 24;
}

/** Edges leave and reach an element at places of their own, in the order of where they come from and go to. */
function edgesOf(tracks: readonly Track[], xs: readonly number[]): Edge[] {
  const middle = (slot: Slot | undefined) => (slot ? slot.y + slot.height / 2 : 0);
  const portY = (slot: Slot, side: readonly Track[], track: Track, near: (other: Track) => Slot | undefined) => {
    const sorted = side.toSorted((a, b) => middle(near(a)) - middle(near(b)));
    return middle(slot) + (sorted.indexOf(track) - (sorted.length - 1) / 2) * SIZE.port;
  };
  return tracks.map((track): Edge => {
    const [first, last] = [track.slots[0] as Slot, track.slots.at(-1) as Slot];
    const leaving = tracks.filter(({ slots }) => slots[0] === first);
    const reaching = tracks.filter(({ slots }) => slots.at(-1) === last);
    const endY = portY(last, reaching, track, ({ slots }) => slots.at(-2));
    // curves stay in the first part of a gap between columns, labels in the rest, so that neither crosses the other
    const afterCurve = (slot: Slot) => (xs[slot.rank - 1] ?? 0) + SIZE.element + SIZE.curve;
    const bends = track.slots.slice(1, -1).flatMap((slot) => {
      return [afterCurve(slot), (xs[slot.rank] ?? 0) + SIZE.element].map((x) => ({ x, y: middle(slot) }));
    });
    const start = { x: (xs[first.rank] ?? 0) + SIZE.element, y: portY(first, leaving, track, ({ slots }) => slots[1]) };
    return {
      relation: track.relation,
      backwards: track.backwards,
      points: [start, ...bends, { x: afterCurve(last), y: endY }, { x: xs[last.rank] ?? 0, y: endY }],
      label: { x: afterCurve(last) + 4, y: endY },
    };
  });
}
