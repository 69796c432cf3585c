import { create } from '@bufbuild/protobuf';
import { type Clock, TimeoutError } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { ExplainQuery, Explanation } from '#proto/brokkr/v1/explain_pb.js';
import { type Answer, AnswerSchema, type Query } from '#proto/brokkr/v1/sync_pb.js';
import { Slots } from '../slots.ts';

/** What questions are answered with. */
export interface QuestionsDeps {
  /** Rejects when it cannot be told; see `explainStack`. */
  readonly explain: (query: ExplainQuery, signal: AbortSignal) => Promise<Explanation>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Questions worked on at a time, and those that wait for their turn. */
const MAX_RUNNING = 4;
const MAX_WAITING = 16;

/** Answers questions of the broker, a few at a time, so that they never get in the way of the work itself. */
export class Questions {
  readonly #deps: QuestionsDeps;
  readonly #slots = new Slots(MAX_RUNNING);
  #open = 0;

  constructor(deps: QuestionsDeps) {
    this.#deps = deps;
  }

  /**
   * The answer; undefined when there is none to give: the question is of a newer kind, nobody waits for it any more, or `signal`
   * aborted. Never rejects.
   */
  async answer({ id, timeoutMs, body }: Query, signal: AbortSignal): Promise<Answer | undefined> {
    if (body.case === undefined) return undefined;
    const { explain, clock, log } = this.#deps;
    const fail = (why: string) => create(AnswerSchema, { id, body: { case: 'failure', value: why } });
    if (this.#open >= MAX_RUNNING + MAX_WAITING) return fail(`the agent has ${this.#open} questions to answer already`);
    this.#open += 1;
    using deadline = clock.deadline(timeoutMs, signal);
    let answer: Answer | undefined;
    try {
      const work = async () => {
        const value = await explain(body.value, deadline.signal);
        answer = create(AnswerSchema, { id, body: { case: 'explanation', value } });
      };
      await this.#slots.run(work, deadline.signal);
    } catch (error) {
      if (signal.aborted || error instanceof TimeoutError) return undefined;
      log.debug({ question: id, error: errorText(error) }, 'question not answered');
      return fail(errorText(error));
    } finally {
      this.#open -= 1;
    }
    return answer;
  }
}
