import { Phase, type ApplyOptions as StackOptions } from '#proto/brokkr/v1/content_pb.js';
import { type ApplyResponse, type GetStackStatusResponse, StackService, Validation } from '#proto/brokkr/v1/stacks_pb.js';
import { type Cli, connect } from './cli.ts';
import type { Client } from './client.ts';
import { EXIT, type ExitCode } from './failure.ts';
import { type GateOptions, gateOf } from './gate.ts';
import { type Manifests, placeText, readManifests } from './manifests.ts';
import { problemLine, withPlaces } from './problems.ts';
import { readSelector } from './selector.ts';
import { agentText, counted, enumText, heldText, objectText } from './show.ts';
import { readOptions } from './stack-options.ts';
import { progressText } from './status.ts';
import { untilHealthy, type WaitEnd } from './wait.ts';

/** Options of `brokkr apply`. */
export interface ApplyOptions extends GateOptions {
  readonly filename: readonly string[];
  readonly recursive?: boolean;
  readonly stack: string;
  /** Lists that are not given are left alone. */
  readonly label?: readonly string[];
  readonly annotation?: Readonly<Record<string, string>>;
  readonly agent?: readonly string[];
  /** A file with the options of the stack, and single ones; left alone when neither is given. */
  readonly options?: string;
  readonly option?: Readonly<Record<string, string>>;
  readonly confirmSeconds?: number;
  /** File, or `none`. */
  readonly selector?: string;
  readonly wait?: boolean;
  readonly timeout: number;
  readonly validation: 'full' | 'none';
  readonly dryRun?: boolean;
}

/** Objects named in the result; the rest is counted. */
const MAX_CHANGES = 50;

/** `brokkr apply`: publishes files as a stack and, with `--wait`, follows it to every targeted agent. */
export async function apply(cli: Cli, options: ApplyOptions, stdin: NodeJS.ReadableStream): Promise<ExitCode> {
  const given = await readOptions(options);
  const manifests = await readManifests({ paths: options.filename, recursive: options.recursive === true, stdin });
  const client = await connect(cli);
  const answer = await publish(client, manifests, options, given?.options, cli.signal);
  for (const line of resultLines(answer, options.dryRun === true)) cli.terminal.line(line);
  for (const warning of answer.warnings) cli.terminal.note(`warning: ${problemLine(manifests, warning)}`);
  if (options.dryRun || !answer.stack) return EXIT.ok;
  if (answer.targetedAgents === 0) {
    cli.terminal.note(`no agent is targeted yet: brokkr target AGENT ${options.stack}, or a label on both, or --selector`);
  }
  return options.wait ? follow(cli, client, manifests, answer.stack, options.timeout) : EXIT.ok;
}

async function publish(
  client: Client,
  manifests: Manifests,
  wanted: ApplyOptions,
  options: StackOptions | undefined,
  signal: AbortSignal,
): Promise<ApplyResponse> {
  const { stack, label, annotation, agent, selector, validation, dryRun = false } = wanted;
  const gate = gateOf(wanted);
  const request = {
    name: stack,
    yamlContent: manifests.text,
    validation: validation === 'none' ? Validation.NONE : Validation.FULL,
    dryRun,
    ...(label && { labels: { values: [...label] } }),
    ...(annotation && { annotations: { values: { ...annotation } } }),
    ...(agent && { agents: { values: [...agent] } }),
    ...(options && { options }),
    ...(selector !== undefined && { selector: await readSelector(selector) }),
    ...(gate && { gate }),
  };
  try {
    return await client.call(StackService.method.apply, request, signal);
  } catch (error) {
    throw withPlaces(error, manifests);
  }
}

const RESULTS: Readonly<Record<string, string>> = { updated: 'configured', added: 'created', changed: 'configured' };

function resultLines({ stack, result, changes, targetedAgents, deploymentObject }: ApplyResponse, dryRun: boolean): string[] {
  const objects = deploymentObject?.objectCount ?? 0;
  const facts = [`generation ${stack?.generation ?? 0n}`, counted(objects, 'object'), counted(targetedAgents, 'agent')];
  const suffix = dryRun ? ' (dry run)' : '';
  const lines = changes.map((change) => `  ${objectText(change)} ${RESULTS[change.change] ?? change.change}${suffix}`);
  const more = lines.length > MAX_CHANGES ? [`  and ${lines.length - MAX_CHANGES} more`] : [];
  const title = `stack ${stack?.name ?? ''} ${RESULTS[result] ?? result}${suffix}: ${facts.join(', ')}`;
  return [title, ...lines.slice(0, MAX_CHANGES), ...more];
}

/** The head that is waited for. */
interface Published {
  readonly id: string;
  readonly name: string;
  readonly generation: bigint;
}

/** Waits for a generation on every targeted agent and says how that ended. */
export async function follow(
  cli: Cli,
  client: Client,
  manifests: Manifests | undefined,
  stack: Published,
  timeoutMs: number,
): Promise<ExitCode> {
  const onStatus = (status: GetStackStatusResponse) => cli.terminal.progress(progressText(status));
  const wait = { stackId: stack.id, generation: stack.generation, timeoutMs, onStatus };
  const end = await untilHealthy(client, wait, cli.clock, cli.signal);
  cli.terminal.settle();
  for (const line of endLines(end, stack.name, manifests)) cli.terminal[end.kind === 'healthy' ? 'line' : 'note'](line);
  return exitOf(end);
}

/** The exit code of a wait: a failed agent weighs more than one that is late. */
export function exitOf(end: WaitEnd): ExitCode {
  if (end.kind === 'healthy') return EXIT.ok;
  return end.failed.length > 0 ? EXIT.agentFailed : EXIT.timeout;
}

/** How a wait ended, for people: every agent that is not healthy with its reason and its objects, found in our files. */
export function endLines(end: WaitEnd, stack: string, manifests: Manifests | undefined): string[] {
  if (end.kind === 'healthy') {
    const healthy = end.status.agents.filter(({ desiredGeneration }) => desiredGeneration > 0n).length;
    return [
      healthy === 0 ? `stack ${stack} reaches no agent` : `stack ${stack} is applied and healthy on ${counted(healthy, 'agent')}`,
    ];
  }
  const next = `  see brokkr status ${stack}`;
  const lines = end.failed.flatMap((agent) => {
    const why = agent.message ? `: ${agent.message}` : '';
    const objects = agent.objects.slice(0, MAX_CHANGES).map((object) => {
      const place = manifests && object.line !== undefined ? `${placeText(manifests, object)}: ` : '';
      const reason = [object.reason, object.message].filter((text) => text !== '').join(': ');
      return `  ${place}${objectText(object)} ${object.state}${reason === '' ? '' : `: ${reason}`}`;
    });
    return [`error: agent ${agentText(agent)} ${enumText(Phase, agent.phase)} the stack${why}`, ...objects];
  });
  if (end.kind === 'failed') return [...lines, next];
  const late = end.pending.filter((agent) => !end.failed.includes(agent));
  const waiting = late.map((agent) => {
    const held =
      agent.heldGeneration === undefined ? enumText(Phase, agent.phase) : heldText(agent.heldGeneration, agent.heldUntil);
    const state = agent.connected ? held : 'not connected';
    return `error: agent ${agentText(agent)} is not there in time: ${state}${agent.message ? `, ${agent.message}` : ''}`;
  });
  const nothing = lines.length + waiting.length === 0 ? ['error: the broker told nothing in time'] : [];
  return [...lines, ...waiting, ...nothing, next];
}
