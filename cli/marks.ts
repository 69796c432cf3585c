import { AgentService } from '#proto/brokkr/v1/agents_pb.js';
import { StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { type Cli, connect } from './cli.ts';
import type { Client } from './client.ts';
import { CliError, usageError } from './failure.ts';
import { getAgent, getStack } from './resolve.ts';

/** What carries labels and annotations. */
export type Marked = 'agent' | 'stack';

/** `brokkr label agent|stack NAME L L-`: adds and, with a minus behind, removes. Repeating it changes nothing. */
export async function label(cli: Cli, kind: Marked, name: string, labels: readonly string[]): Promise<void> {
  const { client, id } = await find(cli, kind, name);
  for (const text of labels) {
    const removed = text.endsWith('-');
    const value = removed ? text.slice(0, -1) : text;
    const done = await settled(removed ? removeLabel(client, kind, id, value, cli) : addLabel(client, kind, id, value, cli));
    cli.terminal.line(`${kind} ${name}: label ${value} ${done ? (removed ? 'removed' : 'added') : 'unchanged'}`);
  }
}

/** `brokkr annotate agent|stack NAME k=v k-`: sets and, with a minus behind, removes. Repeating it changes nothing. */
export async function annotate(cli: Cli, kind: Marked, name: string, annotations: readonly string[]): Promise<void> {
  const parsed = annotations.map(parseAnnotation);
  const { client, id } = await find(cli, kind, name);
  for (const { key, value } of parsed) {
    if (value === undefined) {
      const done = await settled(removeAnnotation(client, kind, id, key, cli));
      cli.terminal.line(`${kind} ${name}: annotation ${key} ${done ? 'removed' : 'unchanged'}`);
      continue;
    }
    const present = (await listAnnotations(client, kind, id, cli)).find((annotation) => annotation.key === key);
    if (present?.value === value) {
      cli.terminal.line(`${kind} ${name}: annotation ${key} unchanged`);
      continue;
    }
    // the API has no replace: between the two calls the annotation is absent
    if (present) await removeAnnotation(client, kind, id, key, cli);
    await addAnnotation(client, kind, id, { key, value }, cli);
    cli.terminal.line(`${kind} ${name}: annotation ${key} set`);
  }
}

function parseAnnotation(text: string): { readonly key: string; readonly value: string | undefined } {
  const equals = text.indexOf('=');
  if (equals > 0) return { key: text.slice(0, equals), value: text.slice(equals + 1) };
  if (equals < 0 && text.endsWith('-') && text.length > 1) return { key: text.slice(0, -1), value: undefined };
  throw usageError(`${text} is neither key=value nor key-`);
}

async function find(cli: Cli, kind: Marked, name: string): Promise<{ readonly client: Client; readonly id: string }> {
  const client = await connect(cli);
  const { id } = kind === 'agent' ? await getAgent(client, name, cli.signal) : await getStack(client, name, cli.signal);
  return { client, id };
}

const UNCHANGED: ReadonlySet<string> = new Set([
  'unique_violation',
  'agent_label_not_found',
  'stack_label_not_found',
  'agent_annotation_not_found',
  'stack_annotation_not_found',
]);

/** False when it was so already. */
async function settled(change: Promise<unknown>): Promise<boolean> {
  try {
    await change;
    return true;
  } catch (error) {
    if (error instanceof CliError && UNCHANGED.has(error.code)) return false;
    throw error;
  }
}

function addLabel(client: Client, kind: Marked, id: string, text: string, { signal }: Cli): Promise<unknown> {
  return kind === 'agent'
    ? client.call(AgentService.method.addAgentLabel, { agentId: id, label: text }, signal)
    : client.call(StackService.method.addStackLabel, { stackId: id, label: text }, signal);
}

function removeLabel(client: Client, kind: Marked, id: string, text: string, { signal }: Cli): Promise<unknown> {
  return kind === 'agent'
    ? client.call(AgentService.method.removeAgentLabel, { agentId: id, label: text }, signal)
    : client.call(StackService.method.removeStackLabel, { stackId: id, label: text }, signal);
}

interface Annotation {
  readonly key: string;
  readonly value: string;
}

async function listAnnotations(client: Client, kind: Marked, id: string, { signal }: Cli): Promise<readonly Annotation[]> {
  const answer =
    kind === 'agent'
      ? await client.call(AgentService.method.listAgentAnnotations, { agentId: id }, signal)
      : await client.call(StackService.method.listStackAnnotations, { stackId: id }, signal);
  return answer.annotations;
}

function addAnnotation(client: Client, kind: Marked, id: string, annotation: Annotation, { signal }: Cli): Promise<unknown> {
  return kind === 'agent'
    ? client.call(AgentService.method.addAgentAnnotation, { agentId: id, ...annotation }, signal)
    : client.call(StackService.method.addStackAnnotation, { stackId: id, ...annotation }, signal);
}

function removeAnnotation(client: Client, kind: Marked, id: string, key: string, { signal }: Cli): Promise<unknown> {
  return kind === 'agent'
    ? client.call(AgentService.method.removeAgentAnnotation, { agentId: id, key }, signal)
    : client.call(StackService.method.removeStackAnnotation, { stackId: id, key }, signal);
}
