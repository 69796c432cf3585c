import type { Queryable } from '../database.ts';

/** State of a stack on an agent, as reported under an epoch. */
export interface StatusUpdate {
  readonly agentId: string;
  readonly epoch: bigint;
  readonly stackId: string;
  readonly receivedGeneration: bigint;
  readonly receivedManifestDigest: Uint8Array;
  readonly appliedGeneration: bigint;
  readonly phase: string;
  readonly health: string;
  readonly message: string | null;
  readonly objects: Uint8Array | null;
  readonly total: number;
  readonly ready: number;
  readonly refusedGeneration: bigint;
  readonly goodGeneration: bigint;
  readonly awaitingApproval: number;
}

/** A generation that has come so far on an agent, so long after its publication. */
export interface Delivered {
  readonly stage: 'received' | 'applied' | 'healthy';
  readonly seconds: number;
}

const STAGES: readonly Delivered['stage'][] = ['received', 'applied', 'healthy'];

/**
 * Stores statuses of current epochs in one statement and removes tombstones whose prune is done; returns the stacks
 * concerned, and what came further. Times are the broker's: first receipt, first application and first health of a generation.
 * Generations from before the session tell how long the agent was away: they are not among `delivered`.
 */
export async function updateStatuses(
  tx: Queryable,
  items: readonly StatusUpdate[],
): Promise<{ readonly stackIds: readonly string[]; readonly delivered: readonly Delivered[] }> {
  await noteGood(tx, items);
  const rows = await tx.query<{ stack_id: string } & Readonly<Record<Delivered['stage'], number | null>>>(
    `update delivery d set
       received_at = case when u.received > d.received_generation or d.received_at is null and u.received > 0 then now() else d.received_at end,
       applied_at = case when u.applied > 0 and u.applied <> d.applied_generation then now() else d.applied_at end,
       healthy_at = case
         when u.health = 'healthy' and u.phase = 'applied' and (d.healthy_at is null or u.applied <> d.applied_generation) then now()
         when u.applied <> d.applied_generation then null else d.healthy_at end,
       received_generation = u.received, received_manifest_digest = u.manifest, applied_generation = u.applied,
       phase = u.phase, health = u.health, message = u.message, objects = u.objects, objects_total = u.total, objects_ready = u.ready,
       refused_generation = u.refused, good_generation = u.good, awaiting_approval = u.awaiting, updated_at = now()
     from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[], $5::bytea[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::bytea[], $11::integer[], $12::integer[],
         $13::bigint[], $14::bigint[], $15::integer[])
       u(agent_id, epoch, stack_id, received, manifest, applied, phase, health, message, objects, total, ready, refused, good, awaiting)
     join agent_session s on s.agent_id = u.agent_id and s.epoch = u.epoch
     where d.agent_id = u.agent_id and d.stack_id = u.stack_id
     returning d.stack_id, ${STAGES.map((stage) => sincePublication(stage)).join(', ')}`,
    [
      items.map((i) => i.agentId),
      items.map((i) => i.epoch.toString()),
      items.map((i) => i.stackId),
      items.map((i) => i.receivedGeneration.toString()),
      items.map((i) => bytes(i.receivedManifestDigest)),
      items.map((i) => i.appliedGeneration.toString()),
      items.map((i) => i.phase),
      items.map((i) => i.health),
      items.map((i) => i.message),
      items.map((i) => (i.objects === null ? null : bytes(i.objects))),
      items.map((i) => i.total),
      items.map((i) => i.ready),
      items.map((i) => i.refusedGeneration.toString()),
      items.map((i) => i.goodGeneration.toString()),
      items.map((i) => i.awaitingApproval),
    ],
  );
  const pruned = items.filter((item) => item.phase === 'pruned');
  if (pruned.length > 0) {
    await tx.query(
      `delete from delivery d using unnest($1::uuid[], $2::uuid[]) u(agent_id, stack_id)
       where d.agent_id = u.agent_id and d.stack_id = u.stack_id and d.desired = 'tombstone' and d.phase = 'pruned'`,
      [pruned.map((i) => i.agentId), pruned.map((i) => i.stackId)],
    );
  }
  return {
    stackIds: rows.map((row) => row.stack_id),
    delivered: rows.flatMap((row) => STAGES.map((stage) => ({ stage, seconds: row[stage] })).filter(isDelivered)),
  };
}

/** The age of a generation that reaches a stage in this very transaction; null when it did before, or is older than the session. */
function sincePublication(stage: Delivered['stage']): string {
  return `(select extract(epoch from now() - g.created_at)::float8 from stack_generation g
    where d.${stage}_at = now() and g.stack_id = d.stack_id and g.created_at > s.connected_at
      and g.generation = ${stage === 'received' ? 'd.received_generation' : 'd.applied_generation'}) as ${stage}`;
}

function isDelivered(item: { readonly stage: Delivered['stage']; readonly seconds: number | null }): item is Delivered {
  return item.seconds !== null;
}

/**
 * A generation that became the good one of an agent was healthy there, however short a time: a rollback looks for that. Call before the
 * delivery rows are updated.
 */
async function noteGood(tx: Queryable, items: readonly StatusUpdate[]): Promise<void> {
  const good = items.filter(({ goodGeneration }) => goodGeneration > 0n);
  if (good.length === 0) return;
  await tx.query(
    `insert into deployment_health (agent_id, deployment_object_id, status, checked_at)
     select u.agent_id, g.deployment_object_id, 'healthy', now()
     from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[]) u(agent_id, epoch, stack_id, good)
     join agent_session s on s.agent_id = u.agent_id and s.epoch = u.epoch
     join delivery d on d.agent_id = u.agent_id and d.stack_id = u.stack_id and d.good_generation <> u.good
     join stack_generation g on g.stack_id = u.stack_id and g.generation = u.good and g.deployment_object_id is not null
     on conflict (agent_id, deployment_object_id) do update set status = 'healthy', checked_at = excluded.checked_at, updated_at = now()`,
    [
      good.map((i) => i.agentId),
      good.map((i) => i.epoch.toString()),
      good.map((i) => i.stackId),
      good.map((i) => i.goodGeneration.toString()),
    ],
  );
}

/** Health of a deployment object on an agent. */
export interface HealthUpsert {
  readonly agentId: string;
  readonly epoch: bigint;
  readonly stackId: string;
  readonly deploymentObjectId: string;
  readonly status: 'healthy' | 'degraded' | 'failing' | 'unknown';
  readonly summary: string;
  readonly checkedAtMs: number | undefined;
  readonly total: number;
  readonly ready: number;
  readonly objects: Uint8Array | null;
}

/** Stores health of current epochs, per deployment object and on the delivery row; returns the stacks concerned. */
export async function upsertHealth(tx: Queryable, items: readonly HealthUpsert[]): Promise<string[]> {
  const columns = [
    items.map((i) => i.agentId),
    items.map((i) => i.epoch.toString()),
    items.map((i) => i.deploymentObjectId),
    items.map((i) => i.status),
    items.map((i) => i.summary),
    items.map((i) => (i.checkedAtMs === undefined ? null : new Date(i.checkedAtMs))),
  ];
  await tx.query(
    `insert into deployment_health (agent_id, deployment_object_id, status, summary, checked_at)
     select u.agent_id, u.object_id, u.status, u.summary, coalesce(u.checked_at, now())
     from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::timestamptz[]) u(agent_id, epoch, object_id, status, summary, checked_at)
     join agent_session s on s.agent_id = u.agent_id and s.epoch = u.epoch
     join deployment_object o on o.id = u.object_id
     on conflict (agent_id, deployment_object_id) do update
       set status = excluded.status, summary = excluded.summary, checked_at = excluded.checked_at, updated_at = now()`,
    columns,
  );
  const rows = await tx.query<{ stack_id: string }>(
    `update delivery d set health = u.status, objects_total = u.total, objects_ready = u.ready, updated_at = now(),
       objects = case when d.phase in ('applied', 'rolled_back') then u.objects else d.objects end,
       healthy_at = case when u.status = 'healthy' and d.phase = 'applied' then coalesce(d.healthy_at, now()) else d.healthy_at end
     from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::integer[], $6::integer[], $7::bytea[])
       u(agent_id, epoch, stack_id, status, total, ready, objects)
     join agent_session s on s.agent_id = u.agent_id and s.epoch = u.epoch
     where d.agent_id = u.agent_id and d.stack_id = u.stack_id
       and (d.health, d.objects_total, d.objects_ready) is distinct from (u.status, u.total, u.ready)
     returning d.stack_id`,
    [
      columns[0],
      columns[1],
      items.map((i) => i.stackId),
      columns[3],
      items.map((i) => i.total),
      items.map((i) => i.ready),
      items.map((i) => (i.objects === null ? null : bytes(i.objects))),
    ],
  );
  return rows.map((row) => row.stack_id);
}

/** One event. */
export interface EventInsert {
  readonly seq: bigint;
  readonly attemptId: string;
  readonly stackId: string | null;
  readonly deploymentObjectId: string | null;
  readonly generation: bigint;
  readonly eventType: string;
  readonly success: boolean;
  readonly message: string | null;
  readonly objects: Uint8Array | null;
  readonly counts: string;
  readonly durationMs: number;
  readonly occurredAtMs: number | undefined;
  /** W3C trace context for what the event causes. */
  readonly traceparent: string | undefined;
}

/** Events of one run of an agent. */
export interface EventGroup {
  readonly agentId: string;
  readonly epoch: bigint;
  readonly bootId: string;
  readonly events: readonly EventInsert[];
}

/**
 * Stores what is new of each group and advances its cursor; returns the cursor of each, undefined for epochs that are
 * over. Cursor rows are locked in a fixed order, so that two replicas cannot store one run twice. An attempt that was
 * stored before (reported again after a crash) is not stored again.
 */
export async function insertEvents(tx: Queryable, groups: readonly EventGroup[]): Promise<(bigint | undefined)[]> {
  const keys = [groups.map((g) => g.agentId), groups.map((g) => g.bootId)];
  await tx.query(
    `insert into event_cursor (agent_id, boot_id, through_seq)
     select agent_id, boot_id, 0 from (select distinct * from unnest($1::uuid[], $2::text[]) u(agent_id, boot_id)) d order by 1, 2
     on conflict do nothing`,
    keys,
  );
  const cursors = await tx.query<{ agent_id: string; boot_id: string; through_seq: string; epoch: string }>(
    `select c.agent_id, c.boot_id, c.through_seq, s.epoch from event_cursor c join agent_session s on s.agent_id = c.agent_id
     where (c.agent_id, c.boot_id) in (select * from unnest($1::uuid[], $2::text[])) order by c.agent_id, c.boot_id for update of c`,
    keys,
  );
  const known = new Map(
    cursors.map((row) => [`${row.agent_id}/${row.boot_id}`, { through: BigInt(row.through_seq), epoch: BigInt(row.epoch) }]),
  );
  const fresh: { readonly agentId: string; readonly event: EventInsert }[] = [];
  const answers = groups.map((group) => {
    const cursor = known.get(`${group.agentId}/${group.bootId}`);
    if (cursor?.epoch !== group.epoch) return undefined;
    for (const event of group.events) {
      if (event.seq <= cursor.through) continue;
      fresh.push({ agentId: group.agentId, event });
      cursor.through = event.seq;
    }
    return cursor.through;
  });
  if (fresh.length > 0) {
    await storeEvents(tx, fresh);
    await tx.query(
      `update event_cursor c set through_seq = greatest(c.through_seq, u.seq), updated_at = now()
       from unnest($1::uuid[], $2::text[], $3::bigint[]) u(agent_id, boot_id, seq) where c.agent_id = u.agent_id and c.boot_id = u.boot_id`,
      [...keys, answers.map((through) => (through ?? 0n).toString())],
    );
  }
  return answers;
}

async function storeEvents(
  tx: Queryable,
  rows: readonly { readonly agentId: string; readonly event: EventInsert }[],
): Promise<void> {
  await tx.query(
    `insert into agent_event (agent_id, stack_id, deployment_object_id, generation, attempt_id, event_type, status, message, objects, counts, duration_ms, occurred_at, traceparent)
     select distinct on (u.agent_id, u.attempt_id) u.agent_id, k.id, o.id, u.generation, u.attempt_id, u.event_type, u.status, u.message, u.objects, u.counts::jsonb, u.duration, u.at, u.traceparent
     from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bytea[], $10::text[], $11::integer[], $12::timestamptz[], $13::text[])
       u(agent_id, stack_id, object_id, generation, attempt_id, event_type, status, message, objects, counts, duration, at, traceparent)
     left join stack k on k.id = u.stack_id left join deployment_object o on o.id = u.object_id
     where not exists (select from agent_event e where e.attempt_id = u.attempt_id and e.agent_id = u.agent_id)`,
    [
      rows.map((r) => r.agentId),
      rows.map((r) => r.event.stackId),
      rows.map((r) => r.event.deploymentObjectId),
      rows.map((r) => r.event.generation.toString()),
      rows.map((r) => r.event.attemptId),
      rows.map((r) => r.event.eventType),
      rows.map((r) => (r.event.success ? 'SUCCESS' : 'FAILURE')),
      rows.map((r) => r.event.message),
      rows.map((r) => (r.event.objects === null ? null : bytes(r.event.objects))),
      rows.map((r) => r.event.counts),
      rows.map((r) => r.event.durationMs),
      rows.map((r) => (r.event.occurredAtMs === undefined ? null : new Date(r.event.occurredAtMs))),
      rows.map((r) => r.event.traceparent ?? null),
    ],
  );
}

/** `pg` takes a Buffer inside an array parameter, not a plain Uint8Array. */
function bytes(value: Uint8Array): Buffer {
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}
