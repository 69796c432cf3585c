import type { JsonValue } from '@bufbuild/protobuf';
import { type Cli, connect } from './cli.ts';
import { usageError } from './failure.ts';
import { type OutputFormat, printDocument } from './output.ts';
import { getAgent, getGenerator } from './resolve.ts';

/** Options of `brokkr create agent`. */
export interface CreateAgentOptions {
  readonly cluster: string;
  readonly label?: readonly string[];
  readonly annotation?: Readonly<Record<string, string>>;
  readonly generator?: readonly string[];
  readonly output: OutputFormat;
}

/** `brokkr create agent NAME --cluster C`: prints its key, which is shown only here. */
export async function createAgent(cli: Cli, name: string, options: CreateAgentOptions): Promise<void> {
  const client = await connect(cli);
  const generators = (options.generator ?? []).map((generator) => getGenerator(client, generator, cli.signal));
  const { body } = await client.rest('POST', '/api/v1/agents', cli.signal, {
    name,
    cluster_name: options.cluster,
    labels: [...(options.label ?? [])],
    annotations: { ...options.annotation },
    generator_ids: (await Promise.all(generators)).map(({ id }) => id),
  });
  return printKey(cli, options.output, body, `agent ${options.cluster}/${name}`, 'initial_pak');
}

/** `brokkr create generator NAME`: prints its key, which is shown only here. */
export async function createGenerator(
  cli: Cli,
  name: string,
  { description, output }: { readonly description?: string; readonly output: OutputFormat },
): Promise<void> {
  const client = await connect(cli);
  const request = { name, ...(description === undefined ? {} : { description }) };
  const { body } = await client.rest('POST', '/api/v1/generators', cli.signal, request);
  return printKey(cli, output, body, `generator ${name}`, 'pak');
}

/** Options of `brokkr create key`. */
export interface CreateKeyOptions {
  readonly role?: 'admin' | 'agent' | 'generator';
  readonly agent?: string;
  readonly generator?: string;
  readonly readOnly?: boolean;
  /** Milliseconds from now. */
  readonly expires?: number;
  readonly output: OutputFormat;
}

/** `brokkr create key NAME`: a further key of an agent, of a generator, or of the admins. */
export async function createKey(cli: Cli, name: string, options: CreateKeyOptions): Promise<void> {
  const { agent, generator, expires, readOnly = false } = options;
  if (agent !== undefined && generator !== undefined) throw usageError('a key is of an agent or of a generator, not of both');
  const role = agent !== undefined ? 'agent' : generator !== undefined ? 'generator' : 'admin';
  if (options.role !== undefined && options.role !== role) {
    throw usageError(`a key with the role ${options.role} needs --${options.role} NAME and nothing else`);
  }
  const client = await connect(cli);
  const { body } = await client.rest('POST', '/api/v1/keys', cli.signal, {
    role,
    name,
    read_only: readOnly,
    ...(agent === undefined ? {} : { agent_id: (await getAgent(client, agent, cli.signal)).id }),
    ...(generator === undefined ? {} : { generator_id: (await getGenerator(client, generator, cli.signal)).id }),
    ...(expires === undefined ? {} : { expires_at: new Date(cli.clock.now() + expires).toISOString() }),
  });
  return printKey(cli, options.output, body, `key ${name} (${role})`, 'pak');
}

/** Prints what was made and its key: the key alone on stdout, so that it can be piped. */
export async function printKey(cli: Cli, output: OutputFormat, body: JsonValue, what: string, field: string): Promise<void> {
  if (output !== 'table') return printDocument(cli.terminal, output, body);
  const pak = (body as Readonly<Record<string, JsonValue>>)[field];
  cli.terminal.note(`${what}: its key is shown only here`);
  cli.terminal.line(String(pak));
}
