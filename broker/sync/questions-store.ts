import type { Queryable } from '../database.ts';

/** A question that is not answered yet. */
export interface OpenQuestion {
  readonly id: string;
  readonly agent_id: string;
  /** Bytes of a `Query` without timeout. */
  readonly query: Buffer;
  /** How long the answer is still waited for, in milliseconds. */
  readonly left_ms: number;
}

/** A question to be asked. */
export interface NewQuestion {
  readonly id: string;
  readonly agentId: string;
  readonly askedBy: string;
  readonly query: Uint8Array;
  readonly timeoutMs: number;
}

/**
 * Stores a question unless the agent has `most` open ones; returns whether it did. Two replicas that ask at the same moment
 * may both pass: the bound keeps a queue short, it is not a promise.
 */
export async function insertQuestion(tx: Queryable, question: NewQuestion, most: number): Promise<boolean> {
  const { id, agentId, askedBy, query, timeoutMs } = question;
  const rows = await tx.query(
    `insert into agent_query (id, agent_id, asked_by, query, deadline)
     select $1, $2, $3, $4, now() + make_interval(secs => $5)
     where (select count(*) from agent_query where agent_id = $2 and deadline > now()) < $6 returning 1`,
    [id, agentId, askedBy, Buffer.from(query), timeoutMs / 1000, most],
  );
  return rows.length > 0;
}

/** Removes a question, answered or not. */
export async function deleteQuestion(tx: Queryable, id: string): Promise<void> {
  await tx.query('delete from agent_query where id = $1', [id]);
}

/** Open questions to agents whose session is on this replica, oldest first. */
export async function listOpenQuestions(tx: Queryable, replicaId: string): Promise<OpenQuestion[]> {
  return await tx.query<OpenQuestion>(
    `select q.id, q.agent_id, q.query, (extract(epoch from q.deadline - now()) * 1000)::integer as left_ms
     from agent_query q join agent_session s on s.agent_id = q.agent_id and s.replica_id = $1 and s.closed_at is null
     where q.answered_at is null and q.deadline > now() order by q.asked_at`,
    [replicaId],
  );
}

/** Stores the answer of an agent under its current epoch; false when the question is over, another agent's, or the epoch is. */
export async function storeAnswer(
  tx: Queryable,
  { agentId, epoch }: { readonly agentId: string; readonly epoch: bigint },
  { id, answer }: { readonly id: string; readonly answer: Uint8Array },
): Promise<boolean> {
  const rows = await tx.query(
    `update agent_query q set answer = $4, epoch = s.epoch, answered_at = now()
     from agent_session s where s.agent_id = q.agent_id and s.epoch = $3
       and q.id = $1 and q.agent_id = $2 and q.answered_at is null and q.deadline > now() returning 1`,
    [id, agentId, epoch.toString(), Buffer.from(answer)],
  );
  return rows.length > 0;
}

/** Answers to those of the questions that have one: bytes of an `Answer`. */
export async function listAnswers(tx: Queryable, ids: readonly string[]): Promise<{ id: string; answer: Buffer }[]> {
  return await tx.query('select id, answer from agent_query where id = any($1::uuid[]) and answered_at is not null', [ids]);
}

/** Whether the agent has a session on a replica that lives, and when it was last heard of. */
export async function findSession(
  tx: Queryable,
  agentId: string,
): Promise<{ readonly connected: boolean; readonly last_seen_at: string | null } | undefined> {
  const [row] = await tx.query<{ connected: boolean; last_seen_at: string | null }>(
    `select s.last_seen_at, s.connected_at is not null and s.closed_at is null
       and not exists (select from replica r where r.id = s.replica_id and r.lease_until < now()) as connected
     from agent_session s where s.agent_id = $1`,
    [agentId],
  );
  return row;
}
