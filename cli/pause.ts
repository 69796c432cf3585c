import { StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { type Cli, connect } from './cli.ts';
import { getAgent, getStack } from './resolve.ts';
import { changeText } from './set.ts';

/** Options of `brokkr pause` and `brokkr resume`. */
export interface PauseOptions {
  /** On this agent only. */
  readonly agent?: string;
}

/** `brokkr pause STACK` and `brokkr resume STACK`, everywhere or on one agent. */
export async function setPaused(cli: Cli, name: string, paused: boolean, { agent: agentName }: PauseOptions): Promise<void> {
  const client = await connect(cli);
  const stack = await getStack(client, name, cli.signal);
  const agent = agentName === undefined ? undefined : await getAgent(client, agentName, cli.signal);
  const { pauseStack, resumeStack } = StackService.method;
  const request = { id: stack.id, agentId: agent?.id ?? '' };
  const answer = paused
    ? await client.call(pauseStack, request, cli.signal)
    : await client.call(resumeStack, request, cli.signal);
  const done = paused ? 'paused' : 'resumed';
  if (agent) return cli.terminal.line(`stack ${stack.name} on agent ${agent.clusterName}/${agent.name}: ${done}`);
  const change = changeText(stack, answer.stack);
  cli.terminal.line(`stack ${stack.name}: ${change === 'unchanged' ? change : `${done}, ${change}`}`);
}
