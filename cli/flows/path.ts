import { pathsOf } from '#flows/emit/path.ts';
import { portText } from '#flows/model/ports.ts';
import type { Cli } from '../cli.ts';
import { CliError, usageError } from '../failure.ts';
import { table } from '../terminal.ts';
import { type ModelOptions, readModel } from './model-source.ts';

/** Options of `brokkr flows path`. */
export interface PathOptions extends ModelOptions {
  readonly output: 'table' | 'json';
}

/** `brokkr flows path`: the hops of the flows from an endpoint to another, or to wherever flows from it lead. */
export async function path(cli: Cli, from: string, to: string | undefined, { output, ...options }: PathOptions): Promise<void> {
  const model = await readModel(cli, options);
  const unknown = [from, to].find((name) => name !== undefined && !model.endpoints.has(name));
  if (unknown !== undefined)
    throw usageError(`no endpoint is named ${unknown}, there are ${[...model.endpoints.keys()].join(', ')}`);
  const paths = pathsOf(model, from, to);
  if (paths.length === 0) throw new CliError('no_path', `no flow leads from ${from}${to === undefined ? '' : ` to ${to}`}`);
  const hops = paths.flatMap(({ flow, hops: ways }) =>
    ways.map((hop, index) => ({
      flow: flow.id,
      hop: index + 1,
      from: hop.from.name,
      to: hop.to.name,
      ports: hop.ports.map(portText).join(','),
      protocols: hop.protocols.join(','),
      application: hop.application,
    })),
  );
  if (output === 'json') return cli.terminal.line(JSON.stringify(hops, undefined, 2));
  const rows = hops.map((hop) => [hop.flow, String(hop.hop), hop.from, hop.to, hop.ports, hop.protocols, hop.application]);
  for (const line of table(['FLOW', 'HOP', 'FROM', 'TO', 'PORTS', 'PROTOCOL', 'APPLICATION'], rows, cli.terminal.paint))
    cli.terminal.line(line);
}
