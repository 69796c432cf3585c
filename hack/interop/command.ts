import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** How a command is run. */
export interface CommandOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
}

/** Largest output taken, on each of stdout and stderr. */
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024;
/** Lines of a failed command's output that the error shows. */
const SHOWN_LINES = 20;
/** Of its arguments; some carry whole documents. */
const SHOWN_CHARACTERS = 500;

/**
 * Runs a command to its end and returns its stdout. Throws an error with the end of its output when it fails, and one that
 * says what to install when there is no such command. An abort of `signal` ends it.
 */
export async function command(
  name: string,
  args: readonly string[],
  { env, cwd }: CommandOptions,
  signal: AbortSignal,
): Promise<string> {
  try {
    const { stdout } = await execute(name, args, {
      env: { ...env },
      ...(cwd !== undefined && { cwd }),
      signal,
      maxBuffer: MAX_OUTPUT_BYTES,
    });
    return stdout;
  } catch (cause) {
    signal.throwIfAborted();
    const { code, stdout = '', stderr = '' } = cause as { code?: string | number; stdout?: string; stderr?: string };
    if (code === 'ENOENT')
      throw new Error(`there is no ${name} on this machine, and this test needs it: install it and run again`, { cause });
    const tail = `${stdout}${stderr}`.trim().split('\n').slice(-SHOWN_LINES).join('\n');
    throw new Error(`${name} ${args.join(' ').slice(0, SHOWN_CHARACTERS)} failed (${code ?? 'killed'}):\n${tail}`, { cause });
  }
}
