import { timestampMs } from '@bufbuild/protobuf/wkt';
import { Health, type ObjectStatus } from '#proto/brokkr/v1/content_pb.js';
import { type ObjectDetail, type ObjectExplanation, Wanted } from '#proto/brokkr/v1/explain_pb.js';
import { type ExplainStackResponse, StackService, type Unanswered } from '#proto/brokkr/v1/stacks_pb.js';
import { type Cli, connect } from './cli.ts';
import type { Client } from './client.ts';
import { CliError, EXIT, type ExitCode, usageError } from './failure.ts';
import { query } from './listings/listing.ts';
import { type OutputFormat, printDocument } from './output.ts';
import { getStack } from './resolve.ts';
import { agentText, ageText, enumText, healthCell, objectText, phaseCell, timeText } from './show.ts';
import { type Cell, type Colour, spanText, table } from './terminal.ts';

/** Options of `brokkr explain`. */
export interface ExplainStackOptions {
  readonly namespace?: string;
  readonly agent?: string;
  readonly output: OutputFormat;
}

interface Question {
  readonly stackId: string;
  readonly agentId: string;
  readonly group: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

/** `brokkr explain STACK [KIND[.GROUP][/NAME]]`: what is wanted, what is live, since when, and why they differ. Exit code 5 when the agent did not say it itself. */
export async function explainStack(
  cli: Cli,
  stackName: string,
  object: string | undefined,
  options: ExplainStackOptions,
): Promise<ExitCode> {
  const client = await connect(cli);
  const stack = await getStack(client, stackName, cli.signal);
  const agentId = options.agent === undefined ? '' : await findAgentId(client, stack.id, options.agent, cli.signal);
  const question = { stackId: stack.id, agentId, namespace: options.namespace ?? '', ...readObject(object ?? '') };
  if (options.output !== 'table') return await printAnswer(cli, client, question, options.output);
  let pageToken = '';
  let exit: ExitCode = EXIT.ok;
  const objects: ObjectExplanation[] = [];
  do {
    const answer = await client.call(StackService.method.explainStack, { ...question, pageToken }, cli.signal);
    if (pageToken === '') cli.terminal.line(title(stack.name, answer, cli));
    if (answer.unanswered && exit === EXIT.ok) {
      exit = EXIT.agentFailed;
      cli.terminal.note(unansweredText(answer.unanswered));
    }
    objects.push(...answer.objects);
    pageToken = answer.nextPageToken;
  } while (pageToken !== '');
  if (objects.length === 0 && question.kind !== '')
    throw new CliError('object_not_found', `the stack has no ${object} there`, {
      hint: `brokkr explain ${stack.name} lists all`,
    });
  const [only] = objects;
  const lines = objects.length === 1 && only?.detail ? detailLines(only, only.detail, cli) : tableLines(objects, cli);
  for (const line of lines) cli.terminal.line(line);
  return exit;
}

/** `deployment.apps/web` as its parts. */
function readObject(text: string): Pick<Question, 'group' | 'kind' | 'name'> {
  const [, kind = '', group = '', name = ''] = /^([^./]*)(?:\.([^/]*))?(?:\/(.*))?$/s.exec(text) ?? [];
  if (text !== '' && kind === '') throw usageError(`${text} is not of the form KIND, KIND/NAME or KIND.GROUP/NAME`);
  return { group, kind, name };
}

/** An agent of the stack by `NAME`, `CLUSTER/NAME` or id; generators may not list agents. */
async function findAgentId(client: Client, stackId: string, name: string, signal: AbortSignal): Promise<string> {
  const { agents } = await client.call(StackService.method.getStackStatus, { stackId }, signal);
  const found = agents.filter((agent) => [agent.agentId, agent.agentName, agentText(agent)].includes(name));
  if (found.length > 1) {
    const hint = `name one: ${found.map(agentText).join(', ')}`;
    throw new CliError('ambiguous_name', `${found.length} agents are named ${name}`, { hint });
  }
  if (!found[0]) throw new CliError('agent_not_found', `the stack neither reaches nor leaves an agent named ${name}`);
  return found[0].agentId;
}

/** The REST answer with the objects of all pages. */
async function printAnswer(cli: Cli, client: Client, question: Question, output: 'json' | 'yaml'): Promise<ExitCode> {
  const { stackId, agentId, group, kind, namespace, name } = question;
  const all: unknown[] = [];
  let body: Record<string, unknown> = { next_page_token: '' };
  do {
    const parameters = { agent_id: agentId, group, kind, namespace, name, page_token: String(body.next_page_token) };
    const answer = await client.rest('GET', `/api/v1/stacks/${stackId}/explain${query(parameters)}`, cli.signal);
    body = answer.body as Record<string, unknown>;
    all.push(...(body.objects as unknown[]));
  } while (body.next_page_token !== '');
  await printDocument(cli.terminal, output, { ...body, objects: all } as never);
  return body.unanswered === null ? EXIT.ok : EXIT.agentFailed;
}

function title(stackName: string, { status }: ExplainStackResponse, { terminal }: Cli): string {
  if (!status) return stackName;
  const { desiredGeneration, appliedGeneration, phase, health, message } = status;
  const wanted = desiredGeneration === 0n ? 'leaving' : `generation ${appliedGeneration}/${desiredGeneration}`;
  const paint = (cell: Cell) => (typeof cell === 'string' ? cell : terminal.paint(cell.colour, cell.text));
  const words = [wanted, paint(phaseCell(phase)), paint(healthCell(health)), ...(message ? [message] : [])];
  return `${stackName} on ${agentText(status)}: ${words.join(', ')}`;
}

function unansweredText({ message, lastSeenAt, waitedUntil }: Unanswered): string {
  const times = [
    ...(lastSeenAt ? [`last heard of at ${timeText(lastSeenAt)}`] : []),
    ...(waitedUntil ? [`waited until ${timeText(waitedUntil)}`] : []),
  ];
  return `${message}${times.length === 0 ? '' : ` (${times.join(', ')})`}: what follows is what the broker knows`;
}

const COLOURS: Readonly<Record<string, Colour>> = {
  in_sync: 'green',
  rejected: 'red',
  conflict: 'red',
  drifted: 'yellow',
  drift_reported: 'yellow',
  kept: 'yellow',
  terminating: 'yellow',
  retrying: 'yellow',
  blocked: 'yellow',
};

function stateCell(state: string): Cell {
  const colour = COLOURS[state];
  return colour ? { text: state, colour } : state || '-';
}

function tableLines(objects: readonly ObjectExplanation[], { terminal, clock }: Cli): string[] {
  const rows = objects.map(({ status, health, healthReason }) => [
    status ? objectText(status) : '',
    stateCell(status?.state ?? ''),
    healthCell(health),
    ageText(status?.since, clock.now()),
    [whyText(status), health === Health.HEALTHY ? '' : healthReason].filter((text) => text !== '').join('; '),
  ]);
  return table(['OBJECT', 'STATE', 'HEALTH', 'SINCE', 'WHY'], rows, terminal.paint);
}

function whyText(status: ObjectStatus | undefined): string {
  return [status?.reason ?? '', status?.message ?? ''].filter((text) => text !== '').join(': ');
}

function detailLines(object: ObjectExplanation, detail: ObjectDetail, { terminal, clock }: Cli): string[] {
  const { status } = object;
  const heading = (text: string) => terminal.paint('bold', text);
  const indented = (lines: readonly string[]) => lines.map((line) => `  ${line}`);
  const retry = object.retryAt ? [`next try in ${spanText(timestampMs(object.retryAt) - clock.now())}`] : [];
  const since = status?.since ? ` since ${timeText(status.since)}` : '';
  const state = [`${status?.state ?? ''}${since}`, whyText(status), ...retry];
  return [
    `${status ? objectText(status) : ''}: ${detail.summary}`,
    heading('State'),
    ...indented(state.filter((line) => line !== '')),
    heading('Wanted'),
    ...indented(wantedLines(object)),
    heading('Live'),
    ...indented(liveLines(detail)),
    ...(object.health === Health.UNSPECIFIED ? [] : [heading('Health'), `  ${healthText(object)}`]),
    heading('Differences'),
    ...indented(differenceLines(detail)),
    ...(detail.writers.length === 0 ? [] : [heading('Written by'), ...indented(writerLines(detail))]),
    heading('Policies'),
    ...indented(detail.policies.map(({ name, value, source }) => `${name}: ${value} (${source})`)),
  ];
}

function wantedLines({
  wanted,
  generation,
  version,
  wantedDigest,
  appliedDigest,
  uid,
  resourceVersion,
}: ObjectExplanation): string[] {
  const digests = wantedDigest === '' ? '' : `, digest ${wantedDigest}${wantedDigest === appliedDigest ? ', as applied' : ''}`;
  const written = uid === '' ? [] : [`last written: uid ${uid}, resource version ${resourceVersion || '-'}`];
  switch (wanted) {
    case Wanted.YES:
      return [`by generation ${generation}, version ${version}${digests}`, ...written];
    case Wanted.NO:
      return [`not by generation ${generation}`, ...written];
    case Wanted.STACK_LEAVES:
      return ['the stack leaves this agent', ...written];
    case Wanted.UNSPECIFIED:
      return ['not known', ...written];
  }
}

function liveLines({ live, readError }: ObjectDetail): string[] {
  if (readError !== '') return [`could not be read: ${readError}`];
  if (!live) return ['there is none'];
  return [
    `uid ${live.uid}, resource version ${live.resourceVersion}, generation ${live.generation}, created ${timeText(live.createdAt)}`,
    ...(live.deletedAt ? [`being deleted since ${timeText(live.deletedAt)}`] : []),
    ...(live.finalizers.length > 0 ? [`finalizers: ${live.finalizers.join(', ')}`] : []),
  ];
}

function healthText({ health, healthReason }: ObjectExplanation): string {
  return `${enumText(Health, health)}${healthReason === '' ? '' : `: ${healthReason}`}`;
}

function differenceLines({ differences, differencesUnknown }: ObjectDetail): string[] {
  if (differencesUnknown !== '') return [differencesUnknown];
  if (differences.length === 0) return ['none'];
  return differences.map(({ path, difference, wanted, live }) => {
    const sides = [...(wanted === undefined ? [] : [`wanted ${wanted}`]), ...(live === undefined ? [] : [`live ${live}`])];
    return `${path} ${difference}${sides.length === 0 ? '' : `: ${sides.join(', ')}`}`;
  });
}

function writerLines({ writers }: ObjectDetail): string[] {
  return writers.map(({ manager, who, operation, subresource, at, fields, fieldsTotal }) => {
    const more = fieldsTotal > fields.length ? ` and ${fieldsTotal - fields.length} more` : '';
    const through = subresource === '' ? '' : ` of ${subresource}`;
    return `${manager} (${who}, ${operation}${through}) at ${timeText(at)}: ${fields.join(' ')}${more}`;
  });
}
