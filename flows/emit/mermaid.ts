import type { Drawing, DrawnElement } from './drawing.ts';

const C4_SHAPES: Readonly<Record<DrawnElement['shape'], string>> = {
  person: 'Person',
  system: 'System',
  external: 'System_Ext',
  database: 'SystemDb',
};

/** A drawing as a C4 context diagram of Mermaid. */
export function mermaidC4({ title, loose, groups, relations }: Drawing): string {
  const element = ({ id, title: name, description, shape }: DrawnElement) => {
    const texts = description === '' ? [name] : [name, description];
    return `${C4_SHAPES[shape]}(${[id, ...texts.map(quoted)].join(', ')})`;
  };
  const blocks = [
    ['C4Context', `    title ${oneLine(title)}`],
    loose.map((item) => `    ${element(item)}`),
    ...groups.map(({ id, title: name, elements }) => [
      `    Enterprise_Boundary(${id}, ${quoted(name)}) {`,
      ...elements.map((item) => `        ${element(item)}`),
      '    }',
    ]),
    relations.map(({ from, to, label, detail }) => `    Rel(${from}, ${to}, ${quoted(label)}, ${quoted(detail)})`),
  ];
  return `${blocks
    .filter((block) => block.length > 0)
    .map((block) => block.join('\n'))
    .join('\n\n')}\n`;
}

const FLOWCHART_SHAPES: Readonly<Record<DrawnElement['shape'], readonly [string, string]>> = {
  person: ['([', '])'],
  system: ['[', ']'],
  external: ['[[', ']]'],
  database: ['[(', ')]'],
};

/** A drawing as a flowchart of Mermaid; optional arrows are dotted. */
export function mermaidFlowchart({ title, loose, groups, relations }: Drawing): string {
  const element = ({ id, title: name, shape }: DrawnElement) => {
    const [open, close] = FLOWCHART_SHAPES[shape];
    return `${id}${open}${quoted(name)}${close}`;
  };
  const lines = [
    '---',
    `title: ${JSON.stringify(oneLine(title))}`,
    '---',
    'flowchart LR',
    ...loose.map((item) => `    ${element(item)}`),
    ...groups.flatMap(({ id, title: name, elements }) => [
      `    subgraph group_${id}[${quoted(name)}]`,
      ...elements.map((item) => `        ${element(item)}`),
      '    end',
    ]),
    ...relations.map(({ from, to, label, detail, required }) => {
      const text = [label, detail]
        .filter((part) => part !== '')
        .map(escaped)
        .join('<br/>');
      return `    ${from} ${required ? '-->' : '-.->'}|"${text}"| ${to}`;
    }),
  ];
  return `${lines.join('\n')}\n`;
}

function quoted(text: string): string {
  return `"${escaped(text)}"`;
}

/** Mermaid knows entities by number, with a hash in place of the ampersand and the hash. */
function escaped(text: string): string {
  return oneLine(text).replaceAll('"', '#quot;');
}

function oneLine(text: string): string {
  return text.replaceAll(/\s*\n\s*/g, ' ');
}
