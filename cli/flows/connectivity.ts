import { connections } from '#flows/evaluate/connectivity.ts';
import type { Cli } from '../cli.ts';
import { type ClusterOptions, readClusterView } from './cluster-view.ts';

/** Options of `brokkr flows connectivity`. */
export interface ConnectivityOptions extends ClusterOptions {
  readonly output: 'table' | 'json';
}

/** `brokkr flows connectivity`: everything that may be opened, one connection a line in either form. */
export async function connectivity(cli: Cli, options: ConnectivityOptions, stdin: NodeJS.ReadableStream): Promise<void> {
  const { evaluator } = await readClusterView(options, stdin);
  const { terminal } = cli;
  if (options.output === 'json') {
    let separator = '';
    terminal.line('{"connections":[');
    for (const connection of connections(evaluator)) {
      terminal.line(`${separator}${JSON.stringify(connection)}`);
      separator = ',';
    }
    return terminal.line(']}');
  }
  for (const { src, dst, protocol, ports, undecidable, cniDependent } of connections(evaluator)) {
    const marks = `${undecidable ? ' (undecidable)' : ''}${cniDependent ? ' (CNI-DEPENDENT)' : ''}`;
    terminal.line(`${src} → ${dst} ${protocol} ${ports}${marks}`);
  }
}
