import type { Page } from '../api/page.ts';
import type { Queryable } from '../database.ts';

/** A row of `blob`. */
export interface BlobRow {
  readonly digest: Buffer;
  /** Bytes of the document. */
  readonly size: number;
  readonly encoding: 'identity' | 'zstd';
  readonly key_id: string | null;
  readonly bytes: Buffer;
}

/** Which of the hex digests are stored. */
export async function listKnownBlobs(db: Queryable, digests: readonly string[]): Promise<string[]> {
  const rows = await db.query<{ digest: string }>(
    `select encode(digest, 'hex') as digest from blob where digest = any(select decode(d, 'hex') from unnest($1::text[]) d)`,
    [digests],
  );
  return rows.map(({ digest }) => digest);
}

/** Stores blobs in the order of their digests, so that two transactions with the same ones wait instead of deadlocking. */
export async function insertBlobs(tx: Queryable, rows: readonly BlobRow[]): Promise<void> {
  await tx.query(
    `insert into blob (digest, size, encoding, key_id, bytes)
     select * from unnest($1::bytea[], $2::integer[], $3::text[], $4::text[], $5::bytea[]) as b (digest, size, encoding, key_id, bytes)
     order by digest
     on conflict (digest) do nothing`,
    [
      rows.map((r) => r.digest),
      rows.map((r) => r.size),
      rows.map((r) => r.encoding),
      rows.map((r) => r.key_id),
      rows.map((r) => r.bytes),
    ],
  );
}

/** Renews blobs that are used again, at most once an hour each; locks them in the order of their digests. */
export async function touchBlobs(tx: Queryable, digests: readonly string[]): Promise<void> {
  await tx.query(
    `update blob set touched_at = now() where digest in (
       select digest from blob
       where digest = any(select decode(d, 'hex') from unnest($1::text[]) d) and touched_at < now() - interval '1 hour'
       order by digest for no key update)`,
    [digests],
  );
}

/** Blobs by digest. */
export async function selectBlobs(db: Queryable, digests: readonly Uint8Array[]): Promise<BlobRow[]> {
  return await db.query<BlobRow>('select digest, size, encoding, key_id, bytes from blob where digest = any($1::bytea[])', [
    digests,
  ]);
}

/** Records which blobs a deployment object uses; answers how many exist. */
export async function insertBlobRefs(tx: Queryable, deploymentObjectId: string, digests: readonly string[]): Promise<number> {
  const rows = await tx.query<{ count: number }>(
    `with added as (
       insert into blob_ref (deployment_object_id, digest)
       select $1, b.digest from blob b where b.digest = any(select decode(d, 'hex') from unnest($2::text[]) d) order by b.digest
       returning 1
     )
     select count(*)::integer as count from added`,
    [deploymentObjectId, digests],
  );
  return rows[0]?.count ?? 0;
}

/** A deployment object without its text. */
export interface DeploymentObjectRow {
  readonly id: string;
  /** int8 as text, like `revision`. */
  readonly sequence_id: string;
  readonly stack_id: string;
  readonly revision: string;
  readonly yaml_checksum: string;
  readonly is_deletion_marker: boolean;
  readonly object_count: number;
  readonly submitted_at: string;
  readonly created_at: string;
  readonly updated_at: string;
  readonly deleted_at: string | null;
}

/** A deployment object with its text and its stack's owner. */
export interface DeploymentObjectText extends DeploymentObjectRow {
  readonly yaml_content: string;
  readonly generator_id: string;
}

const COLUMNS = `d.id, d.sequence_id, d.stack_id, d.revision, d.yaml_checksum, d.is_deletion_marker, d.object_count,
  d.submitted_at, d.created_at, d.updated_at, d.deleted_at`;

/** What a new deployment object consists of. */
export interface NewDeploymentObject {
  readonly stackId: string;
  readonly text: string;
  readonly checksum: string;
  readonly marker: boolean;
  readonly manifest: Uint8Array;
  readonly manifestDigest: Uint8Array;
  readonly objectCount: number;
}

/** Adds the next revision. The stack's row must be locked: revision and time then grow together. */
export async function insertDeploymentObject(tx: Queryable, added: NewDeploymentObject): Promise<DeploymentObjectRow> {
  const rows = await tx.query<DeploymentObjectRow>(
    `with t as (select clock_timestamp() as at)
     insert into deployment_object as d (stack_id, revision, yaml_content, yaml_checksum, is_deletion_marker, manifest, manifest_digest,
       object_count, submitted_at, created_at, updated_at)
     select $1, (select coalesce(max(revision), 0) + 1 from deployment_object where stack_id = $1), $2, $3, $4, $5, $6, $7, t.at, t.at, t.at
     from t returning ${COLUMNS}`,
    [added.stackId, added.text, added.checksum, added.marker, added.manifest, added.manifestDigest, added.objectCount],
  );
  const row = rows[0];
  if (!row) throw new Error('the deployment object was not inserted');
  return row;
}

/** A deployment object of a stack that is not deleted. */
export async function findDeploymentObject(db: Queryable, id: string): Promise<DeploymentObjectText | undefined> {
  const rows = await db.query<DeploymentObjectText>(
    `select ${COLUMNS}, d.yaml_content, s.generator_id
     from deployment_object d join stack s on s.id = d.stack_id
     where d.id = $1 and d.deleted_at is null and s.deleted_at is null`,
    [id],
  );
  return rows[0];
}

/** Manifest of a deployment object as stored (bytes of the proto), and whether it is a marker. */
export async function findManifest(
  db: Queryable,
  id: string,
): Promise<{ manifest: Buffer; is_deletion_marker: boolean } | undefined> {
  const rows = await db.query<{ manifest: Buffer; is_deletion_marker: boolean }>(
    'select manifest, is_deletion_marker from deployment_object where id = $1',
    [id],
  );
  return rows[0];
}

/** Ids and text sizes of a page of a stack's deployment objects, newest first. */
export async function listDeploymentObjectSizes(
  db: Queryable,
  stackId: string,
  { after, fetch }: Pick<Page, 'after' | 'fetch'>,
): Promise<{ id: string; created_at: string; bytes: number }[]> {
  return await db.query(
    `select id, created_at, octet_length(yaml_content) as bytes from deployment_object
     where stack_id = $1 and deleted_at is null and ($2::timestamptz is null or (created_at, id) < ($2, $3::uuid))
     order by created_at desc, id desc limit $4`,
    [stackId, after?.createdAt ?? null, after?.id ?? null, fetch],
  );
}

/** A deployment object without its text; undefined when there is none. */
export async function findDeploymentObjectRow(db: Queryable, id: string): Promise<DeploymentObjectRow | undefined> {
  const rows = await db.query<DeploymentObjectRow>(`select ${COLUMNS} from deployment_object d where d.id = $1`, [id]);
  return rows[0];
}

/** Deployment objects with their texts, newest first. */
export async function selectDeploymentObjects(
  db: Queryable,
  ids: readonly string[],
): Promise<(DeploymentObjectRow & { readonly yaml_content: string })[]> {
  return await db.query(
    `select ${COLUMNS}, d.yaml_content from deployment_object d where d.id = any($1::uuid[]) order by d.created_at desc, d.id desc`,
    [ids],
  );
}
