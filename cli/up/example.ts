import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { type AgentStackStatus, StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { endLines, exitOf } from '../apply.ts';
import type { Cli } from '../cli.ts';
import type { Client } from '../client.ts';
import type { ExitCode } from '../failure.ts';
import { readManifests } from '../manifests.ts';
import { withPlaces } from '../problems.ts';
import { progressText } from '../status.ts';
import { spanText, table } from '../terminal.ts';
import { targetedAgents, untilHealthy } from '../wait.ts';
import { LOCAL } from './agent.ts';

/** The stack that `brokkr up` publishes. */
export const EXAMPLE = 'hello';

/** Where its files are, as a user in the current folder would name them. */
export function exampleFolder(): string {
  return relative('', fileURLToPath(new URL('../../examples/hello', import.meta.url))) || '.';
}

/** Publishes the example and follows it until it is healthy; prints when it was where. */
export async function publishExample(cli: Cli, client: Client, timeoutMs: number, signal: AbortSignal): Promise<ExitCode> {
  const { terminal } = cli;
  const manifests = await readManifests({ paths: [exampleFolder()], recursive: false, stdin: process.stdin });
  const request = { name: EXAMPLE, yamlContent: manifests.text, labels: { values: [LOCAL] } };
  const { stack, result } = await client.call(StackService.method.apply, request, signal).catch((error: unknown) => {
    throw withPlaces(error, manifests);
  });
  terminal.note(`${EXAMPLE}: published (${result}), generation ${stack?.generation ?? 0n}`);
  const end = await untilHealthy(
    client,
    {
      stackId: stack?.id ?? '',
      generation: stack?.generation ?? 0n,
      timeoutMs,
      onStatus: (status) => terminal.progress(`${EXAMPLE}: ${progressText(status)}`),
    },
    cli.clock,
    signal,
  );
  terminal.settle();
  if (end.kind === 'healthy') {
    for (const agent of targetedAgents(end.status)) printTimes(cli, agent);
  } else {
    for (const line of endLines(end, EXAMPLE, manifests)) terminal.note(line);
  }
  return exitOf(end);
}

/** The way of the head, each step in time since its publication. */
function printTimes({ terminal }: Cli, agent: AgentStackStatus): void {
  const { publishedAt, receivedAt, appliedAt, healthyAt } = agent;
  const since = (at: typeof publishedAt) =>
    publishedAt && at ? `+${spanText(timestampMs(at) - timestampMs(publishedAt))}` : '-';
  const rows = [
    ['published', since(publishedAt)],
    ['delivered', since(receivedAt)],
    ['applied', since(appliedAt)],
    ['healthy', since(healthyAt)],
  ];
  const objects = `${agent.objectsReady} of ${agent.objectsTotal} objects ready`;
  terminal.line('');
  for (const line of table([EXAMPLE.toUpperCase(), objects], rows, terminal.paint)) terminal.line(line);
  terminal.line('');
}
