import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, renameSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Clock } from '#lib/clock.ts';
import { abortable } from '#lib/signal.ts';
import type { Env } from '../contexts.ts';

/** One of our own processes, run for `brokkr up`. */
export interface Child {
  readonly name: string;
  /** Undefined when it could not be started. */
  readonly pid: number | undefined;
  readonly logPath: string;
  /** How it ended, in words. Never rejects. */
  readonly exited: Promise<string>;
  /** The last lines it wrote. */
  tail(): string;
  /** SIGTERM, and SIGKILL when it still runs after `graceMs`. Harmless when it has ended. */
  stop(graceMs: number): Promise<void>;
}

/** What `startChild` starts. */
export interface ChildOptions {
  readonly name: string;
  /** File in `bin`, and its arguments. */
  readonly script: 'brokkr-broker.js' | 'brokkr-agent.js';
  readonly args: readonly string[];
  readonly env: Env;
  /** Receives stdout and stderr; that of the last start is kept beside it as `.old`. */
  readonly logPath: string;
}

/**
 * Starts a process in a session of its own, so that a Ctrl-C at the terminal reaches only us and we stop it in order.
 * Should we die without a chance to, the kernel ends it (where `setpriv` exists).
 */
export function startChild({ name, script, args, env, logPath }: ChildOptions, clock: Clock): Child {
  const file = fileURLToPath(new URL(`../../bin/${script}`, import.meta.url));
  const [command, argv] = boundToUs([process.execPath, file, ...args]);
  keepOld(logPath);
  const output = openSync(logPath, 'a', 0o600);
  let child: ChildProcess;
  try {
    child = spawn(command, argv, { env: { ...env }, stdio: ['ignore', output, output], detached: true });
  } finally {
    closeSync(output);
  }
  const exited = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`));
  });
  const running = () => child.pid !== undefined && child.exitCode === null && child.signalCode === null;
  return {
    name,
    pid: child.pid,
    logPath,
    exited,
    tail: () => lastLines(logPath),
    async stop(graceMs) {
      if (!running()) return;
      child.kill('SIGTERM');
      using grace = clock.deadline(graceMs, new AbortController().signal);
      await abortable(exited, grace.signal).catch(() => {
        child.kill('SIGKILL');
        return exited;
      });
    },
  };
}

function keepOld(path: string): void {
  try {
    renameSync(path, `${path}.old`);
  } catch {
    // the first start
  }
}

function boundToUs(line: readonly [string, ...string[]]): [string, string[]] {
  const bound = process.platform === 'linux' && spawnSync('setpriv', ['--pdeathsig', 'TERM', 'true']).status === 0;
  const [command, ...args] = line;
  return bound ? ['setpriv', ['--pdeathsig', 'TERM', ...line]] : [command, args];
}

function lastLines(path: string): string {
  try {
    return readFileSync(path, 'utf8').trimEnd().split('\n').slice(-8).join('\n');
  } catch {
    return '';
  }
}
