import type { JsonValue } from '@bufbuild/protobuf';
import type { Flow, Model } from '#flows/model/model.ts';
import { portText } from '#flows/model/ports.ts';
import type { Cli } from '../cli.ts';
import { printDocument } from '../output.ts';
import { table } from '../terminal.ts';
import { type ModelOptions, readModel } from './model-source.ts';

/** Options of `brokkr flows list`. */
export interface ListOptions extends ModelOptions {
  readonly direction?: 'north-south' | 'east-west' | Flow['direction'];
  readonly kind?: Flow['kind'];
  readonly table?: string;
  readonly output: 'table' | 'json' | 'yaml';
}

/** `brokkr flows list`: the flows of a model that the filters leave; as data with its zones and endpoints. */
export async function list(cli: Cli, options: ListOptions): Promise<void> {
  const model = await readModel(cli, options);
  const flows = model.flows.filter((flow) => isListed(flow, options));
  if (options.output !== 'table') return printDocument(cli.terminal, options.output, dataOf(model, flows));
  const rows = flows.map((flow) => [
    flow.id,
    titleOf(model, flow.from),
    titleOf(model, flow.to),
    flow.ports.map(portText).join(','),
    flow.protocols.join(','),
    flow.direction,
    flow.kind,
    flow.required ? 'yes' : flow.feature || 'optional',
    flow.purpose,
  ]);
  const header = ['ID', 'FROM', 'TO', 'PORTS', 'PROTOCOL', 'DIRECTION', 'KIND', 'REQUIRED', 'PURPOSE'];
  for (const line of table(header, rows, cli.terminal.paint)) cli.terminal.line(line);
}

function isListed(flow: Flow, { direction, kind, table: name }: ListOptions): boolean {
  if (kind !== undefined && flow.kind !== kind) return false;
  if (name !== undefined && !flow.tables.includes(name)) return false;
  if (direction === undefined) return true;
  if (direction === 'north-south' || direction === 'east-west') return flow.northSouth === (direction === 'north-south');
  return flow.direction === direction;
}

function titleOf({ endpoints }: Model, name: string): string {
  return endpoints.get(name)?.title ?? name;
}

function dataOf({ zones, endpoints, ...model }: Model, flows: readonly Flow[]): JsonValue {
  // fields without a value are left out, as JSON does
  return JSON.parse(JSON.stringify({ ...model, zones: [...zones.values()], endpoints: [...endpoints.values()], flows }));
}
