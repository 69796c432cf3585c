import { type Emitted, emitAws } from '#flows/firewall/aws.ts';
import { emitAzure } from '#flows/firewall/azure.ts';
import { emitGcp } from '#flows/firewall/gcp.ts';
import { hostTable } from '#flows/firewall/host-table.ts';
import { emitNftables } from '#flows/firewall/nftables.ts';
import { firewallOf, type HostFirewall } from '#flows/firewall/rules.ts';
import type { Cli } from '../cli.ts';
import { printTable, type TableFormat } from './matrix.ts';
import { type ModelOptions, readModel } from './model-source.ts';

/** Options of `brokkr flows firewall`. */
export interface FirewallOptions extends ModelOptions {
  readonly host: string;
  readonly cloud?: keyof typeof EMITTERS;
  readonly output: TableFormat;
}

const EMITTERS = { aws: emitAws, gcp: emitGcp, azure: emitAzure, nftables: emitNftables } as const satisfies Readonly<
  Record<string, (firewall: HostFirewall) => Emitted<unknown>>
>;

/** `brokkr flows firewall`: what a host, a zone or a cluster has to let through, as a table or in the form of a platform. */
export async function firewall(cli: Cli, { host, cloud, output, ...options }: FirewallOptions): Promise<void> {
  const model = await readModel(cli, options);
  const rules = firewallOf(model, host);
  for (const note of rules.notes) cli.terminal.note(note);
  if (cloud === undefined) return printTable(cli.terminal, output, hostTable(model, host));
  const { document, warnings } = EMITTERS[cloud](rules);
  for (const warning of warnings) cli.terminal.note(`warning: ${warning}`);
  cli.terminal.line(typeof document === 'string' ? document.trimEnd() : JSON.stringify(document, undefined, 2));
}
