import { endpointNamed } from '#flows/model/hops.ts';
import type { Flow, FlowTable, Model, TableField } from '#flows/model/model.ts';
import { portText } from '#flows/model/ports.ts';
import type { TextTable } from './text-table.ts';

/** The table that every model has: all flows that are not implicit, unless the set declares which. */
export const MATRIX = 'matrix';

/** The table of what is assumed rather than drawn (V-023), in every model. */
const IMPLICIT = 'implicit';

/** The table of the inventory. */
const INVENTORY = 'inventory';

/** Columns of a table that declares none. */
const COLUMNS: FlowTable['columns'] = [
  { title: 'Source', field: 'from' },
  { title: 'Destination', field: 'to' },
  { title: 'Port', field: 'ports' },
  { title: 'Protocol', field: 'application' },
  { title: 'Direction', field: 'direction' },
  { title: 'Required', field: 'required' },
  { title: 'Purpose', field: 'purpose' },
];

/** Names of the tables that a model has: the matrix, those it declares or flows name, the implicit flows, the inventory. */
export function tableNames({ tables, flows, inventory }: Model): readonly string[] {
  const named = [...tables.map(({ name }) => name), ...flows.flatMap((flow) => flow.tables)];
  const implicit = flows.some((flow) => flow.implicit) ? [IMPLICIT] : [];
  return [...new Set([MATRIX, ...named, ...implicit, ...(inventory.length > 0 ? [INVENTORY] : [])])];
}

/** A table of a model, rows in the order of its flows. Throws an `Error` for a name that it does not have. */
export function flowTable(model: Model, name: string): TextTable {
  const names = tableNames(model);
  if (!names.includes(name)) throw new Error(`there is no table ${name}, there are ${names.join(', ')}`);
  const declared = model.tables.find((table) => table.name === name);
  if (name === INVENTORY && !declared) return inventoryTable(model);
  const columns = declared?.columns ?? COLUMNS;
  const listed = model.flows.filter((flow) => isListed(model, flow, name));
  const sortBy = declared?.sortBy;
  const text = (flow: Flow) => (sortBy ? cellText(model, flow, sortBy, name) : '');
  return {
    title: declared?.title ?? name,
    columns: columns.map(({ title }) => title),
    rows: listed
      .toSorted((a, b) => compareTexts(text(a), text(b)))
      .map((flow) => columns.map(({ field }) => cellText(model, flow, field, name))),
  };
}

function isListed(model: Model, flow: Flow, table: string): boolean {
  if (flow.tables.includes(table)) return true;
  if (table === IMPLICIT) return flow.implicit;
  return table === MATRIX && !flow.implicit && !model.flows.some(({ tables }) => tables.includes(MATRIX));
}

function cellText(model: Model, flow: Flow, field: TableField, table: string): string {
  const end = (side: 'from' | 'to') => endpointNamed(model, flow[side]);
  const title = (side: 'from' | 'to') => end(side).titles[table] ?? end(side).title;
  const cluster = (side: 'from' | 'to') => capitalised(model.zones.get(end(side).zone)?.cluster ?? '');
  switch (field) {
    case 'id':
      return flow.id;
    case 'from':
    case 'to':
      return title(field);
    case 'from.cluster':
      return cluster('from');
    case 'to.cluster':
      return cluster('to');
    case 'ports':
      return flow.ports.map(portText).join(', ');
    case 'protocols':
      return flow.protocols.join(', ');
    case 'application':
      return flow.application === '' ? flow.protocols.join(', ') : flow.application;
    case 'direction':
      return capitalised(flow.direction);
    case 'required':
      return flow.required ? 'Yes' : 'Optional';
    case 'purpose':
      return flow.purposes[table] ?? flow.purpose;
  }
}

function inventoryTable({ inventory }: Model): TextTable {
  return {
    title: 'Proxies',
    columns: ['Usage', 'Proxy', 'Pod', 'Namespace', 'Description'],
    rows: inventory.map(({ usage, product, pod, namespace, description }) => [usage, product, pod, namespace, description]),
  };
}

/** By code unit, whatever the locale. */
function compareTexts(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
