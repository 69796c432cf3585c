import { readFile } from 'node:fs/promises';
import { delimiter, dirname, isAbsolute, join } from 'node:path';
import { BrokkrError, errorText } from '#lib/errors.ts';
import { inCluster, readInCluster } from './in-cluster.ts';
import { proxyFromEnv } from './proxy.ts';

/** A text given inline or in a file that may be rotated. */
export type TextSource = { readonly data: string } | { readonly file: string };

/** An exec credential plugin of a kubeconfig (`client.authentication.k8s.io`). */
export interface ExecPlugin {
  readonly apiVersion: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Where a command with a relative path starts, and what file it was named in. */
  readonly directory: string;
  readonly provideClusterInfo: boolean;
}

/** How requests prove who we are, client certificates aside. */
export type KubeAuth =
  | { readonly kind: 'none' }
  | { readonly kind: 'token'; readonly token: string }
  | { readonly kind: 'tokenFile'; readonly file: string }
  | { readonly kind: 'basic'; readonly username: string; readonly password: string }
  | { readonly kind: 'exec'; readonly plugin: ExecPlugin }
  | { readonly kind: 'provider'; readonly name: string; readonly config: Readonly<Record<string, unknown>> };

/** Where an API server is and how to talk to it. Holds secrets: never log it. */
export interface KubeCredentials {
  /** Base URL, with a path if the server is behind one. */
  readonly server: string;
  /** Namespace of the context or of the pod. */
  readonly namespace: string | undefined;
  readonly ca: TextSource | undefined;
  readonly certificate: TextSource | undefined;
  readonly key: TextSource | undefined;
  /** Name expected in the server's certificate when it differs from the host. */
  readonly tlsServerName: string | undefined;
  readonly insecureSkipTlsVerify: boolean;
  /** HTTP, HTTPS or SOCKS5 proxy. */
  readonly proxyUrl: string | undefined;
  readonly auth: KubeAuth;
}

/** Environment variables by name. */
export type Env = Readonly<Record<string, string | undefined>>;

/** Where to look for a cluster. */
export interface KubeconfigOptions {
  /** A kubeconfig file named by configuration; it alone is read. */
  readonly path?: string | undefined;
  /** Context to use instead of `current-context`. */
  readonly context?: string | undefined;
  /** Directory of the pod's service account; the Kubernetes default when absent. */
  readonly serviceAccountDir?: string | undefined;
}

/**
 * Finds the cluster the way kubectl does: the named file, else the files of KUBECONFIG, else `~/.kube/config`, else the
 * pod's own service account. A proxy of the environment applies unless the kubeconfig names one. Throws `invalid_request` with the way out when there is none.
 */
export async function loadCredentials(options: KubeconfigOptions, env: Env, signal: AbortSignal): Promise<KubeCredentials> {
  const credentials = await findCredentials(options, env, signal);
  return { ...credentials, proxyUrl: credentials.proxyUrl ?? proxyFromEnv(credentials.server, env) };
}

async function findCredentials(options: KubeconfigOptions, env: Env, signal: AbortSignal): Promise<KubeCredentials> {
  if (options.path) return readKubeconfig([options.path], options.context, signal);
  const listed = (env.KUBECONFIG ?? '').split(delimiter).filter((path) => path !== '');
  if (listed.length > 0) return readKubeconfig(listed, options.context, signal);
  const home = env.HOME ?? env.USERPROFILE;
  const standard = home === undefined ? undefined : join(home, '.kube', 'config');
  if (standard !== undefined && (await readOptional(standard, signal)) !== undefined) {
    return readKubeconfig([standard], options.context, signal);
  }
  if (inCluster(env)) return readInCluster(env, options.serviceAccountDir, signal);
  throw new BrokkrError(
    'invalid_request',
    'no cluster: set KUBECONFIG, name a kubeconfig file, or run in a pod with a service account',
  );
}

/**
 * Reads kubeconfig files and merges them as kubectl does: the first file that names a cluster, user or context wins, files
 * that do not exist are skipped when there are several, relative paths start at the file that holds them.
 */
export async function readKubeconfig(
  paths: readonly string[],
  context: string | undefined,
  signal: AbortSignal,
): Promise<KubeCredentials> {
  const files: KubeconfigFile[] = [];
  for (const path of paths) {
    const text = await readOptional(path, signal);
    if (text !== undefined) files.push({ path, document: await parse(path, text) });
  }
  if (files.length === 0) throw new BrokkrError('invalid_request', `kubeconfig ${paths.join(', ')} does not exist`);
  const contextName =
    context ?? files.map(({ document }) => text(document['current-context'])).find((name) => name !== undefined);
  if (contextName === undefined)
    throw new BrokkrError('invalid_request', `kubeconfig ${paths.join(', ')} has no current-context`);
  const chosen = find(files, 'contexts', 'context', contextName);
  const cluster = find(files, 'clusters', 'cluster', text(chosen.fields.cluster) ?? '');
  const userName = text(chosen.fields.user);
  const user = userName === undefined ? undefined : find(files, 'users', 'user', userName);
  return credentials(cluster, user, text(chosen.fields.namespace));
}

type Fields = Readonly<Record<string, unknown>>;

interface KubeconfigFile {
  readonly path: string;
  readonly document: Fields;
}

interface Entry {
  readonly name: string;
  readonly fields: Fields;
  readonly directory: string;
}

function credentials(cluster: Entry, user: Entry | undefined, namespace: string | undefined): KubeCredentials {
  const server = text(cluster.fields.server);
  if (server === undefined || !URL.canParse(server)) {
    throw new BrokkrError('invalid_request', `cluster ${cluster.name} of the kubeconfig has no valid server address`);
  }
  return {
    server,
    namespace,
    ca: source(cluster, 'certificate-authority'),
    certificate: user && source(user, 'client-certificate'),
    key: user && source(user, 'client-key'),
    tlsServerName: text(cluster.fields['tls-server-name']),
    insecureSkipTlsVerify: cluster.fields['insecure-skip-tls-verify'] === true,
    proxyUrl: text(cluster.fields['proxy-url']),
    auth: user ? authOf(user) : { kind: 'none' },
  };
}

/** kubectl's order: a token file wins over a token, both over a plugin. */
function authOf({ fields, directory }: Entry): KubeAuth {
  const tokenFile = text(fields.tokenFile);
  if (tokenFile !== undefined) return { kind: 'tokenFile', file: absolute(directory, tokenFile) };
  const token = text(fields.token);
  if (token !== undefined) return { kind: 'token', token };
  const username = text(fields.username);
  if (username !== undefined) return { kind: 'basic', username, password: text(fields.password) ?? '' };
  if (isFields(fields.exec)) return { kind: 'exec', plugin: pluginOf(fields.exec, directory) };
  const provider = fields['auth-provider'];
  if (isFields(provider)) {
    return {
      kind: 'provider',
      name: text(provider.name) ?? '',
      config: isFields(provider.config) ? provider.config : {},
    };
  }
  return { kind: 'none' };
}

function pluginOf(exec: Fields, directory: string): ExecPlugin {
  const command = text(exec.command);
  if (command === undefined)
    throw new BrokkrError('invalid_request', 'exec credential plugin of the kubeconfig names no command');
  const env = Array.isArray(exec.env) ? exec.env.filter(isFields) : [];
  return {
    apiVersion: text(exec.apiVersion) ?? 'client.authentication.k8s.io/v1',
    // A bare name is looked up on PATH, a relative path starts at the kubeconfig's directory (client-go).
    command: command.includes('/') ? absolute(directory, command) : command,
    args: Array.isArray(exec.args) ? exec.args.map(String) : [],
    env: Object.fromEntries(env.map((entry) => [String(entry.name), String(entry.value)])),
    directory,
    provideClusterInfo: exec.provideClusterInfo === true,
  };
}

function source({ name, fields, directory }: Entry, field: string): TextSource | undefined {
  const data = text(fields[`${field}-data`]);
  if (data !== undefined) {
    const decoded = Buffer.from(data, 'base64').toString('utf8');
    if (!decoded.includes('-----BEGIN'))
      throw new BrokkrError('invalid_request', `${field}-data of ${name} is not base64 of PEM`);
    return { data: decoded };
  }
  const file = text(fields[field]);
  return file === undefined ? undefined : { file: absolute(directory, file) };
}

function find(files: readonly KubeconfigFile[], list: string, field: string, name: string): Entry {
  for (const { path, document } of files) {
    const entries = document[list];
    if (!Array.isArray(entries)) continue;
    const entry = entries.find((candidate) => isFields(candidate) && String(candidate.name) === name);
    if (entry) return { name, fields: isFields(entry[field]) ? entry[field] : {}, directory: dirname(path) };
  }
  throw new BrokkrError('invalid_request', `kubeconfig has no ${field} named ${JSON.stringify(name)}`);
}

async function parse(path: string, content: string): Promise<Fields> {
  let document: unknown;
  try {
    // A JSON kubeconfig (the one we write ourselves) needs no YAML parser in memory.
    document = content.trimStart().startsWith('{') ? JSON.parse(content) : (await import('js-yaml')).load(content);
  } catch (error) {
    throw new BrokkrError('invalid_request', `kubeconfig ${path} cannot be parsed`, { cause: withoutContent(error) });
  }
  if (!isFields(document)) throw new BrokkrError('invalid_request', `kubeconfig ${path} is not a mapping`);
  return document;
}

/** Parser messages quote the text around the error, which may be a key. */
function withoutContent(error: unknown): Error {
  return new Error(errorText(error).split('\n', 1)[0]?.replaceAll(/".*"/g, '"…"') ?? 'syntax error');
}

async function readOptional(path: string, signal: AbortSignal): Promise<string | undefined> {
  try {
    return await readFile(path, { encoding: 'utf8', signal });
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

function absolute(directory: string, path: string): string {
  return isAbsolute(path) ? path : join(directory, path);
}

function text(value: unknown): string | undefined {
  return value === undefined || value === null || value === '' ? undefined : String(value);
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
