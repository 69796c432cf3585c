import { type Stack, StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { type Cli, connect } from './cli.ts';
import { usageError } from './failure.ts';
import { getStack } from './resolve.ts';
import { readOptions } from './stack-options.ts';

/** `brokkr set STACK NAME=VALUE...`: changes single options of a stack, the others stay. */
export async function set(cli: Cli, name: string, option: Readonly<Record<string, string>>): Promise<void> {
  const given = await readOptions({ option });
  if (!given) throw usageError('name an option: NAME=VALUE');
  const client = await connect(cli);
  const before = await getStack(client, name, cli.signal);
  const updateMask = { paths: given.names.map((path) => `options.${path}`) };
  const request = { id: before.id, stack: { options: given.options }, updateMask };
  const { stack } = await client.call(StackService.method.updateStack, request, cli.signal);
  cli.terminal.line(`stack ${before.name}: ${changeText(before, stack)}`);
}

/** What a command did to a stack, in words. */
export function changeText(before: Pick<Stack, 'generation'>, after: Pick<Stack, 'generation'> | undefined): string {
  if (!after || after.generation === before.generation) return 'unchanged';
  return `generation ${after.generation}`;
}
