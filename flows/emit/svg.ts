import type { Drawing, DrawnElement } from './drawing.ts';
import { type Box, type Edge, type Layout, layoutOf, type Point, SIZE } from './layout.ts';

/**
 * Colours that can be told apart by people who do not see red and green, legible on white; a viewer in dark mode gets the second set. No
 * variables: not every renderer knows them.
 */
const STYLE = `
    text { font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Helvetica, Arial, sans-serif; fill: #1f2933; }
    .page { fill: #ffffff; } .lane { fill: #f3f6fa; stroke: #b8c4d2; } .lane-title { font-size: 13px; font-weight: 600; fill: #52606d; }
    .title { font-size: 20px; font-weight: 600; } .name { font-size: 14px; font-weight: 600; } .words { font-size: 11px; fill: #52606d; }
    .system { fill: #dcebfa; stroke: #2b6cb0; } .database { fill: #e3f3ea; stroke: #2f855a; }
    .person { fill: #fdf0d5; stroke: #b7791f; } .external { fill: #ffffff; stroke: #7b8794; stroke-dasharray: 5 3; }
    .edge { fill: none; stroke: #52606d; stroke-width: 1.6; } .optional { stroke-dasharray: 6 4; } .head { fill: #52606d; }
    .label { font-size: 12px; } .detail { font-size: 11px; fill: #52606d; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e4e7eb; } .page { fill: #12181f; } .lane { fill: #1b242e; stroke: #3e4c59; } .lane-title, .words, .detail { fill: #9aa5b1; }
      .system { fill: #1c3a5e; stroke: #63a4e8; } .database { fill: #1d4532; stroke: #68c093; } .person { fill: #4d3a14; stroke: #e0b050; }
      .external { fill: #12181f; stroke: #9aa5b1; } .edge { stroke: #9aa5b1; } .head { fill: #9aa5b1; }
    }`;

const SHAPES = ['person', 'system', 'external', 'database'] as const satisfies DrawnElement['shape'][];
/** Most characters of an arrow's label: longer ones would tear the columns apart. */
const LABEL = 30;
/** Height of the legend below the lanes. */
const LEGEND = 44;

/** A drawing as a picture: SVG 1.1 with its own style, nothing loaded from elsewhere. */
export function svg(drawing: Drawing): string {
  const relations = drawing.relations.map((relation) => ({ ...relation, label: shortened(relation.label, LABEL) }));
  const layout = layoutOf({ ...drawing, relations }, textWidth);
  const width = Math.max(layout.width, LEGEND_WIDTH, textWidth(drawing.title) * 1.8 + 2 * SIZE.margin);
  const height = layout.height + LEGEND;
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${n(width)} ${n(height)}" width="${n(width)}" height="${n(height)}" role="img">`,
    `  <title>${xml(drawing.title)}</title>`,
    `  <style>${STYLE}\n  </style>`,
    '  <defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto-start-reverse"><path class="head" d="M0,1 L10,5 L0,9 z"/></marker></defs>',
    `  <rect class="page" width="${n(width)}" height="${n(height)}"/>`,
    `  <text class="title" x="${SIZE.margin}" y="46">${xml(drawing.title)}</text>`,
    ...layout.lanes.filter(({ title }) => title !== '').flatMap(laneLines),
    ...layout.edges.flatMap(edgeLines),
    ...layout.elements.flatMap((placed) => elementLines(placed)),
    ...legendLines(layout),
    '</svg>',
  ];
  return `${lines.join('\n')}\n`;
}

function laneLines(lane: Layout['lanes'][number]): string[] {
  return [
    `  <rect class="lane" x="${n(lane.x)}" y="${n(lane.y)}" width="${n(lane.width)}" height="${n(lane.height)}" rx="10"/>`,
    `  <text class="lane-title" x="${n(lane.x + 14)}" y="${n(lane.y + 17)}">${xml(lane.title)}</text>`,
  ];
}

function edgeLines({ relation, points, backwards, label }: Edge): string[] {
  const marker = backwards ? 'marker-start' : 'marker-end';
  const lines = [`  <path class="edge${relation.required ? '' : ' optional'}" d="${pathOf(points)}" ${marker}="url(#head)"/>`];
  if (relation.label !== '')
    lines.push(`  <text class="label" x="${n(label.x)}" y="${n(label.y - 5)}">${xml(relation.label)}</text>`);
  lines.push(`  <text class="detail" x="${n(label.x)}" y="${n(label.y + 13)}">${xml(relation.detail)}</text>`);
  return lines;
}

/** Curves that are horizontal at every point; straight where two have one height. */
function pathOf([first, ...rest]: readonly Point[]): string {
  if (!first) return '';
  let before = first;
  const parts = rest.map((point) => {
    const middle = n((before.x + point.x) / 2);
    const part =
      before.y === point.y ? `H${n(point.x)}` : `C${middle},${n(before.y)} ${middle},${n(point.y)} ${n(point.x)},${n(point.y)}`;
    before = point;
    return part;
  });
  return `M${n(first.x)},${n(first.y)} ${parts.join(' ')}`;
}

function elementLines({ element, self, ...box }: Layout['elements'][number]): string[] {
  const names = wrapped(element.title, 22, 2);
  const words = [...wrapped(element.description, 32, 2), ...self.map((detail) => `among replicas: ${detail}`).slice(0, 1)];
  const height = names.length * 17 + words.length * 14;
  let y = box.y + (box.height - height) / 2 + (element.shape === 'database' ? 4 : 0);
  const centre = n(box.x + box.width / 2);
  const texts = [...names.map((text) => ['name', text, 17] as const), ...words.map((text) => ['words', text, 14] as const)];
  return [
    ...shapeLines(element.shape, box),
    ...texts.map(([style, text, advance]) => {
      y += advance;
      return `  <text class="${style}" x="${centre}" y="${n(y - 3)}" text-anchor="middle">${xml(text)}</text>`;
    }),
  ];
}

function shapeLines(shape: DrawnElement['shape'], { x, y, width, height }: Box): string[] {
  if (shape !== 'database') {
    const radius = shape === 'person' ? Math.min(height / 2, 30) : 8;
    return [`  <rect class="${shape}" x="${n(x)}" y="${n(y)}" width="${n(width)}" height="${n(height)}" rx="${n(radius)}"/>`];
  }
  const [right, bottom, bend] = [n(x + width), n(y + height - 7), 7];
  const arc = (to: string) => `A${n(width / 2)},${bend} 0 0 0 ${to}`;
  return [
    `  <path class="database" d="M${n(x)},${n(y + 7)} V${bottom} ${arc(`${right},${bottom}`)} V${n(y + 7)} A${n(width / 2)},${bend} 0 0 0 ${n(x)},${n(y + 7)} ${arc(`${right},${n(y + 7)}`)}"/>`,
  ];
}

const LEGEND_ITEM = 112;
const LEGEND_WIDTH = 2 * SIZE.margin + 6 * LEGEND_ITEM;

function legendLines({ height }: Layout): string[] {
  const y = height + 4;
  const at = (index: number) => SIZE.margin + index * LEGEND_ITEM;
  const shapes = SHAPES.flatMap((shape, index) => [
    ...shapeLines(shape, { x: at(index), y: y - 9, width: 26, height: 18 }),
    `  <text class="words" x="${at(index) + 34}" y="${n(y + 4)}">${shape}</text>`,
  ]);
  const edges = (['required', 'optional'] as const).flatMap((kind, index) => [
    `  <path class="edge${kind === 'optional' ? ' optional' : ''}" d="M${at(4 + index)},${n(y)} h28" marker-end="url(#head)"/>`,
    `  <text class="words" x="${at(4 + index) + 36}" y="${n(y + 4)}">${kind}</text>`,
  ]);
  return [...shapes, ...edges];
}

/** Lines of at most so many characters, broken at blanks; what does not fit the last ends with an ellipsis. */
function wrapped(text: string, characters: number, lines: number): string[] {
  const result: string[] = [];
  for (const word of text.split(/\s+/).filter((part) => part !== '')) {
    const last = result.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= characters) result[result.length - 1] = `${last} ${word}`;
    else result.push(word);
  }
  if (result.length <= lines) return result;
  return [...result.slice(0, lines - 1), shortened(result.slice(lines - 1).join(' '), characters)];
}

/** The text, or its beginning and an ellipsis. */
function shortened(text: string, characters: number): string {
  return text.length <= characters ? text : `${text.slice(0, characters - 1).trimEnd()}…`;
}

/** An estimate, wide rather than narrow: the font is the viewer's. */
function textWidth(text: string): number {
  return [...text].reduce(
    (sum, character) => sum + (/[ilj.,:;'|!()[\] ]/.test(character) ? 4 : /[mwMW@%&]/.test(character) ? 10.5 : 7),
    0,
  );
}

/** Numbers with at most one decimal: enough for pixels. */
function n(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function xml(text: string): string {
  const clean = text.replaceAll(/\p{Cc}/gu, ' ');
  return clean.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
