import { spawn } from 'node:child_process';
import { join } from 'node:path';

/** What a finished command left behind. */
export interface Outcome {
  /** Exit code; 1 when a signal ended it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The checkout, with no slash at the end. */
export const ROOT = join(import.meta.dirname, '..');

/**
 * Runs a command to its end, with the tools of node_modules first in PATH; never rejects because of an exit code. `node`
 * is the Node that runs us. Rejects when the command cannot be started.
 */
export function run(command: string, args: readonly string[], cwd: string = ROOT): Promise<Outcome> {
  const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
  const bin = join(ROOT, 'node_modules/.bin');
  const child = spawn(command === 'node' ? process.execPath : command, args, {
    cwd,
    env: { ...process.env, PATH: `${bin}:${process.env.PATH ?? ''}` },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  child.on('error', reject);
  child.on('close', (code) => {
    resolve({ code: code ?? 1, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() });
  });
  return promise;
}

/** The same for a command that has to succeed; returns what it printed. Throws with its last words. */
export async function must(command: string, args: readonly string[], cwd?: string): Promise<string> {
  const { code, stdout, stderr } = await run(command, args, cwd);
  if (code === 0) return stdout;
  throw new Error(`${command} ${args.join(' ')} ended with ${code}:\n${`${stdout}${stderr}`.slice(-4000)}`);
}
