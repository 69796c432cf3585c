import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readModelSource } from '../cli/flows/model-source.ts';
import { drawingOf } from '../flows/emit/drawing.ts';
import { flowTable, MATRIX } from '../flows/emit/flow-tables.ts';
import { mermaidFlowchart } from '../flows/emit/mermaid.ts';
import { markdownTable } from '../flows/emit/text-table.ts';
import { hostTable } from '../flows/firewall/host-table.ts';
import { type FirewallPeer, type FirewallRule, firewallOf, flowIds } from '../flows/firewall/rules.ts';
import { endpointNamed, hopsOf } from '../flows/model/hops.ts';
import type { Model } from '../flows/model/model.ts';
import { portText } from '../flows/model/ports.ts';
import { resolve } from '../flows/model/resolve.ts';
import { readValues } from './generate-values.ts';
import { ROOT } from './process.ts';

const PAGE = 'docs/network.md';

/** A day for the flow set, in which nothing expires. */
const TODAY = '2026-01-01';

/** Addresses in a cell; the others are counted. */
const MAX_ADDRESSES = 2;

/** The sections of the network page that are data: of the flow set `examples/brokkr` and of the values files of the charts. */
export async function generateNetwork(): Promise<ReadonlyMap<string, string>> {
  const { set, facts } = await readModelSource({ filename: join(ROOT, 'examples/brokkr') });
  const model = (selection: { readonly without?: readonly string[]; readonly with?: readonly string[] }) =>
    resolve(set, { today: TODAY, facts, ...selection });
  const all = model({});
  const minimum = model({ without: ['metrics', 'otlp'], with: ['external-broker'] });
  const sections: Readonly<Record<string, string>> = {
    topology: `\`\`\`mermaid\n${mermaidFlowchart(drawingOf(model({ without: ['metrics'] }), 'zone'))}\`\`\`\n`,
    matrix: markdownTable(flowTable(all, MATRIX)),
    ports: portsTable(all),
    'broker-host': markdownTable(hostTable(minimum, 'broker')),
    'agent-host': markdownTable(hostTable(minimum, 'agent')),
    'broker-clouds': cloudsTable(minimum, 'broker'),
    'agent-clouds': cloudsTable(minimum, 'agent'),
    'broker-values': await policyValues('brokkr-broker'),
    'agent-values': await policyValues('brokkr-agent'),
  };
  let page = await readFile(join(ROOT, PAGE), 'utf8');
  for (const [name, text] of Object.entries(sections)) page = withSection(page, name, text);
  return new Map([[PAGE, page]]);
}

/** The page with what is between the markers of a section replaced. Throws when they are not there once. */
function withSection(page: string, name: string, text: string): string {
  const [begin, end] = [`<!-- generated: ${name} -->\n`, `<!-- end: ${name} -->\n`];
  const [before, rest, ...more] = page.split(begin);
  const after = rest?.split(end);
  if (before === undefined || after?.length !== 2 || more.length > 0)
    throw new Error(`${PAGE} needs ${begin.trim()} and ${end.trim()}, once each`);
  return `${before}${begin}\n${text}\n${end}${after[1]}`;
}

/** Who listens where, and who dials that port: what is drawn, with the proxies on the way. */
function portsTable(model: Model): string {
  const rows = new Map<string, { readonly cells: readonly string[]; readonly sources: Set<string> }>();
  for (const { from, to, ports, protocols } of model.flows
    .filter(({ implicit }) => !implicit)
    .flatMap((flow) => hopsOf(model, flow))) {
    const cells = [endpointNamed(model, to.name).title, ports.map(portText).join(', '), protocols.join(', ')];
    const row = rows.get(cells.join()) ?? { cells, sources: new Set() };
    rows.set(cells.join(), row);
    row.sources.add(from.title);
  }
  return markdownTable({
    title: 'Ports',
    columns: ['Listens', 'Port', 'Protocol', 'Dialled by'],
    rows: [...rows.values()].map(({ cells, sources }) => [...cells, [...sources].join(', ')]),
  });
}

/** The rules of a host by what each cloud knows the other end as. */
function cloudsTable(model: Model, host: string): string {
  const row = (rule: FirewallRule) => {
    const { direction, protocol, ports, peer } = rule;
    const port = ports.map(({ first, last }) => (first === last ? first : `${first}-${last}`)).join(', ');
    const { awsSecurityGroup, gcpTag, azureApplicationSecurityGroup } = peer;
    // GCP takes tags as sources only
    const groups = [awsSecurityGroup, direction === 'inbound' ? gcpTag : undefined, azureApplicationSecurityGroup];
    return [direction, `${port} ${protocol}`, ...groups.map((group) => group ?? addresses(peer)), flowIds(rule).join(', ')];
  };
  return markdownTable({
    title: `Cloud firewalls of ${host}`,
    columns: ['Direction', 'Port', 'AWS: security group', 'GCP: tag or range', 'Azure: range', 'Flows'],
    rows: firewallOf(model, host).rules.map(row),
  });
}

function addresses({ cidrs }: FirewallPeer): string {
  const others = cidrs.length - MAX_ADDRESSES;
  return `${cidrs.slice(0, MAX_ADDRESSES).join(', ')}${others > 0 ? ` and ${others} more` : ''}`;
}

/** The values `networkPolicy.*` of a chart. */
async function policyValues(chart: string): Promise<string> {
  const file = `deploy/charts/${chart}/values.yaml`;
  const values = readValues(await readFile(join(ROOT, file), 'utf8'), file).filter(({ path }) => path[0] === 'networkPolicy');
  const rows = values.map(({ path, meaning }) => [`\`${path.join('.')}\``, meaning]);
  return markdownTable({ title: chart, columns: ['Value', 'Meaning'], rows });
}
