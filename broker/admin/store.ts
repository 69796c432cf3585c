import type { JsonValue } from '#lib/errors.ts';
import type { Queryable } from '../database.ts';

/** An audit row as read, with the name of its actor. Times are text. */
export interface AuditRow {
  readonly id: string;
  readonly timestamp: string;
  readonly actor_type: string;
  readonly actor_id: string | null;
  readonly actor_name: string | null;
  readonly key_id: string | null;
  readonly action: string;
  readonly resource_type: string;
  readonly resource_id: string | null;
  readonly details: JsonValue;
  readonly ip_address: string | null;
  readonly user_agent: string | null;
  readonly created_at: string;
}

/** What a list of audit rows is narrowed to. Undefined: not at all. */
export interface AuditFilter {
  readonly actorType: string | undefined;
  readonly actorId: string | undefined;
  /** The whole action. */
  readonly action: string | undefined;
  /** How the action begins. */
  readonly actionPrefix: string | undefined;
  readonly resourceType: string | undefined;
  readonly resourceId: string | undefined;
  /** From this time on, RFC 3339. */
  readonly from: string | undefined;
  /** Before this time. */
  readonly to: string | undefined;
}

const WHERE = `($1::text is null or l.actor_type = $1) and ($2::uuid is null or l.actor_id = $2)
  and ($3::text is null or l.action = $3) and ($4::text is null or starts_with(l.action, $4))
  and ($5::text is null or l.resource_type = $5) and ($6::uuid is null or l.resource_id = $6)
  and ($7::timestamptz is null or l.timestamp >= $7) and ($8::timestamptz is null or l.timestamp < $8)`;

/** Audit rows that match, newest first. Actors that were deleted keep their name. */
export async function listAudit(
  tx: Queryable,
  filter: AuditFilter,
  { limit, offset }: { readonly limit: number; readonly offset: bigint },
): Promise<AuditRow[]> {
  return await tx.query<AuditRow>(
    `select l.id, l.timestamp, l.actor_type, l.actor_id, coalesce(a.name, g.name) as actor_name, l.key_id, l.action, l.resource_type,
       l.resource_id, l.details, l.ip_address, l.user_agent, l.created_at
     from (select * from audit_log l where ${WHERE} order by l.timestamp desc, l.id desc limit $9 offset $10) l
     left join agent a on l.actor_type = 'agent' and a.id = l.actor_id
     left join generator g on l.actor_type = 'generator' and g.id = l.actor_id
     order by l.timestamp desc, l.id desc`,
    [...values(filter), limit, offset.toString()],
  );
}

/** How many audit rows match (int8 as text). */
export async function countAudit(tx: Queryable, filter: AuditFilter): Promise<bigint> {
  const rows = await tx.query<{ total: string }>(`select count(*) as total from audit_log l where ${WHERE}`, values(filter));
  return BigInt(rows[0]?.total ?? 0);
}

function values(filter: AuditFilter): unknown[] {
  const { actorType, actorId, action, actionPrefix, resourceType, resourceId, from, to } = filter;
  return [actorType, actorId, action, actionPrefix, resourceType, resourceId, from, to].map((value) => value ?? null);
}
