import { AgentService } from '#proto/brokkr/v1/agents_pb.js';
import { type Cli, connect } from './cli.ts';
import { CliError } from './failure.ts';
import { getAgent, getStack } from './resolve.ts';

/** `brokkr target AGENT STACK`: assigns the stack directly. Says so when it was before. */
export async function target(cli: Cli, agentName: string, stackName: string): Promise<void> {
  const { client, agent, stack } = await pair(cli, agentName, stackName);
  const what = `stack ${stack.name} on agent ${agent.clusterName}/${agent.name}`;
  try {
    await client.call(AgentService.method.addAgentTarget, { agentId: agent.id, stackId: stack.id }, cli.signal);
    cli.terminal.line(`${what}: targeted`);
  } catch (error) {
    if (!(error instanceof CliError && error.code === 'unique_violation')) throw error;
    cli.terminal.line(`${what}: unchanged`);
  }
}

/** `brokkr untarget AGENT STACK`: takes a direct assignment back; labels and annotations may still match. */
export async function untarget(cli: Cli, agentName: string, stackName: string): Promise<void> {
  const { client, agent, stack } = await pair(cli, agentName, stackName);
  await client.call(AgentService.method.removeAgentTarget, { agentId: agent.id, stackId: stack.id }, cli.signal);
  cli.terminal.line(`stack ${stack.name} on agent ${agent.clusterName}/${agent.name}: no longer targeted directly`);
}

async function pair(cli: Cli, agentName: string, stackName: string) {
  const client = await connect(cli);
  const [agent, stack] = await Promise.all([getAgent(client, agentName, cli.signal), getStack(client, stackName, cli.signal)]);
  return { client, agent, stack };
}
