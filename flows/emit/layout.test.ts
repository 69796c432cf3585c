import { describe, expect, it } from 'vitest';
import { createRandom } from '../../test/soak/random.ts';
import type { Drawing, DrawnElement } from './drawing.ts';
import { type Box, layoutOf } from './layout.ts';
import { svg } from './svg.ts';

const SEEDS = 200;
const SHAPES = ['person', 'system', 'external', 'database'] as const;

function randomDrawing(seed: number): Drawing {
  const { below, chance, pick } = createRandom(seed + 1);
  const elements = Array.from({ length: 2 + below(14) }, (_, index): DrawnElement => {
    return {
      id: `e${index}`,
      title: 'word '.repeat(1 + below(6)).trim(),
      description: 'x '.repeat(below(40)),
      shape: pick(SHAPES),
    };
  });
  const lanes = 1 + below(4);
  const laneOf = elements.map(() => below(lanes));
  return {
    title: 'random <drawing> & more',
    loose: elements.filter((_, index) => laneOf[index] === 0),
    groups: Array.from({ length: lanes - 1 }, (_, lane) => {
      return { id: `g${lane}`, title: `group ${lane}`, elements: elements.filter((_, index) => laneOf[index] === lane + 1) };
    }),
    // circles and arrows to oneself included
    relations: Array.from({ length: below(30) }, () => {
      const [from, to] = [pick(elements), pick(elements)];
      return { from: from.id, to: to.id, label: 'label '.repeat(below(8)), detail: 'HTTPS :443', required: chance(0.5) };
    }),
  };
}

function overlap(a: Box, b: Box): boolean {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

function inside(box: Box, outer: Box): boolean {
  return (
    box.x >= outer.x &&
    box.y >= outer.y &&
    box.x + box.width <= outer.x + outer.width &&
    box.y + box.height <= outer.y + outer.height
  );
}

function pairsOf<T>(items: readonly T[]): [T, T][] {
  return items.flatMap((item, index) => items.slice(index + 1).map((other): [T, T] => [item, other]));
}

/** Boxes, lanes and labels of a random drawing overlap nowhere and lie in their lanes. */
function checkApart(seed: number): void {
  const drawing = randomDrawing(seed);
  const width = (text: string) => text.length * 7;
  const { elements, lanes, edges, ...size } = layoutOf(drawing, width);
  const page: Box = { x: 0, y: 0, ...size };
  const groups = [drawing.loose, ...drawing.groups.map((group) => group.elements)].filter((members) => members.length > 0);
  expect(
    pairsOf(elements).filter(([a, b]) => overlap(a, b)),
    `seed ${seed}`,
  ).toEqual([]);
  expect(
    pairsOf(lanes).filter(([a, b]) => overlap(a, b)),
    `seed ${seed}`,
  ).toEqual([]);
  for (const box of elements) {
    const lane = lanes[groups.findIndex((members) => members.includes(box.element))]!;
    expect(inside(box, lane) && inside(lane, page), `seed ${seed}`).toBe(true);
  }
  const labels = edges.map(({ label, relation }): Box => {
    return { x: label.x, y: label.y - 17, width: Math.max(width(relation.label), width(relation.detail)), height: 32 };
  });
  expect(
    labels.filter((label) => !inside(label, page) || elements.some((box) => overlap(label, box))),
    `seed ${seed}`,
  ).toEqual([]);
  expect(
    pairsOf(labels).filter(([a, b]) => overlap(a, b)),
    `seed ${seed}`,
  ).toEqual([]);
}

/** Arrows of a random drawing begin and end at the sides of their elements. */
function checkEnds(seed: number): void {
  const { elements, edges } = layoutOf(randomDrawing(seed), (text) => text.length * 7);
  const boxOf = (id: string) => elements.find(({ element }) => element.id === id)!;
  for (const { relation, points, backwards } of edges) {
    const [left, right] = backwards ? [relation.to, relation.from] : [relation.from, relation.to];
    const [start, end] = [points[0]!, points.at(-1)!];
    const [source, target] = [boxOf(left), boxOf(right)];
    expect([start.x, end.x], `seed ${seed}`).toEqual([source.x + source.width, target.x]);
    expect(start.y > source.y && start.y < source.y + source.height, `seed ${seed}`).toBe(true);
    expect(end.y > target.y && end.y < target.y + target.height, `seed ${seed}`).toBe(true);
  }
}

describe('the layout of a drawing', () => {
  it('keeps boxes and labels apart', () => {
    for (let seed = 0; seed < SEEDS; seed++) checkApart(seed);
  });

  it('has arrows from side to side of their elements', () => {
    for (let seed = 0; seed < SEEDS; seed++) checkEnds(seed);
  });

  it('is a picture with escaped texts', () => {
    const picture = svg(randomDrawing(1));
    expect(picture).toContain('<title>random &lt;drawing&gt; &amp; more</title>');
    expect(picture).not.toMatch(/NaN|undefined|https?:\/\/(?!www\.w3\.org)/);
  });
});
