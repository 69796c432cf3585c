import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { type Clock, TimeoutError } from '#lib/clock.ts';
import { BrokkrError, errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Task } from '#lib/run.ts';
import { abortable, Wakeup } from '#lib/signal.ts';
import { type Answer, AnswerSchema, type Query, QuerySchema } from '#proto/brokkr/v1/sync_pb.js';
import type { Database } from '../database.ts';
import type { Reporter } from './ingest.ts';
import {
  deleteQuestion,
  findSession,
  insertQuestion,
  listAnswers,
  listOpenQuestions,
  type OpenQuestion,
  storeAnswer,
} from './questions-store.ts';
import type { AgentSession } from './session.ts';

/** What questions need. */
export interface QuestionsDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly log: Logger;
  readonly newId: () => string;
  readonly replicaId: string;
  /** The agent's session on this replica. */
  readonly session: (agentId: string) => AgentSession | undefined;
}

/** What became of a question. Times of the database as it prints them, and of the clock. */
export type Asked =
  | { readonly kind: 'answered'; readonly answer: Answer }
  | { readonly kind: 'offline'; readonly lastSeenAt: string | undefined }
  | { readonly kind: 'silent'; readonly lastSeenAt: string | undefined; readonly untilMs: number };

/** How long an answer is waited for. */
const ANSWER_MS = 20_000;
/** Open questions to one agent. */
const MAX_OPEN = 16;
/** When notifications are lost: how late answers are seen while one is open here, and how late a first question. */
const POLL_MS = 1_000;
const IDLE_POLL_MS = 5_000;
const CHANNEL = 'question';

/**
 * Questions to agents, asked at any replica and answered through the one that has the agent's session. A question is a row, so
 * that neither side needs to know where the other one is; replicas wake each other by notifications.
 */
export class Questions implements Task {
  readonly name = 'questions';
  readonly #deps: QuestionsDeps;
  readonly #wakeup = new Wakeup();
  /** Whoever waits here, by id of the question. */
  readonly #waiting = new Map<string, PromiseWithResolvers<Answer>>();
  /** The session each open question was handed to. */
  #handed = new Map<string, AgentSession>();

  constructor(deps: QuestionsDeps) {
    this.#deps = deps;
  }

  /**
   * Asks an agent and waits for the answer, at most 20 s; does not wait for an agent without a session. Throws
   * `too_many_requests`, `draining`, and the signal's reason.
   */
  async ask(
    agentId: string,
    body: NonNullable<Query['body']>,
    { keyId, signal }: { readonly keyId: string; readonly signal: AbortSignal },
  ): Promise<Asked> {
    const { db, clock, newId } = this.#deps;
    const session = await findSession(db, agentId);
    const lastSeenAt = session?.last_seen_at ?? undefined;
    if (!session?.connected) return { kind: 'offline', lastSeenAt };
    const id = newId();
    const query = toBinary(QuerySchema, create(QuerySchema, { id, body }));
    const untilMs = clock.now() + ANSWER_MS;
    const stored = await insertQuestion(db, { id, agentId, askedBy: keyId, query, timeoutMs: ANSWER_MS }, MAX_OPEN);
    if (!stored) throw new BrokkrError('too_many_requests', `${MAX_OPEN} questions to this agent are open already, try again`);
    const waiting = Promise.withResolvers<Answer>();
    this.#waiting.set(id, waiting);
    this.#announce();
    try {
      using deadline = clock.deadline(ANSWER_MS, signal);
      return { kind: 'answered', answer: await abortable(waiting.promise, deadline.signal) };
    } catch (error) {
      if (signal.aborted || !(error instanceof TimeoutError)) throw error;
      return { kind: 'silent', lastSeenAt, untilMs };
    } finally {
      this.#waiting.delete(id);
      await deleteQuestion(db, id).catch((error: unknown) => this.#failed(error)); // maintenance removes what stays
    }
  }

  /** Stores the answer of an agent and tells whoever waits for it. An answer nobody waits for any more is dropped. */
  async answered(reporter: Reporter, answer: Answer): Promise<void> {
    const { db } = this.#deps;
    try {
      if (!(await storeAnswer(db, reporter, { id: answer.id, answer: toBinary(AnswerSchema, answer) }))) return;
    } catch (error) {
      this.#failed(error); // whoever waits is told that there was no answer
      return;
    }
    const here = this.#waiting.get(answer.id);
    if (here) here.resolve(answer);
    else this.#announce();
  }

  async run(signal: AbortSignal): Promise<void> {
    const listening = this.#deps.db.listen(CHANNEL, () => this.#wakeup.wake(), signal);
    while (!signal.aborted) {
      await this.#handOver().catch((error: unknown) => this.#failed(error));
      await this.#collect().catch((error: unknown) => this.#failed(error));
      const isOpen = this.#waiting.size + this.#handed.size > 0;
      using deadline = this.#deps.clock.deadline(isOpen ? POLL_MS : IDLE_POLL_MS, signal);
      await this.#wakeup.wait(deadline.signal).catch(() => undefined);
    }
    for (const waiting of this.#waiting.values()) waiting.reject(new BrokkrError('draining', 'the broker is stopping'));
    await listening;
  }

  /** Hands questions to sessions of this replica, once to each session. */
  async #handOver(): Promise<void> {
    const { db, replicaId, session } = this.#deps;
    const open = await listOpenQuestions(db, replicaId);
    const handed = new Map<string, AgentSession>();
    for (const question of open) {
      const to = session(question.agent_id);
      if (!to) continue;
      handed.set(question.id, to);
      if (this.#handed.get(question.id) !== to) to.push({ case: 'query', value: toQuery(question) });
    }
    this.#handed = handed;
  }

  /** Answers that came through other replicas. */
  async #collect(): Promise<void> {
    if (this.#waiting.size === 0) return;
    for (const { id, answer } of await listAnswers(this.#deps.db, [...this.#waiting.keys()])) {
      this.#waiting.get(id)?.resolve(fromBinary(AnswerSchema, answer));
    }
  }

  /** Tells this replica and the others that there is something new; they look by themselves when they are not told. */
  #announce(): void {
    this.#wakeup.wake();
    this.#deps.db.notify(CHANNEL, '').catch((error: unknown) => this.#failed(error));
  }

  #failed(error: unknown): void {
    this.#deps.log.debug({ error: errorText(error) }, 'question not carried on, trying again');
  }
}

function toQuery({ query, left_ms }: OpenQuestion): Query {
  return { ...fromBinary(QuerySchema, query), timeoutMs: Math.max(0, left_ms) };
}
