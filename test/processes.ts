import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll } from 'vitest';
import { mintKey } from '../lib/pak.ts';

/** A line of a process's log. */
export interface LogLine {
  readonly level: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** A process of ours. */
export interface TestProcess {
  readonly pid: number;
  /** Everything it logged. */
  readonly log: readonly LogLine[];
  /** What it printed besides JSON lines, standard error included. */
  readonly text: readonly string[];
  /** Resolves with the first line, past or future, that fits; rejects when the process ends first. */
  line(fits: (line: LogLine) => boolean): Promise<LogLine>;
  /** Sends a signal and waits for the end; resolves with the exit code. */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

/** A broker process. */
export interface TestBroker extends TestProcess {
  readonly url: string;
  readonly adminPak: string;
  /** REST call as JSON with the admin key, unless another is given. */
  api<T = unknown>(
    method: string,
    path: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
  ): Promise<{ readonly status: number; readonly body: T; readonly headers: Headers }>;
}

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const cleanups: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A process of ours: its entry among the sources, or the words of a command that runs it from elsewhere. */
export type Program = string | readonly [string, ...string[]];

/** Starts a process of ours; stopped at the end of the file if it still runs. */
export async function startProcess(
  program: Program,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<TestProcess> {
  const { PATH, HOME, NODE_COMPILE_CACHE } = process.env;
  const [command, ...words] = typeof program === 'string' ? [process.execPath, join(ROOT, program)] : program;
  const child = spawn(command, [...words, ...args], {
    cwd: ROOT,
    env: { PATH, HOME, NODE_COMPILE_CACHE, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return watchProcess(child);
}

function watchProcess(child: ChildProcess): TestProcess {
  const log: LogLine[] = [];
  const text: string[] = [];
  const waiters = new Set<() => void>();
  const wake = () => {
    for (const waiter of waiters) waiter();
  };
  const take = (line: string) => {
    try {
      log.push(JSON.parse(line));
    } catch {
      text.push(line);
    }
    wake();
  };
  for (const stream of [child.stdout, child.stderr]) if (stream) createInterface({ input: stream }).on('line', take);
  const ended = () => child.exitCode !== null || child.signalCode !== null;
  child.once('close', wake);
  const stop = async (signal: NodeJS.Signals = 'SIGTERM') => {
    if (!ended()) {
      const closed = once(child, 'close');
      child.kill(signal);
      await closed;
    }
    return child.exitCode;
  };
  cleanups.push(() => stop('SIGKILL'));
  return {
    pid: child.pid ?? 0,
    log,
    text,
    stop,
    line(fits) {
      return new Promise((resolve, reject) => {
        const look = () => {
          const found = log.find(fits);
          if (!found && !ended()) return;
          waiters.delete(look);
          if (found) resolve(found);
          else
            reject(
              new Error(
                `the process ended with ${child.exitCode ?? child.signalCode} before it logged that:\n${[...text, ...log.slice(-20).map((line) => JSON.stringify(line))].join('\n')}`,
              ),
            );
        };
        waiters.add(look);
        look();
      });
    },
  };
}

/** Starts a broker on a free loopback port, on the database given, and waits until it serves. */
export async function startBroker({
  databaseUrl,
  port = 0,
  adminKey = mintKey(),
  env = {},
  program = 'broker/main.ts',
}: {
  readonly program?: Program;
  readonly databaseUrl: string;
  readonly port?: number;
  readonly adminKey?: { readonly pak: string; readonly hash: string };
  readonly env?: Readonly<Record<string, string>>;
}): Promise<TestBroker> {
  const started = await startProcess(program, ['serve'], {
    DATABASE_URL: databaseUrl,
    BROKKR__BROKER__LISTEN: `127.0.0.1:${port}`,
    BROKKR__BROKER__PAK_HASH: adminKey.hash,
    BROKKR__DATABASE__POOL_MAX: '8',
    ...env,
  });
  const line = await started.line((item) => typeof item.address === 'string');
  const scheme = env.BROKKR__TLS__CERT ? 'https' : 'http';
  const url = `${scheme}://${line.address}`;
  return {
    ...started,
    url,
    adminPak: adminKey.pak,
    async api(method, path, body, headers = {}) {
      const response = await fetch(`${url}${path}`, {
        method,
        headers: {
          authorization: adminKey.pak,
          ...(body !== undefined && typeof body !== 'string' && { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      });
      const answer = await response.text();
      return { status: response.status, headers: response.headers, body: (answer === '' ? undefined : parse(answer)) as never };
    },
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Starts an agent process with short intervals; its files are in a directory of its own. */
export async function startAgent({
  brokerUrl,
  pak,
  kubeconfigPath,
  namespace,
  name = 'agent',
  dataDir,
  env = {},
}: {
  readonly brokerUrl: string;
  readonly pak: string;
  readonly kubeconfigPath: string;
  readonly namespace: string;
  readonly name?: string;
  readonly dataDir?: string;
  readonly env?: Readonly<Record<string, string>>;
}): Promise<TestProcess & { readonly dataDir: string }> {
  const dir = dataDir ?? (await temporaryDirectory());
  const pakFile = join(dir, 'pak');
  await writeFile(pakFile, pak, { mode: 0o600 });
  const started = await startProcess('agent/main.ts', ['start'], {
    BROKKR__AGENT__BROKER_URL: brokerUrl,
    BROKKR__AGENT__PAK_FILE: pakFile,
    BROKKR__AGENT__AGENT_NAME: name,
    BROKKR__AGENT__CLUSTER_NAME: 'test',
    BROKKR__AGENT__KUBECONFIG_PATH: kubeconfigPath,
    BROKKR__AGENT__NAMESPACE: namespace,
    BROKKR__AGENT__DATA_DIR: dir,
    BROKKR__AGENT__HEALTH_PORT: '0',
    ...env,
  });
  return { ...started, dataDir: dir };
}

/** A directory that is removed at the end of the file. */
export async function temporaryDirectory(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'brokkr-test-'));
  cleanups.push(() => rm(dir, { recursive: true, force: true }));
  return dir;
}
