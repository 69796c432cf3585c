import type { Queryable } from '../database.ts';

/** An agent's consent to a generator. */
export interface RegistrationRow {
  readonly id: string;
  readonly agent_id: string;
  readonly generator_id: string;
  readonly registered_at: string;
}

const COLUMNS = 'c.id, c.agent_id, c.generator_id, c.registered_at';

/** Registers an agent with generators, those it is registered with already excepted; returns the new registrations. */
export async function insertRegistrations(
  tx: Queryable,
  agentId: string,
  generatorIds: readonly string[],
): Promise<RegistrationRow[]> {
  return await tx.query<RegistrationRow>(
    `insert into agent_generator_registration as c (agent_id, generator_id)
     select $1, generator_id from unnest($2::uuid[]) generator_id
     on conflict do nothing returning ${COLUMNS}`,
    [agentId, generatorIds],
  );
}

/** Takes a registration back; false when there was none. */
export async function deleteRegistration(tx: Queryable, agentId: string, generatorId: string): Promise<boolean> {
  const rows = await tx.query('delete from agent_generator_registration where agent_id = $1 and generator_id = $2 returning id', [
    agentId,
    generatorId,
  ]);
  return rows.length > 0;
}

/** True when the agent is registered with the generator. */
export async function isRegistered(tx: Queryable, agentId: string, generatorId: string): Promise<boolean> {
  const rows = await tx.query('select from agent_generator_registration where agent_id = $1 and generator_id = $2', [
    agentId,
    generatorId,
  ]);
  return rows.length > 0;
}

/** Registrations of an agent with live generators, or of live agents with a generator; newest first, 10,000 at most. */
export async function listRegistrations(
  tx: Queryable,
  { agentId, generatorId }: { readonly agentId?: string; readonly generatorId?: string },
): Promise<RegistrationRow[]> {
  return await tx.query<RegistrationRow>(
    `select ${COLUMNS} from agent_generator_registration c
     join agent a on a.id = c.agent_id and a.deleted_at is null
     join generator g on g.id = c.generator_id and g.deleted_at is null
     where ($1::uuid is null or c.agent_id = $1) and ($2::uuid is null or c.generator_id = $2)
     order by c.registered_at desc, c.id desc limit 10000`,
    [agentId ?? null, generatorId ?? null],
  );
}
