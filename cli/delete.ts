import { AgentService } from '#proto/brokkr/v1/agents_pb.js';
import { Phase } from '#proto/brokkr/v1/content_pb.js';
import { GeneratorService } from '#proto/brokkr/v1/generators_pb.js';
import { KeyService } from '#proto/brokkr/v1/keys_pb.js';
import { type AgentStackStatus, StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { type Cli, connect } from './cli.ts';
import type { Client } from './client.ts';
import { CliError, EXIT, type ExitCode } from './failure.ts';
import { getAgent, getGenerator, getKey, getStack } from './resolve.ts';
import { agentText, enumText } from './show.ts';

/** What can be deleted. */
export const DELETABLE = ['agent', 'generator', 'stack', 'key'] as const;

/** Options of `brokkr delete`. */
export interface DeleteOptions {
  /** Stacks: wait until every agent has removed the objects. */
  readonly wait?: boolean;
  readonly timeout: number;
}

const ASK_AGAIN_MS = 500;

/** `brokkr delete KIND NAME`. */
export async function remove(
  cli: Cli,
  kind: (typeof DELETABLE)[number],
  name: string,
  options: DeleteOptions,
): Promise<ExitCode> {
  const client = await connect(cli);
  switch (kind) {
    case 'agent': {
      const { id } = await getAgent(client, name, cli.signal);
      await client.call(AgentService.method.deleteAgent, { id }, cli.signal);
      cli.terminal.line(`agent ${name} deleted; what it applied stays in its cluster`);
      return EXIT.ok;
    }
    case 'generator': {
      const { id } = await getGenerator(client, name, cli.signal);
      await client.call(GeneratorService.method.deleteGenerator, { id }, cli.signal);
      cli.terminal.line(`generator ${name} deleted with its stacks`);
      return EXIT.ok;
    }
    case 'key': {
      const { id } = await getKey(client, name, cli.signal);
      await client.call(KeyService.method.revokeKey, { id }, cli.signal);
      cli.terminal.line(`key ${name} revoked`);
      return EXIT.ok;
    }
    case 'stack': {
      const { id } = await getStack(client, name, cli.signal);
      await client.call(StackService.method.deleteStack, { id }, cli.signal);
      cli.terminal.line(`stack ${name} deleted; its agents remove the objects`);
      return options.wait ? untilRemoved(cli, client, { id, name }, options.timeout) : EXIT.ok;
    }
  }
}

async function untilRemoved(
  cli: Cli,
  client: Client,
  { id, name }: { readonly id: string; readonly name: string },
  timeoutMs: number,
): Promise<ExitCode> {
  using deadline = cli.clock.deadline(timeoutMs, cli.signal);
  let left: AgentStackStatus[] = [];
  try {
    for (;;) {
      left = await remaining(client, id, deadline.signal);
      if (left.length === 0) {
        cli.terminal.line(`every agent has deleted the objects of stack ${name}`); // what has finalizers goes a little later
        return EXIT.ok;
      }
      cli.terminal.progress(`waiting: ${left.length} agent${left.length === 1 ? '' : 's'} still to remove it, ${stateOf(left)}`);
      await cli.clock.sleep(ASK_AGAIN_MS, deadline.signal);
    }
  } catch (error) {
    if (cli.signal.aborted || !deadline.signal.aborted) throw error;
  }
  for (const agent of left) cli.terminal.note(`error: agent ${agentText(agent)} has not removed it in time: ${stateOf([agent])}`);
  return left.some(({ phase }) => phase === Phase.FAILED || phase === Phase.KEPT) ? EXIT.agentFailed : EXIT.timeout;
}

async function remaining(client: Client, stackId: string, signal: AbortSignal): Promise<AgentStackStatus[]> {
  try {
    const { agents } = await client.call(StackService.method.getStackStatus, { stackId }, signal);
    return agents.filter(({ phase }) => phase !== Phase.PRUNED);
  } catch (error) {
    if (error instanceof CliError && error.code === 'stack_not_found') return [];
    throw error;
  }
}

function stateOf([agent]: readonly AgentStackStatus[]): string {
  if (!agent) return '';
  if (!agent.connected) return `${agentText(agent)} not connected`;
  return `${agentText(agent)} ${enumText(Phase, agent.phase)}${agent.message ? `, ${agent.message}` : ''}`;
}
