import { AgentService, type TargetExplanation } from '#proto/brokkr/v1/agents_pb.js';
import { type Cli, connect } from './cli.ts';
import { usageError } from './failure.ts';
import { query } from './listings/listing.ts';
import { type OutputFormat, printDocument } from './output.ts';
import { getAgent, getStack } from './resolve.ts';
import { heldText } from './show.ts';
import { table } from './terminal.ts';

/** Options of `brokkr targets explain`. */
export interface ExplainOptions {
  readonly agent?: string;
  readonly stack?: string;
  readonly output: OutputFormat;
}

/** `brokkr targets explain`: which rule brings a stack to an agent, or which nearly does. */
export async function explain(cli: Cli, { agent, stack, output }: ExplainOptions): Promise<void> {
  if (agent === undefined && stack === undefined) throw usageError('name an --agent, a --stack, or both');
  const client = await connect(cli);
  const agentId = agent === undefined ? '' : (await getAgent(client, agent, cli.signal)).id;
  const stackId = stack === undefined ? '' : (await getStack(client, stack, cli.signal)).id;
  if (output !== 'table') {
    const path = `/api/v1/targets/explain${query({ agent_id: agentId, stack_id: stackId })}`;
    return printDocument(cli.terminal, output, (await client.rest('GET', path, cli.signal)).body);
  }
  const { explanations } = await client.call(AgentService.method.explainTargets, { agentId, stackId }, cli.signal);
  const rows = explanations.map((each) => [
    each.agentName,
    each.stackName,
    each.assigned ? { text: 'yes', colour: 'green' as const } : 'no',
    each.generation === 0n ? '-' : String(each.generation),
    each.connected ? 'yes' : 'no',
    why(each),
  ]);
  for (const line of table(['AGENT', 'STACK', 'ASSIGNED', 'GENERATION', 'CONNECTED', 'WHY'], rows, cli.terminal.paint))
    cli.terminal.line(line);
}

function why({ matched, nearly, withheld, paused, release, generation, heldGeneration, heldUntil }: TargetExplanation): string {
  const because = [...matched.map(({ detail }) => detail), ...(paused ? ['paused: nothing is applied'] : [])];
  if (withheld !== '') return [...because, `withheld: ${withheld}`].join('; ');
  if (release !== '') because.push(`generation ${generation} is released: ${release}`);
  if (heldGeneration !== undefined) because.push(heldText(heldGeneration, heldUntil));
  if (matched.length > 0) return because.join('; ');
  return nearly.length > 0 ? `nearly: ${nearly.map(({ detail }) => detail).join('; ')}` : 'no rule matches';
}
