import type { Queryable } from '../database.ts';

/** A head with everything an agent is told of it. */
export interface HeadRow {
  readonly stack_id: string;
  readonly stack_name: string;
  readonly generation: string;
  readonly deployment_object_id: string;
  readonly manifest: Buffer;
  readonly manifest_digest: Buffer;
  readonly options: Buffer;
  readonly options_digest: Buffer;
  readonly salt: Buffer;
  readonly traceparent: string | null;
  readonly created_at: string;
}

/** A generation of a stack; undefined when there is none with content. */
export async function findHead(tx: Queryable, stackId: string, generation: bigint): Promise<HeadRow | undefined> {
  const rows = await tx.query<HeadRow>(
    `select s.id as stack_id, s.name as stack_name, g.generation, g.deployment_object_id, d.manifest, d.manifest_digest, g.options, g.options_digest,
       s.salt, g.traceparent, g.created_at
     from stack_generation g join stack s on s.id = g.stack_id join deployment_object d on d.id = g.deployment_object_id
     where g.stack_id = $1 and g.generation = $2`,
    [stackId, generation.toString()],
  );
  return rows[0];
}

/** The manifest with this digest that the stack had. */
export async function findManifest(tx: Queryable, stackId: string, digest: Uint8Array): Promise<Buffer | undefined> {
  const rows = await tx.query<{ manifest: Buffer }>(
    'select manifest from deployment_object where stack_id = $1 and manifest_digest = $2 limit 1',
    [stackId, digest],
  );
  return rows[0]?.manifest;
}

/** True when the agent is assigned this generation, is held at it, or has received or applied it, or may go back to it. */
export async function mayFetch(tx: Queryable, agentId: string, stackId: string, generation: bigint): Promise<boolean> {
  const rows = await tx.query(
    `select from delivery d where d.agent_id = $1 and d.stack_id = $2 and d.desired = 'entry'
       and ($3 in (d.received_generation, d.applied_generation, d.good_generation)
         or $3 >= (select r.generation from released r where r.agent_id = $1 and r.stack_id = $2))`,
    [agentId, stackId, generation.toString()],
  );
  return rows.length > 0;
}
