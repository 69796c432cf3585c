import { dot } from '#flows/emit/dot.ts';
import { drawingOf } from '#flows/emit/drawing.ts';
import { mermaidC4, mermaidFlowchart } from '#flows/emit/mermaid.ts';
import { svg } from '#flows/emit/svg.ts';
import type { Cli } from '../cli.ts';
import { usageError } from '../failure.ts';
import { type ModelOptions, readModel } from './model-source.ts';

/** Options of `brokkr flows diagram`. */
export interface DiagramOptions extends ModelOptions {
  readonly layers?: boolean;
  readonly table?: string;
  readonly output: keyof typeof RENDERERS;
}

const RENDERERS = { mermaid: mermaidFlowchart, 'mermaid-c4': mermaidC4, dot, svg } as const;

/** `brokkr flows diagram`: the flows of a set, or those of one of its tables, as a drawing. */
export async function diagram(cli: Cli, { layers, table, output, ...options }: DiagramOptions): Promise<void> {
  const model = await readModel(cli, options);
  const flows = model.flows.filter(({ tables }) => table === undefined || tables.includes(table));
  if (flows.length === 0)
    throw usageError(table === undefined ? 'there are no flows to draw' : `no flow is in the table ${table}`);
  const drawing = drawingOf({ ...model, flows }, layers === true ? 'layer' : 'zone');
  cli.terminal.line(RENDERERS[output](drawing).trimEnd());
}
