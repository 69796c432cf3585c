import { readFile, stat } from 'node:fs/promises';
import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Rules } from '#lib/rules.ts';
import type { Task } from '#lib/run.ts';
import { aborted } from '#lib/signal.ts';
import type { YamlPool } from '#lib/yaml-pool.ts';

/** Time between two looks at the file; also how long a change may go unnoticed. */
const LOOK_MS = 3000;
/** Bytes of the file. */
const MAX_BYTES = 262_144;

/** The rules of the environment cannot be read, so nothing new may be applied. */
export class RulesError extends Error {
  override readonly name = 'RulesError';
}

/** What the rules need. */
export interface RulesDeps {
  readonly yaml: Pick<YamlPool, 'rules'>;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called when other rules hold. */
  readonly changed: () => void;
}

/**
 * The rules of the environment, from a file that is read again when it changes. An invalid file stops new content, never the agent. Call
 * `load` before anything is applied.
 */
export class EnvironmentRules implements Task {
  readonly name = 'rules';
  readonly #deps: RulesDeps;
  readonly #path: string | undefined;
  #rules: Rules | undefined;
  #problem: string | undefined;
  /** Tells one state of the file from another; undefined when it could not be read. */
  #stamp: string | undefined;

  /** Without a path there are no rules. */
  constructor(deps: RulesDeps, { path }: { readonly path: string | undefined }) {
    this.#deps = deps;
    this.#path = path;
    if (path !== undefined) this.#problem = 'the rules of the environment are not read yet';
  }

  /** Why nothing new is applied; undefined when that is not so. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** The rules that hold now; undefined when there are none. Throws a `RulesError` when it is not known which. */
  current(): Rules | undefined {
    if (this.#problem !== undefined) throw new RulesError(`${this.#problem}; nothing new is applied`);
    return this.#rules;
  }

  /** Reads the file for the first time. Rejects only with the signal's reason. */
  async load(signal: AbortSignal): Promise<void> {
    if (this.#path !== undefined) await this.#look(this.#path, signal);
  }

  async run(signal: AbortSignal): Promise<void> {
    if (this.#path === undefined) return aborted(signal);
    try {
      for (;;) {
        await this.#deps.clock.sleep(LOOK_MS, signal);
        await this.#look(this.#path, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** Reads the file unless it is as it was. */
  async #look(path: string, signal: AbortSignal): Promise<void> {
    try {
      const { mtimeMs, size, ino } = await stat(path);
      const stamp = `${mtimeMs} ${size} ${ino}`;
      if (stamp === this.#stamp) return;
      if (size > MAX_BYTES) throw new RangeError(`it has ${size} bytes, the limit is ${MAX_BYTES}`);
      const { rules, problems } = await this.#deps.yaml.rules(await readFile(path, 'utf8'), signal);
      this.#stamp = stamp;
      this.#set(
        rules,
        problems.length === 0 ? undefined : `the rules of the environment are invalid: ${path}: ${problems.join('; ')}`,
      );
    } catch (error) {
      signal.throwIfAborted();
      this.#stamp = undefined;
      this.#set(undefined, `the rules of the environment cannot be read: ${path}: ${errorText(error)}`);
    }
  }

  #set(rules: Rules | undefined, problem: string | undefined): void {
    if (problem !== undefined && problem === this.#problem) return;
    this.#rules = rules;
    this.#problem = problem;
    if (problem === undefined) this.#deps.log.info({}, 'rules of the environment read');
    else this.#deps.log.error({ problem }, 'rules of the environment cannot be used');
    this.#deps.changed();
  }
}
