import type { Cli } from '../cli.ts';
import type { Client } from '../client.ts';
import type { Listed, OutputFormat } from '../output.ts';
import type { Cell } from '../terminal.ts';

/** Options of `brokkr get`. */
export interface GetOptions {
  readonly output: OutputFormat;
  readonly limit: number;
  /** Events: about this stack. */
  readonly stack?: string;
  /** Events: of this agent. */
  readonly agent?: string;
  /** Stacks, agents: with this label. */
  readonly label?: string;
}

/** One call of `brokkr get`. */
export interface Request {
  readonly cli: Cli;
  readonly client: Client;
  readonly name: string | undefined;
  readonly options: GetOptions;
}

/** A list for people. */
export interface Rows {
  readonly header: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
  /** True when the limit cut it. */
  readonly more: boolean;
}

/** How one kind is listed. */
export interface Listing {
  /** The REST path whose JSON is the result, and whether that is one entry. */
  path(request: Request): Promise<{ readonly path: string; readonly single: boolean }>;
  rows(request: Request): Promise<Rows>;
}

/** A page of a list and the token of the next. */
export interface Page<T> {
  readonly items: readonly T[];
  readonly token: string;
}

const MAX_PAGE = 1_000;

/** The entry with the name asked for, or the first `limit` of the list. */
export async function entries<T>(
  { name, options }: Request,
  one: (name: string) => Promise<T>,
  page: (page: { readonly limit: number; readonly pageToken: string }) => Promise<Page<T>>,
): Promise<Listed<T>> {
  if (name !== undefined) return { items: [await one(name)], more: false };
  const items: T[] = [];
  let pageToken = '';
  do {
    const answer = await page({ limit: Math.min(options.limit, MAX_PAGE), pageToken });
    items.push(...answer.items);
    pageToken = answer.token;
  } while (pageToken !== '' && items.length < options.limit);
  return { items: items.slice(0, options.limit), more: pageToken !== '' || items.length > options.limit };
}

/** A query string of the parameters that are set. */
export function query(parameters: Readonly<Record<string, string | undefined>>): string {
  const set = Object.entries(parameters).filter((entry): entry is [string, string] => Boolean(entry[1]));
  return set.length === 0 ? '' : `?${new URLSearchParams(set)}`;
}
