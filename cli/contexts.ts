import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { CliError } from './failure.ts';

/** A broker and how to talk to it. */
export interface BrokerContext {
  readonly broker_url: string;
  /** The key; a secret. */
  readonly pak?: string;
  /** PEM file of a certificate authority to trust beside the system's. */
  readonly ca_file?: string;
}

/** What `~/.brokkr/config` holds, as JSON. */
export interface ContextFile {
  readonly current_context: string;
  readonly contexts: Readonly<Record<string, BrokerContext>>;
}

/** Environment variables by name. */
export type Env = Readonly<Record<string, string | undefined>>;

/** What flags say about the broker; they win over the environment, which wins over the file. */
export interface BrokerFlags {
  readonly broker?: string;
  readonly pakFile?: string;
  readonly caFile?: string;
  readonly context?: string;
}

/** Where the contexts are kept: `BROKKR_CONFIG` or `~/.brokkr/config`. */
export function contextPath(env: Env): string {
  return env.BROKKR_CONFIG || join(env.HOME || homedir(), '.brokkr', 'config');
}

/** The contexts; undefined when there is no file. Throws when it cannot be read. */
export async function readContexts(env: Env): Promise<ContextFile | undefined> {
  const path = contextPath(env);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new CliError('invalid_context', `cannot read ${path}`, { cause: error });
  }
  try {
    const file = JSON.parse(text) as Partial<ContextFile>;
    if (typeof file.contexts === 'object' && typeof file.current_context === 'string') return file as ContextFile;
  } catch {
    // told below, without the text: it holds keys
  }
  throw new CliError('invalid_context', `${path} is not a context file`, { hint: 'move it away; brokkr up writes a new one' });
}

/** Writes one context and makes it the current one. The file is for the user alone (0600) and replaced as a whole. */
export async function saveContext(env: Env, name: string, context: BrokerContext): Promise<void> {
  const path = contextPath(env);
  const present = await readContexts(env);
  const file: ContextFile = { current_context: name, contexts: { ...present?.contexts, [name]: context } };
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const partial = `${path}.${process.pid}`;
  await writeFile(partial, `${JSON.stringify(file, undefined, 2)}\n`, { mode: 0o600 });
  await chmod(partial, 0o600);
  await rename(partial, path);
}

/** The broker to talk to, from flags, environment and file, each value by itself. Throws when none is named. */
export async function resolveContext(flags: BrokerFlags, env: Env): Promise<BrokerContext> {
  const file = await readContexts(env);
  const name = flags.context ?? file?.current_context;
  const saved = name === undefined ? undefined : file?.contexts[name];
  if (flags.context !== undefined && !saved) {
    throw new CliError('invalid_context', `no context named ${flags.context} in ${contextPath(env)}`, {
      hint: knownContexts(file),
    });
  }
  const given = flags.broker ?? (env.BROKKR_BROKER_URL || undefined);
  const url = given ?? saved?.broker_url;
  if (url === undefined) {
    const hint = 'start one with brokkr up, or name one with --broker or BROKKR_BROKER_URL';
    throw new CliError('no_broker', 'no broker is known', { hint });
  }
  // a saved key goes to the broker it was saved for, and to no other
  const own = sameOrigin(url, saved?.broker_url) ? saved : undefined;
  const pak = flags.pakFile === undefined ? env.BROKKR_PAK || own?.pak : await readPak(flags.pakFile);
  const caFile = flags.caFile ?? (env.BROKKR_CA_FILE || own?.ca_file);
  return { broker_url: checkedUrl(url), ...(pak ? { pak } : {}), ...(caFile ? { ca_file: caFile } : {}) };
}

function knownContexts(file: ContextFile | undefined): string {
  const names = Object.keys(file?.contexts ?? {});
  return names.length === 0 ? 'brokkr up writes one' : `known: ${names.join(', ')}`;
}

async function readPak(path: string): Promise<string> {
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (error) {
    throw new CliError('file_not_found', `cannot read the key in ${path}`, { cause: error });
  }
}

function checkedUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === 'http:' || url?.protocol === 'https:') return text.replace(/\/+$/, '');
  throw new CliError('usage', `${text} is not an http or https address`, { exitCode: 2 });
}

function sameOrigin(a: string, b: string | undefined): boolean {
  return b !== undefined && URL.canParse(a) && URL.canParse(b) && new URL(a).origin === new URL(b).origin;
}
