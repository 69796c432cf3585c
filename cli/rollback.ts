import { type Stack, StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { follow } from './apply.ts';
import { type Cli, connect } from './cli.ts';
import type { Client } from './client.ts';
import { CliError, EXIT, type ExitCode, usageError } from './failure.ts';
import { getStack } from './resolve.ts';

/** Options of `brokkr retry`. */
export interface RetryOptions {
  /** Wait until every targeted agent has applied it and is healthy. */
  readonly wait?: boolean;
  readonly timeout: number;
}

/** Options of `brokkr rollback`. */
export interface RollbackOptions extends RetryOptions {
  /** Generation to go back to. */
  readonly to?: number;
  /** Revision to go back to. */
  readonly revision?: number;
}

/** `brokkr rollback STACK`: makes an earlier head the head again; without one named, the last that was good everywhere. */
export async function rollback(cli: Cli, name: string, options: RollbackOptions): Promise<ExitCode> {
  const { to: generation, revision } = options;
  if (generation !== undefined && revision !== undefined) throw usageError('name a generation or a revision, not both');
  const client = await connect(cli);
  const { id } = await getStack(client, name, cli.signal);
  const where =
    generation !== undefined
      ? { case: 'generation' as const, value: BigInt(generation) }
      : revision !== undefined
        ? { case: 'revision' as const, value: BigInt(revision) }
        : { case: undefined };
  const answer = await client.call(StackService.method.rollbackStack, { id, to: where }, cli.signal);
  return finished(cli, client, answer.stack, `generation ${answer.fromGeneration} again`, options);
}

/** `brokkr retry STACK`: the same content once more, for agents that refused it or went back from it. */
export async function retry(cli: Cli, name: string, options: RetryOptions): Promise<ExitCode> {
  const client = await connect(cli);
  const { id } = await getStack(client, name, cli.signal);
  const answer = await client.call(StackService.method.retryStack, { id }, cli.signal);
  return finished(cli, client, answer.stack, 'the same once more', options);
}

async function finished(
  cli: Cli,
  client: Client,
  stack: Stack | undefined,
  what: string,
  { wait, timeout }: RetryOptions,
): Promise<ExitCode> {
  if (!stack) throw new CliError('not_a_broker', 'the answer of the broker is incomplete');
  cli.terminal.line(`stack ${stack.name}: generation ${stack.generation} is ${what}`);
  return wait ? follow(cli, client, undefined, stack, timeout) : EXIT.ok;
}
