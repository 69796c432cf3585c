import { isMapping, keyString, objectLabel, type Value } from '#lib/object.ts';
import { parseStream } from '#lib/yaml.ts';
import { StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { type Cli, connect } from './cli.ts';
import type { Client } from './client.ts';
import { CliError, EXIT, type ExitCode } from './failure.ts';
import { joinManifests, type Manifests, readManifests } from './manifests.ts';
import { problemLine } from './problems.ts';
import { getStack } from './resolve.ts';
import { secretTexts } from './secrets.ts';
import { unifiedDiff } from './unified-diff.ts';

/** Options of `brokkr diff`. */
export interface DiffOptions {
  readonly filename: readonly string[];
  readonly recursive?: boolean;
  readonly stack: string;
}

/** One document of a text. */
export interface DiffDocument {
  readonly label: string;
  readonly text: string;
  readonly value: Value;
}

/** `brokkr diff`: what an apply of these files would change in the published text. 0 when nothing, 3 otherwise. */
export async function diff(cli: Cli, options: DiffOptions, stdin: NodeJS.ReadableStream): Promise<ExitCode> {
  const manifests = await readManifests({ paths: options.filename, recursive: options.recursive === true, stdin });
  const after = documentsOf(manifests);
  const client = await connect(cli);
  const published = await publishedText(client, options.stack, cli.signal);
  const before = documentsOf(joinManifests([{ path: 'published', text: published }]));
  const lines = diffLines(before, after);
  const { paint } = cli.terminal;
  for (const line of lines) {
    if (line.startsWith('@@')) cli.terminal.line(paint('cyan', line));
    else if (line.startsWith('---') || line.startsWith('+++')) cli.terminal.line(paint('bold', line));
    else cli.terminal.line(line.startsWith('-') ? paint('red', line) : line.startsWith('+') ? paint('green', line) : line);
  }
  return lines.length === 0 ? EXIT.ok : EXIT.differences;
}

/** The text of the stack's head; empty for a stack that does not exist or holds nothing. */
export async function publishedText(client: Client, name: string, signal: AbortSignal): Promise<string> {
  try {
    const stack = await getStack(client, name, signal);
    if (!stack.deploymentObjectId) return '';
    const { getDeploymentObject } = StackService.method;
    const { deploymentObject } = await client.call(getDeploymentObject, { id: stack.deploymentObjectId }, signal);
    return deploymentObject?.yamlContent ?? '';
  } catch (error) {
    if (error instanceof CliError && error.code === 'stack_not_found') return '';
    throw error;
  }
}

/** The documents of a text by object. Throws with the places when it is not YAML: a Secret could not be masked in it. */
export function documentsOf(manifests: Manifests): Map<string, DiffDocument> {
  const { documents, problems } = parseStream(manifests.text);
  const errors = problems.filter(({ severity }) => severity === 'error');
  if (errors.length > 0) {
    const lines = errors.map((problem) => `  ${problemLine(manifests, problem)}`);
    throw new CliError('invalid_yaml', `the text cannot be compared\n${lines.join('\n')}`);
  }
  const found = new Map<string, DiffDocument>();
  for (const { text, value, index } of documents) {
    const key = keyOf(value);
    const label = key ? objectLabel(key) : `document ${index}`;
    let id = key ? keyString(key) : `document ${index}`;
    while (found.has(id)) id += ' again'; // refused at publish; here it is shown
    found.set(id, { label, value, text: `${text.trim()}\n` });
  }
  return found;
}

function keyOf(value: Value) {
  if (!isMapping(value) || typeof value.apiVersion !== 'string' || typeof value.kind !== 'string') return undefined;
  const metadata = isMapping(value.metadata) ? value.metadata : {};
  const { name, namespace } = metadata;
  if (typeof name !== 'string') return undefined;
  const slash = value.apiVersion.indexOf('/');
  const group = slash < 0 ? '' : value.apiVersion.slice(0, slash);
  const version = value.apiVersion.slice(slash + 1);
  return { group, version, kind: value.kind, namespace: typeof namespace === 'string' ? namespace : '', name };
}

/** A unified diff for each document that differs, in the order of the objects; the values of Secrets are masked. */
export function diffLines(before: ReadonlyMap<string, DiffDocument>, after: ReadonlyMap<string, DiffDocument>): string[] {
  const lines: string[] = [];
  for (const id of [...new Set([...before.keys(), ...after.keys()])].sort()) {
    const [left, right] = [before.get(id), after.get(id)];
    if (left?.text === right?.text) continue;
    const [leftText, rightText] = secretTexts(left?.value, right?.value) ?? [left?.text ?? '', right?.text ?? ''];
    const hunks = unifiedDiff(leftText, rightText);
    const name = (document: DiffDocument | undefined) => document?.label ?? '/dev/null';
    lines.push(`--- ${left ? `published ${name(left)}` : name(left)}`, `+++ ${right ? `local ${name(right)}` : name(right)}`);
    lines.push(...(hunks.length > 0 ? hunks : [' (comments or layout only)']));
  }
  return lines;
}
