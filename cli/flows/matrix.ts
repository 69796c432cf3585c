import { flowTable, MATRIX, tableNames } from '#flows/emit/flow-tables.ts';
import type { TextTable } from '#flows/emit/text-table.ts';
import { csvTable, markdownTable, tableObjects } from '#flows/emit/text-table.ts';
import type { Cli } from '../cli.ts';
import { usageError } from '../failure.ts';
import type { Terminal } from '../terminal.ts';
import { type ModelOptions, readModel } from './model-source.ts';

/** How a table of flows is printed. */
export type TableFormat = 'md' | 'csv' | 'json';

/** Options of `brokkr flows matrix`. */
export interface MatrixOptions extends ModelOptions {
  readonly table?: string;
  readonly output: TableFormat;
}

/** `brokkr flows matrix`: a table of a flow set as its documents have it; the connection matrix unless another is named. */
export async function matrix(cli: Cli, { table = MATRIX, output, ...options }: MatrixOptions): Promise<void> {
  const model = await readModel(cli, options);
  const names = tableNames(model);
  if (!names.includes(table)) throw usageError(`there is no table ${table}, there are ${names.join(', ')}`);
  printTable(cli.terminal, output, flowTable(model, table));
}

/** Prints a table. */
export function printTable(terminal: Terminal, format: TableFormat, table: TextTable): void {
  const texts = { md: markdownTable, csv: csvTable, json: (data: TextTable) => JSON.stringify(tableObjects(data), undefined, 2) };
  terminal.line(texts[format](table).trimEnd());
}
