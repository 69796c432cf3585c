import type { Clock } from '#lib/clock.ts';
import type { Client } from './client.ts';
import type { BrokerFlags, Env } from './contexts.ts';
import type { Terminal } from './terminal.ts';

/** What every command is given. */
export interface Cli {
  readonly env: Env;
  readonly clock: Clock;
  readonly terminal: Terminal;
  /** The flags that say which broker. */
  readonly flags: BrokerFlags;
  /** Aborts at Ctrl-C. */
  readonly signal: AbortSignal;
}

/** The client for the broker of flags, environment and context; loads what it needs only now. */
export async function connect(cli: Cli): Promise<Client> {
  const [{ createClient }, { resolveContext }] = await Promise.all([import('./client.ts'), import('./contexts.ts')]);
  return createClient(await resolveContext(cli.flags, cli.env), { clock: cli.clock });
}
