import type { Drawing, DrawnElement } from './drawing.ts';

const SHAPES: Readonly<Record<DrawnElement['shape'], string>> = {
  person: 'shape=oval',
  system: 'shape=box',
  external: 'shape=box, style="rounded,dashed"',
  database: 'shape=cylinder',
};

/** A drawing in the DOT language of Graphviz; optional arrows are dashed. */
export function dot({ title, loose, groups, relations }: Drawing): string {
  const node = ({ id, title: name, description, shape }: DrawnElement) =>
    `${id} [label=${quoted(...(description === '' ? [name] : [name, description]))}, ${SHAPES[shape]}];`;
  const lines = [
    `digraph ${quoted(title)} {`,
    `  label=${quoted(title)}; labelloc=t; rankdir=LR; fontname="sans-serif";`,
    '  node [fontname="sans-serif", style="rounded"]; edge [fontname="sans-serif", fontsize=10];',
    ...loose.map((item) => `  ${node(item)}`),
    ...groups.flatMap(({ id, title: name, elements }) => [
      `  subgraph cluster_${id} {`,
      `    label=${quoted(name)};`,
      ...elements.map((item) => `    ${node(item)}`),
      '  }',
    ]),
    ...relations.map(({ from, to, label, detail, required }) => {
      const texts = [label, detail].filter((part) => part !== '');
      return `  ${from} -> ${to} [label=${quoted(...texts)}${required ? '' : ', style=dashed'}];`;
    }),
    '}',
  ];
  return `${lines.join('\n')}\n`;
}

/** Lines of a label in quotes. */
function quoted(...lines: readonly string[]): string {
  return `"${lines
    .map((line) =>
      line
        .replaceAll('\\', '\\\\')
        .replaceAll('"', '\\"')
        .replaceAll(/\s*\n\s*/g, ' '),
    )
    .join('\\n')}"`;
}
