import type { Queryable } from '../database.ts';
import type { AttemptedDelivery } from './record.ts';

/** Agents with a session on this replica that may send something that is due, `limit` of them at random. */
export async function listSenders(tx: Queryable, replicaId: string, limit: number): Promise<string[]> {
  const rows = await tx.query<{ agent_id: string }>(
    `with wanted as materialized (
       select s.target_labels from webhook_subscription s
       where s.enabled and s.target_labels <> '{}'
         and exists (select from webhook_delivery d where d.subscription_id = s.id and d.due_at <= now())
     )
     select e.agent_id from agent_session e
     where e.replica_id = $1 and e.closed_at is null and exists (select from wanted w where webhook_may_send(e.agent_id, w.target_labels))
     order by random() limit $2`,
    [replicaId, limit],
  );
  return rows.map(({ agent_id }) => agent_id);
}

/** The delivery that the agent holds at this attempt; undefined when it lost the lease. */
export async function findHeldDelivery(
  tx: Queryable,
  { id, agentId, attempt }: { readonly id: string; readonly agentId: string; readonly attempt: number },
): Promise<AttemptedDelivery | undefined> {
  const [row] = await tx.query<Omit<AttemptedDelivery, 'subscription'> & { subscription_id: string; max_retries: number }>(
    `select d.id, d.event_type, d.attempts, s.id as subscription_id, s.max_retries
     from webhook_delivery d join webhook_subscription s on s.id = d.subscription_id
     where d.id = $1 and d.acquired_by = $2 and d.attempts = $3 and d.status = 'acquired'`,
    [id, agentId, attempt],
  );
  if (!row) return undefined;
  const { subscription_id, max_retries, ...delivery } = row;
  return { ...delivery, subscription: { id: subscription_id, max_retries } };
}
