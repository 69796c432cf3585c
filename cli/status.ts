import { Health, Phase } from '#proto/brokkr/v1/content_pb.js';
import { type GetStackStatusResponse, StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { type Cli, connect } from './cli.ts';
import { printDocument } from './output.ts';
import { getStack } from './resolve.ts';
import { agentText, enumText, healthCell, heldText, objectText, phaseCell, timeText } from './show.ts';
import { table } from './terminal.ts';
import { statusChanges, targetedAgents } from './wait.ts';

/** Options of `brokkr status`. */
export interface StatusOptions {
  readonly watch?: boolean;
  readonly output: 'table' | 'json' | 'yaml';
}

/** Objects named below the table; the rest is counted. */
const MAX_OBJECTS = 50;

/** `brokkr status STACK`: where it stands on every agent it reaches, once or at every change. */
export async function status(cli: Cli, name: string, options: StatusOptions): Promise<void> {
  const client = await connect(cli);
  const stack = await getStack(client, name, cli.signal);
  if (options.output !== 'table') {
    const { body } = await client.rest('GET', `/api/v1/stacks/${stack.id}/status`, cli.signal);
    return printDocument(cli.terminal, options.output, body);
  }
  if (!options.watch) {
    const answer = await client.call(StackService.method.getStackStatus, { stackId: stack.id }, cli.signal);
    for (const line of statusLines(cli, answer)) cli.terminal.line(line);
    return;
  }
  let shown = '';
  for await (const answer of statusChanges(client, stack.id, cli.clock, cli.signal)) {
    const lines = statusLines(cli, answer);
    if (lines.join('\n') === shown) continue;
    if (shown !== '') cli.terminal.clear();
    shown = lines.join('\n');
    for (const line of lines) cli.terminal.line(line);
  }
}

function statusLines({ terminal }: Cli, { stack, agents }: GetStackStatusResponse): string[] {
  const gone = stack?.deletedAt ? ', deleted' : '';
  const title = `${stack?.name ?? ''}: generation ${stack?.generation ?? 0n}${gone}, ${agents.length} agent${agents.length === 1 ? '' : 's'}`;
  if (agents.length === 0) return [title, 'no agent is targeted: brokkr target AGENT STACK, or a label on both'];
  const rows = agents.map((agent) => [
    agentText(agent),
    agent.connected ? 'yes' : { text: 'no', colour: 'yellow' as const },
    `${agent.appliedGeneration}/${agent.desiredGeneration}`,
    agent.paused ? { text: `${enumText(Phase, agent.phase)}, paused`, colour: 'yellow' as const } : phaseCell(agent.phase),
    healthCell(agent.health),
    `${agent.objectsReady}/${agent.objectsTotal}`,
    timeText(agent.appliedAt),
    [
      agent.message ?? '',
      approvalText(agent),
      agent.heldGeneration === undefined ? '' : heldText(agent.heldGeneration, agent.heldUntil),
    ]
      .filter((text) => text !== '')
      .join('; '),
  ]);
  const header = ['AGENT', 'CONNECTED', 'APPLIED', 'PHASE', 'HEALTH', 'READY', 'APPLIED AT', 'MESSAGE'];
  return [title, ...table(header, rows, terminal.paint), ...objectLines(agents)];
}

function approvalText({ awaitingApproval }: GetStackStatusResponse['agents'][number]): string {
  return awaitingApproval === 0 ? '' : `${awaitingApproval} deletions wait for approve_deletes`;
}

function objectLines(agents: GetStackStatusResponse['agents']): string[] {
  const lines = agents.flatMap((agent) =>
    agent.objects.map((object) => {
      const why = [object.reason, object.message].filter((text) => text !== '').join(': ');
      return `  ${agentText(agent)}  ${objectText(object)}  ${object.state}${why === '' ? '' : `  ${why}`}`;
    }),
  );
  if (lines.length <= MAX_OBJECTS) return lines;
  return [...lines.slice(0, MAX_OBJECTS), `  and ${lines.length - MAX_OBJECTS} more`];
}

/** What an agent is doing, in a few words, for the progress line. */
export function progressText(answer: GetStackStatusResponse): string {
  const targeted = targetedAgents(answer);
  const healthy = targeted.filter(({ phase, health, appliedGeneration, desiredGeneration }) => {
    return phase === Phase.APPLIED && health === Health.HEALTHY && appliedGeneration >= desiredGeneration;
  });
  const late = targeted.find((agent) => !healthy.includes(agent));
  const what = late ? `, ${agentText(late)} ${phaseText(late)}` : '';
  return `waiting: ${healthy.length} of ${targeted.length} agents healthy${what}`;
}

function phaseText(agent: GetStackStatusResponse['agents'][number]): string {
  const { connected, phase, objectsReady, objectsTotal, heldGeneration, heldUntil } = agent;
  if (!connected) return 'is not connected';
  if (heldGeneration !== undefined) return `waits: ${heldText(heldGeneration, heldUntil)}`;
  const cell = phaseCell(phase);
  const text = typeof cell === 'string' ? cell : cell.text;
  return phase === Phase.APPLIED ? `applied, ${objectsReady} of ${objectsTotal} objects ready` : text;
}
