import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { StackService } from '#proto/brokkr/v1/stacks_pb.js';
import { type Cli, connect } from './cli.ts';
import { usageError } from './failure.ts';
import { gateText } from './gate.ts';
import { query } from './listings/listing.ts';
import { listRest, type OutputFormat, printDocument } from './output.ts';
import { getStack } from './resolve.ts';
import { timeText } from './show.ts';
import { table } from './terminal.ts';

/** Options of `brokkr history`. */
export interface HistoryOptions {
  readonly at?: string;
  readonly limit: number;
  readonly output: OutputFormat;
}

/** `brokkr history STACK`: its heads, newest first; with `--at`, the one of that moment. */
export async function history(cli: Cli, name: string, { at, limit, output }: HistoryOptions): Promise<void> {
  const atMs = at === undefined ? undefined : Date.parse(at);
  if (Number.isNaN(atMs)) throw usageError(`${at} is not a time`, 'for example 2026-01-31T12:00:00Z');
  const client = await connect(cli);
  const stack = await getStack(client, name, cli.signal);
  if (output !== 'table') {
    const path = `/api/v1/stacks/${stack.id}/history${query({ at: atMs === undefined ? undefined : new Date(atMs).toISOString() })}`;
    return printDocument(cli.terminal, output, [...(await listRest(client, path, limit, cli.signal)).items]);
  }
  const request = {
    stackId: stack.id,
    limit: Math.min(limit, 1_000),
    ...(atMs === undefined ? {} : { at: timestampFromMs(atMs) }),
  };
  const { entries, nextPageToken } = await client.call(StackService.method.getStackHistory, request, cli.signal);
  if (entries.length === 0) return cli.terminal.note(at === undefined ? 'no history' : `the stack had no content at ${at}`);
  const rows = entries.map((entry) => [
    String(entry.generation),
    entry.revision === undefined ? '-' : String(entry.revision),
    entry.cause,
    String(entry.objectCount),
    String(entry.appliedAgents),
    timeText(entry.createdAt),
    entry.gate ? gateText(entry.gate) : '-',
    entry.actor,
    entry.yamlChecksum?.slice(0, 12) ?? '-',
  ]);
  const header = ['GENERATION', 'REVISION', 'CAUSE', 'OBJECTS', 'APPLIED BY', 'FROM', 'GATE', 'ACTOR', 'CHECKSUM'];
  for (const line of table(header, rows, cli.terminal.paint)) cli.terminal.line(line);
  if (nextPageToken !== '') cli.terminal.note(`there is more: --limit shows the first ${limit}`);
}
