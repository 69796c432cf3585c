import type { Page } from '../api/page.ts';
import { actorId, type Principal } from '../api/principal.ts';
import type { Queryable } from '../database.ts';
import type { StoredGate } from '../targeting/gate.ts';
import { refreshGate } from '../targeting/gate-store.ts';
import type { EncodedOptions } from './options.ts';

/** A row of `stack`. */
export interface StackRow {
  readonly id: string;
  readonly name: string;
  readonly description: string | null;
  readonly generator_id: string;
  readonly salt: Buffer;
  /** int8 as text. */
  readonly generation: string;
  readonly deployment_object_id: string | null;
  readonly manifest_digest: Buffer | null;
  readonly options: Buffer;
  /** Bytes of the message Selector; null without one. */
  readonly selector: Buffer | null;
  readonly version: number;
  readonly created_at: string;
  readonly updated_at: string;
  readonly deleted_at: string | null;
}

const COLUMNS = `s.id, s.name, s.description, s.generator_id, s.salt, s.generation, s.deployment_object_id, s.manifest_digest,
  s.options, s.selector, s.version, s.created_at, s.updated_at, s.deleted_at`;

/** A stack by id, deleted ones included: the caller decides. */
export async function findStack(db: Queryable, id: string): Promise<StackRow | undefined> {
  return (await db.query<StackRow>(`select ${COLUMNS} from stack s where s.id = $1`, [id]))[0];
}

/** The same, locked against other heads until the transaction ends; rows may still refer to it. */
export async function lockStack(tx: Queryable, id: string): Promise<StackRow | undefined> {
  return (await tx.query<StackRow>(`select ${COLUMNS} from stack s where s.id = $1 for no key update`, [id]))[0];
}

/** Stacks with this name, oldest first: at most one when a generator is given. */
export async function findStacksByName(db: Queryable, name: string, generatorId: string | undefined): Promise<StackRow[]> {
  return await db.query<StackRow>(
    `select ${COLUMNS} from stack s
     where s.name = $1 and s.deleted_at is null and ($2::uuid is null or s.generator_id = $2) order by s.created_at limit 2`,
    [name, generatorId ?? null],
  );
}

/** Like `findStacksByName` for one generator, locked like `lockStack`. */
export async function lockStackByName(tx: Queryable, name: string, generatorId: string): Promise<StackRow | undefined> {
  const rows = await tx.query<StackRow>(
    `select ${COLUMNS} from stack s where s.name = $1 and s.generator_id = $2 and s.deleted_at is null for no key update`,
    [name, generatorId],
  );
  return rows[0];
}

/** A page of stacks, newest first. */
export async function listStacks(
  db: Queryable,
  { generatorId, label }: { readonly generatorId: string | undefined; readonly label: string },
  { after, fetch }: Page,
): Promise<StackRow[]> {
  return await db.query<StackRow>(
    `select ${COLUMNS} from stack s
     where s.deleted_at is null and ($1::uuid is null or s.generator_id = $1)
       and ($2 = '' or exists (select from stack_label l where l.stack_id = s.id and l.label = $2))
       and ($3::timestamptz is null or (s.created_at, s.id) < ($3, $4::uuid))
     order by s.created_at desc, s.id desc limit $5`,
    [generatorId ?? null, label, after?.createdAt ?? null, after?.id ?? null, fetch],
  );
}

/** Adds a stack; undefined when the generator has one of this name (also one whose transaction just ended). */
export async function insertStack(
  tx: Queryable,
  {
    name,
    description,
    generatorId,
    salt,
    options,
  }: {
    readonly name: string;
    readonly description: string | undefined;
    readonly generatorId: string;
    readonly salt: Uint8Array;
    readonly options: EncodedOptions;
  },
): Promise<StackRow | undefined> {
  const rows = await tx.query<StackRow>(
    `insert into stack as s (name, description, generator_id, salt, options, options_digest, deletion_policy)
     values ($1, $2, $3, $4, $5, $6, $7)
     on conflict (generator_id, name) where deleted_at is null do nothing returning ${COLUMNS}`,
    [name, description ?? null, generatorId, salt, options.bytes, options.digest, options.deletionPolicy],
  );
  return rows[0];
}

/** Stamps an edited stack and reads it again, whatever the unit of work made of it. */
export async function stampStack(tx: Queryable, id: string): Promise<StackRow> {
  const rows = await tx.query<StackRow>(`update stack s set updated_at = now() where s.id = $1 returning ${COLUMNS}`, [id]);
  if (!rows[0]) throw new Error(`stack ${id} is gone inside its own transaction`);
  return rows[0];
}

/** Changes the description alone. */
export async function updateDescription(tx: Queryable, id: string, description: string): Promise<StackRow> {
  const rows = await tx.query<StackRow>(
    `update stack s set description = $2, version = version + 1, updated_at = now() where s.id = $1 returning ${COLUMNS}`,
    [id, description],
  );
  if (!rows[0]) throw new Error(`stack ${id} is gone inside its own transaction`);
  return rows[0];
}

/** A new head. */
export interface Head {
  readonly stackId: string;
  readonly deploymentObjectId: string | null;
  readonly manifestDigest: Uint8Array | null;
  readonly options: EncodedOptions;
  readonly cause: 'content' | 'options' | 'gate' | 'pause' | 'resume' | 'rollback' | 'retry';
  /** When undefined, a head with the content of the one before keeps its gate, and any other has none. */
  readonly gate?: StoredGate | undefined;
  readonly principal: Principal;
  /** See `Command`. */
  readonly traceparent: string | undefined;
}

/**
 * Makes a new head: the generation rises by one and the head is kept for the history. The stack's row must be locked, so
 * that generation and time grow together. A stack without a gate before and after costs one statement.
 */
export async function moveHead(tx: Queryable, head: Head): Promise<StackRow> {
  const rows = await tx.query<StackRow & { gated: boolean }>(
    `with gate as (
       select $11::timestamptz as not_before, $12::jsonb as windows where $13
       union all
       select g.not_before, g.windows from stack o join stack_generation g on g.stack_id = o.id and g.generation = o.generation
       where o.id = $1 and o.deployment_object_id = $2 and not $13
     ), s as (
       update stack set generation = generation + 1, deployment_object_id = $2, manifest_digest = $3, options = $4, options_digest = $5,
         deletion_policy = $6, head_at = clock_timestamp(), version = version + 1, updated_at = now(),
         gated = exists (select from gate where not_before is not null or windows is not null)
       where id = $1 returning *
     ), kept as (
       insert into stack_generation (stack_id, generation, deployment_object_id, options, options_digest, cause, actor_type, actor_id, created_at, traceparent, not_before, windows)
       select s.id, s.generation, s.deployment_object_id, s.options, s.options_digest, $8, $9, $10, s.head_at, $7::text, gate.not_before, gate.windows
       from s left join gate on true
     )
     select ${COLUMNS}, s.gated from s`,
    [
      head.stackId,
      head.deploymentObjectId,
      head.manifestDigest,
      head.options.bytes,
      head.options.digest,
      head.options.deletionPolicy,
      head.traceparent ?? null,
      head.cause,
      head.principal.kind,
      actorId(head.principal) ?? null,
      head.gate?.not_before ?? null,
      head.gate?.windows ? JSON.stringify(head.gate.windows) : null,
      head.gate !== undefined,
    ],
  );
  if (!rows[0]) throw new Error(`stack ${head.stackId} is gone inside its own transaction`);
  if (rows[0].gated) await refreshGate(tx, head.stackId);
  return rows[0];
}

/**
 * Deletes stacks: a deletion marker becomes the last head of each. Answers those that were not deleted before; locks them
 * in the order of their ids. `markerManifest` and its digest are those of an empty manifest.
 */
export async function deleteStackRows(
  tx: Queryable,
  ids: readonly string[],
  { principal, traceparent }: { readonly principal: Principal; readonly traceparent: string | undefined },
  marker: { readonly manifest: Uint8Array; readonly manifestDigest: Uint8Array; readonly checksum: string },
): Promise<{ id: string; name: string }[]> {
  const locked = await tx.query<{ id: string }>(
    'select id from stack where id = any($1::uuid[]) and deleted_at is null order by id for no key update',
    [ids],
  );
  return await tx.query(
    `with marker as (
       insert into deployment_object (stack_id, revision, yaml_content, yaml_checksum, is_deletion_marker, manifest, manifest_digest, object_count)
       select s.id, (select coalesce(max(o.revision), 0) + 1 from deployment_object o where o.stack_id = s.id), '', $2, true, $3, $4, 0
       from stack s where s.id = any($1::uuid[])
       returning id, stack_id
     ), s as (
       update stack s set generation = s.generation + 1, deployment_object_id = marker.id, manifest_digest = $4, head_at = clock_timestamp(),
         deleted_at = now(), updated_at = now(), version = s.version + 1
       from marker where marker.stack_id = s.id returning s.*
     ), kept as (
       insert into stack_generation (stack_id, generation, deployment_object_id, options, options_digest, cause, actor_type, actor_id, created_at, traceparent)
       select s.id, s.generation, s.deployment_object_id, s.options, s.options_digest, 'deletion', $5, $6, s.head_at, $7 from s
     )
     select id, name from s order by id`,
    [
      locked.map(({ id }) => id),
      marker.checksum,
      marker.manifest,
      marker.manifestDigest,
      principal.kind,
      actorId(principal) ?? null,
      traceparent ?? null,
    ],
  );
}

/** Facts about a generator that wants to own a stack; undefined when it does not exist. */
export async function findOwner(db: Queryable, id: string): Promise<{ is_system: boolean } | undefined> {
  return (
    await db.query<{ is_system: boolean }>('select is_system from generator where id = $1 and deleted_at is null', [id])
  )[0];
}

/** The generator that owns what admins create without naming one. */
export async function findAdminGenerator(db: Queryable): Promise<string | undefined> {
  return (await db.query<{ id: string }>(`select id from generator where name = 'admin-generator' and deleted_at is null`))[0]
    ?.id;
}
