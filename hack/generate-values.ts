import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { load } from 'js-yaml';
import { ROOT } from './process.ts';

/** Files of values, the title of each in the page, and below which value of the first chart they are. */
const FILES = [
  { file: 'deploy/charts/brokkr-broker/values.yaml', title: 'brokkr-broker', prefix: [] },
  {
    file: 'deploy/charts/brokkr-broker/charts/postgresql/values.yaml',
    title: 'brokkr-broker: the bundled PostgreSQL',
    prefix: ['postgresql'],
  },
  { file: 'deploy/charts/brokkr-agent/values.yaml', title: 'brokkr-agent', prefix: [] },
] as const;

/** The reference page of the values of the charts, from the values files and their comments. */
export async function generateValues(): Promise<ReadonlyMap<string, string>> {
  const sections = await Promise.all(
    FILES.map(async ({ file, title, prefix }) => {
      const rows = readValues(await readFile(join(ROOT, file), 'utf8'), file).map(({ path, fallback, meaning }) => {
        const text = JSON.stringify(fallback).replaceAll('|', '\\|');
        return `| \`${[...prefix, ...path].join('.')}\` | \`${text}\` | ${meaning.replaceAll('|', '\\|')} |`;
      });
      return `\n## ${title}\n\n| Value | Default | Meaning |\n|---|---|---|\n${rows.join('\n')}\n`;
    }),
  );
  const page = `# Values of the charts

Generated from the values files in \`deploy/charts\`. How to use them: [install.md](../install.md).
${sections.join('')}`;
  return new Map([['docs/reference/values.md', page]]);
}

/** A value that users set. */
export interface ChartValue {
  readonly path: readonly string[];
  readonly fallback: unknown;
  readonly meaning: string;
}

/**
 * The values of a file in their order: a key with a comment right above it is one, with everything below; a key without is a group. Throws
 * for a key that is neither, with its line.
 */
export function readValues(text: string, file: string): ChartValue[] {
  const tree = load(text);
  const values: ChartValue[] = [];
  const open: { readonly indent: number; readonly key: string; readonly isGroup: boolean }[] = [];
  let comment: string[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    const said = /^ *# (.*)$/.exec(line)?.[1];
    const { indent = '', key, rest } = /^(?<indent> *)(?<key>[A-Za-z]+):(?<rest>.*)$/.exec(line)?.groups ?? {};
    if (said !== undefined) comment.push(said);
    while (key !== undefined && (open.at(-1)?.indent ?? -1) >= indent.length) open.pop();
    if (key !== undefined && (open.at(-1)?.isGroup ?? true)) {
      const path = [...open.map((each) => each.key), key];
      if (comment.length === 0 && rest !== '') throw new Error(`${file}:${index + 1}: ${path.join('.')} has no comment`);
      if (comment.length > 0) values.push({ path, fallback: valueAt(tree, path), meaning: comment.join(' ').replace(/\.$/, '') });
      open.push({ indent: indent.length, key, isGroup: comment.length === 0 });
    }
    if (said === undefined) comment = [];
  }
  return values;
}

function valueAt(tree: unknown, path: readonly string[]): unknown {
  return path.reduce((value, key) => (value as Record<string, unknown>)[key], tree);
}
