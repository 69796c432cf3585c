import type { JsonValue } from '@bufbuild/protobuf';
import type { Client } from './client.ts';
import type { Terminal } from './terminal.ts';

/** How a result is printed: for people, or as the REST API answers it. */
export type OutputFormat = 'table' | 'json' | 'yaml';

/** Prints a REST answer as indented JSON or as YAML. */
export async function printDocument(terminal: Terminal, format: 'json' | 'yaml', body: JsonValue): Promise<void> {
  if (format === 'json') return terminal.line(JSON.stringify(body, undefined, 2));
  const { dump } = await import('js-yaml');
  terminal.line(dump(body, { lineWidth: -1 }).trimEnd());
}

/** A list and whether there was more. */
export interface Listed<T> {
  readonly items: readonly T[];
  readonly more: boolean;
}

/** Entries of a REST list over its pages, at most `limit`. */
export async function listRest(client: Client, path: string, limit: number, signal: AbortSignal): Promise<Listed<JsonValue>> {
  const items: JsonValue[] = [];
  const separator = path.includes('?') ? '&' : '?';
  let next: string | undefined = `${path}${separator}limit=${Math.min(limit, PAGE)}`;
  while (next !== undefined && items.length < limit) {
    const answer = await client.rest('GET', next, signal);
    if (Array.isArray(answer.body)) items.push(...answer.body);
    next = answer.next;
  }
  return { items: items.slice(0, limit), more: next !== undefined || items.length > limit };
}

/** Largest page of the API. */
const PAGE = 1_000;
