import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';

/** A running program: one process that ends with us. */
export interface Program {
  readonly name: string;
  readonly pid: number;
  /** Resolves when the process has ended. Never rejects. */
  readonly exited: Promise<string>;
  /** False once the process has ended. */
  running(): boolean;
  /** Sends the signal and resolves when the process has ended. Harmless when it already has. */
  stop(signal: NodeJS.Signals): Promise<void>;
  /** The last lines the program wrote, for error messages. */
  tail(): string;
}

/** What to start. */
export interface ProgramOptions {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** Receives stdout and stderr, appended. */
  readonly logPath: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
}

/**
 * Starts a program that does not outlive us: where `setpriv` exists (Linux) the kernel kills it when the thread that
 * called this ends, however it ends. Elsewhere the caller's own clean-up has to do.
 */
export function startProgram({ name, command, args, logPath, env, cwd }: ProgramOptions): Program {
  const [file, argv] = boundToParent(command, args);
  const output = openSync(logPath, 'a', 0o600);
  let child: ChildProcess;
  try {
    child = spawn(file, argv, { cwd, env: { ...env }, stdio: ['ignore', output, output] });
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
    pid: child.pid ?? 0,
    exited,
    running,
    tail: () => lastLines(logPath),
    async stop(signal) {
      if (running()) child.kill(signal);
      await exited;
    },
  };
}

/** Identifies a process beyond its id, which the system uses again: start time on Linux. Undefined when it is gone. */
export async function processIdentity(pid: number): Promise<string | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' '); // the name may hold spaces and brackets
    return fields[0] === 'Z' ? undefined : `linux:${fields[19]}`; // field 22 of proc(5): start time in ticks
  } catch {
    return process.platform !== 'linux' && exists(pid) ? 'alive' : undefined;
  }
}

/** True when the process runs and its command line mentions `marker`. Always false without /proc. */
export async function commandLineMentions(pid: number, marker: string): Promise<boolean> {
  try {
    return (await readFile(`/proc/${pid}/cmdline`, 'utf8')).includes(marker);
  } catch {
    return false;
  }
}

function boundToParent(command: string, args: readonly string[]): [string, string[]] {
  const bound = process.platform === 'linux' && spawnSync('setpriv', ['--pdeathsig', 'KILL', 'true']).status === 0;
  return bound ? ['setpriv', ['--pdeathsig', 'KILL', command, ...args]] : [command, [...args]];
}

function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function lastLines(path: string): string {
  try {
    return readFileSync(path, 'utf8').trimEnd().split('\n').slice(-8).join('\n');
  } catch {
    return '';
  }
}
