import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { HealthExpressions, HealthVerdict } from '#lib/health-rules.ts';
import type { Logger } from '#lib/log.ts';
import type { ValueObject } from '#lib/object.ts';
import type { Task } from '#lib/run.ts';
import { Wakeup } from '#lib/signal.ts';
import type { YamlPool } from '#lib/yaml-pool.ts';
import type { Readiness } from './readiness.ts';
import { ruleText } from './rule.ts';

/** Objects judged in one task of the pool. */
const BATCH = 50;
/** Wait after a task that failed as a whole (the pool is full). */
const RETRY_MS = 1000;
/** Rules remembered as disabled; the oldest is forgotten first, and then tried again. */
const MAX_DISABLED = 1000;
const MAX_MESSAGE = 256;

/** State of an object by a rule of its stack; pods are not counted by rules. */
export type Judged = Pick<Readiness, 'state' | 'reason' | 'message'>;

interface Question {
  readonly rule: HealthExpressions;
  readonly object: ValueObject;
  readonly told: (judged: Judged) => void;
}

const KILLED: Judged = {
  state: 'unknown',
  reason: 'HealthRuleDisabled',
  message: 'the health rule took longer than 50 ms and is not used until its text changes',
};

/**
 * Judges objects by CEL rules off the event loop. One question an object: a newer one takes the place of one that still waits, so there are
 * never more than objects with rules. A rule that had to be killed is disabled until its text changes.
 */
export class HealthJudge implements Task {
  readonly name = 'health rules';
  readonly #yaml: Pick<YamlPool, 'health'>;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #waiting = new Map<string, Question>();
  readonly #asked = new Map<string, Question>();
  /** Texts of rules. */
  readonly #disabled = new Set<string>();
  readonly #wakeup = new Wakeup();

  constructor({ yaml, clock, log }: { readonly yaml: Pick<YamlPool, 'health'>; readonly clock: Clock; readonly log: Logger }) {
    this.#yaml = yaml;
    this.#clock = clock;
    this.#log = log;
  }

  /** Asks for the state of an object; `told` is called once with the answer, unless a newer question or `forget` comes first. */
  ask(id: string, question: Question): void {
    if (this.#disabled.has(ruleText(question.rule))) {
      this.forget(id);
      question.told(KILLED);
      return;
    }
    this.#waiting.set(id, question);
    this.#wakeup.wake();
  }

  /** The object is gone, or has no rule any more. */
  forget(id: string): void {
    this.#waiting.delete(id);
    this.#asked.delete(id);
  }

  /** Everything whose id begins so is gone. */
  forgetAll(prefix: string): void {
    for (const id of [...this.#waiting.keys(), ...this.#asked.keys()]) if (id.startsWith(prefix)) this.forget(id);
  }

  async run(signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        if (this.#waiting.size === 0) await this.#wakeup.wait(signal);
        else await this.#judgeSome(signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  async #judgeSome(signal: AbortSignal): Promise<void> {
    const batch = [...this.#waiting].slice(0, BATCH);
    for (const [id, question] of batch) {
      this.#waiting.delete(id);
      this.#asked.set(id, question);
    }
    // Equal rules are sent as one, so that each is compiled, and if need be killed, once.
    const rules = new Map(batch.map(([, { rule }]) => [ruleText(rule), rule]));
    const questions = batch.map(([, { rule, object }]) => ({ rule: rules.get(ruleText(rule)) ?? rule, object }));
    let verdicts: HealthVerdict[];
    try {
      verdicts = await this.#yaml.health(questions, signal);
    } catch (error) {
      signal.throwIfAborted();
      this.#log.warn({ error: errorText(error) }, 'health rules could not be evaluated');
      for (const [id, question] of this.#asked) if (!this.#waiting.has(id)) this.#waiting.set(id, question);
      this.#asked.clear();
      await this.#clock.sleep(RETRY_MS, signal);
      return;
    }
    for (const [index, [id, question]] of batch.entries()) {
      const verdict = verdicts[index];
      if (!verdict || this.#asked.get(id) !== question) continue;
      this.#asked.delete(id);
      if (verdict.kind === 'killed') this.#disable(question.rule);
      question.told(judgedBy(verdict));
    }
  }

  #disable(rule: HealthExpressions): void {
    const text = ruleText(rule);
    if (this.#disabled.has(text)) return;
    this.#disabled.add(text);
    const [oldest] = this.#disabled;
    if (this.#disabled.size > MAX_DISABLED && oldest !== undefined) this.#disabled.delete(oldest);
    this.#log.error({ expression: rule.current }, 'health rule took too long and is disabled');
  }
}

function judgedBy(verdict: HealthVerdict): Judged {
  switch (verdict.kind) {
    case 'killed':
      return KILLED;
    case 'invalid':
      return { state: 'unknown', reason: 'HealthRuleInvalid', message: verdict.message.slice(0, MAX_MESSAGE) };
    case 'judged':
      return { state: verdict.state, reason: REASONS[verdict.state], message: verdict.message.slice(0, MAX_MESSAGE) };
  }
}

const REASONS = { ready: 'Current', progressing: 'InProgress', failing: 'Failed' } as const;
