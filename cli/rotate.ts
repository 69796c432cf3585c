import { type Cli, connect } from './cli.ts';
import { printKey } from './create.ts';
import { query } from './listings/listing.ts';
import type { OutputFormat } from './output.ts';
import { getAgent, getGenerator } from './resolve.ts';

/** Options of `brokkr rotate`. */
export interface RotateOptions {
  /** Milliseconds for which old keys go on working. */
  readonly grace: number;
  readonly output: OutputFormat;
}

/** `brokkr rotate agent|generator NAME` and `brokkr rotate admin`: a new key in place of the old ones, shown only here. */
export async function rotate(
  cli: Cli,
  kind: 'agent' | 'generator' | 'admin',
  name: string,
  options: RotateOptions,
): Promise<void> {
  const client = await connect(cli);
  const path = `${await rotationPath()}${query({ grace_seconds: String(Math.round(options.grace / 1_000)) })}`;
  const { body } = await client.rest('POST', path, cli.signal);
  await printKey(cli, options.output, body, kind === 'admin' ? 'admin' : `${kind} ${name}`, 'pak');
  if (kind === 'admin') cli.terminal.note('contexts and BROKKR_PAK with the old key no longer work');

  async function rotationPath(): Promise<string> {
    switch (kind) {
      case 'agent':
        return `/api/v1/agents/${(await getAgent(client, name, cli.signal)).id}/rotate-pak`;
      case 'generator':
        return `/api/v1/generators/${(await getGenerator(client, name, cli.signal)).id}/rotate-pak`;
      case 'admin':
        return '/api/v1/admin/rotate-pak';
    }
  }
}
