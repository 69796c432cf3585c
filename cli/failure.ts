/** Exit codes, a contract (docs/reference/cli.md). Over several agents the gravest counts: 5, then 4. */
export const EXIT = { ok: 0, error: 1, usage: 2, differences: 3, timeout: 4, agentFailed: 5, interrupted: 130 } as const;

/** How a command ended; undefined counts as 0. */
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** What the CLI cannot do, with a stable name, the next step, and the exit code. */
export class CliError extends Error {
  override readonly name = 'CliError';
  /** Stable name: of the broker's error table, or one of ours (`unreachable`, `usage`, `file_not_found` …). */
  readonly code: string;
  readonly hint: string | undefined;
  readonly exitCode: ExitCode;
  /** The broker's `details`. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: string, message: string, options: CliErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint ?? HINTS[code];
    this.exitCode = options.exitCode ?? EXIT.error;
    this.details = options.details ?? {};
  }
}

/** What a `CliError` may carry. */
export interface CliErrorOptions {
  /** The next step, one line. */
  readonly hint?: string | undefined;
  /** Default 1. */
  readonly exitCode?: ExitCode;
  readonly details?: Readonly<Record<string, unknown>>;
  readonly cause?: unknown;
}

/** A wrong call of the CLI: exit code 2. */
export function usageError(message: string, hint?: string): CliError {
  return new CliError('usage', message, { hint, exitCode: EXIT.usage });
}

/** The next step after an error of the broker that says too little by itself. */
const HINTS: Readonly<Record<string, string>> = {
  unauthorized: 'give a key: BROKKR_PAK, --pak-file FILE, or the context that brokkr up writes',
  admin_required: 'this needs an admin key',
  read_only_key: 'this key may only read: use another',
  stack_not_found: 'see brokkr get stacks',
  agent_not_found: 'see brokkr get agents',
  generator_not_found: 'see brokkr get generators',
  key_not_found: 'see brokkr get keys',
  agent_not_registered: 'the agent takes stacks of registered generators only: register it with the generator of the stack',
  payload_too_large: 'split the stack into several',
  database_unavailable: 'the broker has lost its database: try again when it is back',
  draining: 'the broker is shutting down: try again',
};

/** The lines of an error for people: what and its code, the further lines of its message, the next step. */
export function errorLines(error: unknown): string[] {
  if (!(error instanceof CliError)) return [`error: ${error instanceof Error ? error.message : String(error)}`];
  const [first = '', ...more] = error.message.split('\n');
  const lines = [`error: ${first}${error.code === 'usage' ? '' : ` (${error.code})`}`, ...more];
  if (error.hint !== undefined) lines.push(`  ${error.hint}`);
  return lines;
}
