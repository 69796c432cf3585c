import { type Cli, connect } from './cli.ts';
import type { Kind } from './kinds.ts';
import type { GetOptions, Listing, Request } from './listings/listing.ts';
import { listRest, printDocument } from './output.ts';
import { table } from './terminal.ts';

/** Loads what is needed for one kind only. */
const LISTINGS: Readonly<Record<Kind, () => Promise<Listing>>> = {
  agents: async () => (await import('./listings/agents.ts')).agents,
  generators: async () => (await import('./listings/generators.ts')).generators,
  stacks: async () => (await import('./listings/stacks.ts')).stacks,
  deployments: async () => (await import('./listings/deployments.ts')).deployments,
  events: async () => (await import('./listings/events.ts')).events,
  keys: async () => (await import('./listings/keys.ts')).keys,
};

/** `brokkr get KIND [NAME]`. JSON and YAML are what the REST API answers. */
export async function get(cli: Cli, kind: Kind, name: string | undefined, options: GetOptions): Promise<void> {
  const [client, listing] = await Promise.all([connect(cli), LISTINGS[kind]()]);
  const request: Request = { cli, client, name, options };
  if (options.output !== 'table') {
    const { path, single } = await listing.path(request);
    const answer = single
      ? (await client.rest('GET', path, cli.signal)).body
      : [...(await listRest(client, path, options.limit, cli.signal)).items];
    return printDocument(cli.terminal, options.output, answer);
  }
  const { header, rows, more } = await listing.rows(request);
  if (rows.length === 0) return cli.terminal.note(`no ${kind}`);
  for (const line of table(header, rows, cli.terminal.paint)) cli.terminal.line(line);
  if (more) cli.terminal.note(`there is more: --limit shows the first ${options.limit}`);
}
