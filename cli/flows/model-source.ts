import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { FlowSetError } from '#flows/model/document.ts';
import { loadFacts, resolveFacts } from '#flows/model/facts.ts';
import type { FlowSet } from '#flows/model/flowset.ts';
import { loadFlowSet } from '#flows/model/load.ts';
import type { Facts, Model } from '#flows/model/model.ts';
import { resolve } from '#flows/model/resolve.ts';
import type { Cli } from '../cli.ts';
import { CliError } from '../failure.ts';

/** Options of every command that reads a flow set. */
export interface ModelOptions {
  readonly filename: string;
  readonly facts?: string;
  readonly profile?: readonly string[];
  readonly with?: readonly string[];
  readonly without?: readonly string[];
  readonly today?: string;
}

/** A flow set and the facts it is used with. */
export interface ModelSource {
  readonly set: FlowSet;
  readonly facts: Facts;
}

/** Most bytes of a flow set or of facts. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;

/** Reads the flow set and the facts; a folder stands for its `flows.yaml` and, unless others are named, its `facts.yaml`. */
export async function readModelSource({ filename, facts }: Pick<ModelOptions, 'filename' | 'facts'>): Promise<ModelSource> {
  const isFolder = (await stat(filename).catch((error: unknown) => notRead(filename, error))).isDirectory();
  const file = isFolder ? join(filename, 'flows.yaml') : filename;
  const set = await told(async () => loadFlowSet(await readText(file), file));
  const beside = join(filename, 'facts.yaml');
  const factsFile = facts ?? (isFolder && (await exists(beside)) ? beside : undefined);
  if (factsFile === undefined) return { set, facts: resolveFacts() };
  const declared = await told(async () => loadFacts(await readText(factsFile), factsFile));
  return { set, facts: resolveFacts({ facts: declared, source: 'declared' }) };
}

/** The model of a flow set under the options; throws with every place that is wrong. */
export async function readModel(cli: Cli, options: ModelOptions): Promise<Model> {
  const source = await readModelSource(options);
  return told(async () => modelOf(cli, source, options));
}

/** The model of what has been read. Throws `FlowSetError`. */
export function modelOf(cli: Cli, { set, facts }: ModelSource, options: Omit<ModelOptions, 'filename' | 'facts'>): Model {
  const { profile = [], with: on = [], without = [] } = options;
  const today = options.today ?? new Date(cli.clock.now()).toISOString().slice(0, 10);
  return resolve(set, { profiles: profile, with: on, without, today, facts });
}

/** Runs work that may find fault with a flow set, and tells all of it in lines of `file:line:column`. */
export async function told<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof FlowSetError)) throw error;
    const { length } = error.problems;
    const lines = error.message.split('\n').map((line) => `  ${line}`);
    const message = `${length} problem${length === 1 ? '' : 's'}\n${lines.join('\n')}`;
    throw new CliError('invalid_flow_set', message, { cause: error });
  }
}

async function readText(file: string): Promise<string> {
  const { size } = await stat(file).catch((error: unknown) => notRead(file, error));
  if (size > MAX_FILE_BYTES) throw new CliError('payload_too_large', `${file} has ${size} bytes, the limit is ${MAX_FILE_BYTES}`);
  return readFile(file, 'utf8').catch((error: unknown) => notRead(file, error));
}

function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}

function notRead(file: string, error: unknown): never {
  const { code } = error as NodeJS.ErrnoException;
  const reason = code === 'ENOENT' ? 'no such file or directory' : (code ?? String(error));
  throw new CliError('file_not_found', `${file}: ${reason}`, { cause: error });
}
