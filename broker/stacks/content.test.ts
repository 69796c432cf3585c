import { randomBytes, randomUUID } from 'node:crypto';
import { fromBinary } from '@bufbuild/protobuf';
import { beforeAll, describe, expect, it } from 'vitest';
import { manifestDigest } from '#lib/digest.ts';
import { createYamlPool, type YamlPool } from '#lib/yaml-pool.ts';
import { ManifestSchema } from '#proto/brokkr/v1/content_pb.js';
import { Validation } from '#proto/brokkr/v1/stacks_pb.js';
import { ADMIN, configMap, documents, failure, type TestService, testService } from '../../test/broker-stacks.ts';
import { testDatabase } from '../../test/postgres.ts';
import type { Database } from '../database.ts';
import { createBlobStore } from './blobs.ts';
import { StackEntity } from './entities.ts';
import { manifestFromProto } from './manifest.ts';

let db: Database;
let yaml: YamlPool;
let service: TestService;

beforeAll(async () => {
  const database = await testDatabase();
  db = await database.open({ poolMax: 10 }, { entities: [StackEntity] });
  yaml = createYamlPool({ maxThreads: 1 });
  service = testService({ db, yaml });
  return () => yaml[Symbol.asyncDispose]();
});

async function newStack(): Promise<string> {
  const { stack } = await service.as(ADMIN).createStack({ name: `s-${randomUUID()}` });
  return stack?.id ?? '';
}

describe('publishing', () => {
  it('makes the snapshot the head and keeps every document as a blob', async () => {
    const stackId = await newStack();
    const text = documents(configMap('b'), configMap('a', 'x'.repeat(2000)));
    const { deploymentObject, warnings } = await service.as(ADMIN).createDeploymentObject({ stackId, yamlContent: text });
    expect(warnings).toEqual([]);
    expect(deploymentObject).toMatchObject({ stackId, revision: 1n, objectCount: 2, yamlContent: text, isDeletionMarker: false });
    expect(deploymentObject?.yamlChecksum).toMatch(/^[0-9a-f]{64}$/);
    const { stack } = await service.as(ADMIN).getStack({ id: stackId });
    expect(stack).toMatchObject({ generation: 1n, deploymentObjectId: deploymentObject?.id });

    const [row] = await db.query<{ manifest: Buffer; manifest_digest: Buffer }>(
      'select manifest, manifest_digest from deployment_object where id = $1',
      [deploymentObject?.id],
    );
    const manifest = fromBinary(ManifestSchema, row?.manifest ?? new Uint8Array());
    expect(manifest.entries.map(({ name }) => name)).toEqual(['a', 'b']);
    expect(Buffer.from(manifestDigest(manifestFromProto(manifest)))).toEqual(row?.manifest_digest);
    const blobs = await createBlobStore().read(
      db,
      manifest.entries.map(({ sourceDigest }) => sourceDigest),
    );
    const texts = manifest.entries.map(({ sourceDigest }) => blobs.get(Buffer.from(sourceDigest).toString('hex'))?.toString());
    expect(texts[0]).toContain('x'.repeat(2000));
    expect(texts[1]).toContain('name: b');
  });

  it('writes an audit row, a change and the history with the head', async () => {
    const stackId = await newStack();
    const { deploymentObject } = await service.as(ADMIN).createDeploymentObject({ stackId, yamlContent: configMap('a') });
    const audits = await db.query(`select action from audit_log where resource_id = $1`, [deploymentObject?.id]);
    expect(audits).toEqual([{ action: 'deployment.created' }]);
    expect(await db.query('select kind from change_log where stack_id = $1', [stackId])).toEqual([{ kind: 'stack' }]);
    const { entries } = await service.as(ADMIN).getStackHistory({ stackId });
    expect(entries).toMatchObject([{ generation: 1n, revision: 1n, cause: 'content', actor: 'admin', objectCount: 1 }]);
  });

  it('makes a new object of the same text', async () => {
    const stackId = await newStack();
    await service.as(ADMIN).createDeploymentObject({ stackId, yamlContent: configMap('a') });
    const { deploymentObject } = await service.as(ADMIN).createDeploymentObject({ stackId, yamlContent: configMap('a') });
    expect(deploymentObject?.revision).toBe(2n);
  });

  it('gives parallel publications strictly increasing revisions and times', async () => {
    const stackId = await newStack();
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        service
          .as(ADMIN)
          .createDeploymentObject({ stackId, yamlContent: documents(configMap(`a${i % 3}`), configMap(`b${i % 2}`)) }),
      ),
    );
    const revisions = answers.map(({ deploymentObject }) => Number(deploymentObject?.revision)).sort((a, b) => a - b);
    expect(revisions).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
    const rows = await db.query<{ generation: string; in_order: boolean }>(
      `select g.generation, d.revision = g.generation and g.created_at > coalesce(lag(g.created_at) over (order by g.generation), '-infinity') as in_order
       from stack_generation g join deployment_object d on d.id = g.deployment_object_id where g.stack_id = $1 order by g.generation`,
      [stackId],
    );
    expect(rows.map(({ in_order }) => in_order)).toEqual(Array.from({ length: 20 }, () => true));
    const { stack } = await service.as(ADMIN).getStack({ id: stackId });
    expect(stack).toMatchObject({ generation: 20n });
    const listed = await service.as(ADMIN).listDeploymentObjects({ stackId, limit: 15 });
    expect(listed.deploymentObjects.map(({ revision }) => Number(revision))).toEqual(
      Array.from({ length: 15 }, (_, i) => 20 - i),
    );
    const rest = await service.as(ADMIN).listDeploymentObjects({ stackId, limit: 15, pageToken: listed.nextPageToken });
    expect(rest.deploymentObjects.map(({ revision }) => Number(revision))).toEqual([5, 4, 3, 2, 1]);
    expect(rest.nextPageToken).toBe('');
  });

  it('names document, line and rule of every mistake', async () => {
    const stackId = await newStack();
    const text = documents(
      configMap('a'),
      'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\n  name: c\n',
      'apiVersion: v1\nkind: Service\n',
    );
    const error = await failure(service.as(ADMIN).createDeploymentObject({ stackId, yamlContent: text }));
    expect(error.code).toBe('invalid_deployment_object');
    expect(error.message).toMatch(/^document 2, line 13[:,]/);
    const problems = (error.details as { problems: { document: number; line?: number; rule: string }[] }).problems;
    expect(problems).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ document: 2, rule: 'duplicate_key', line: 13 }),
        expect.objectContaining({ document: 3 }),
      ]),
    );
    const { stack } = await service.as(ADMIN).getStack({ id: stackId });
    expect(stack?.generation).toBe(0n);
  });

  it('refuses an empty text unless that is meant', async () => {
    const stackId = await newStack();
    for (const yamlContent of ['', '---\n# nothing\n', 'null\n']) {
      const error = await failure(service.as(ADMIN).createDeploymentObject({ stackId, yamlContent }));
      expect(error.code, JSON.stringify(yamlContent)).toBe('invalid_deployment_object');
    }
    const { deploymentObject } = await service
      .as(ADMIN)
      .createDeploymentObject({ stackId, yamlContent: '', isDeletionMarker: true });
    expect(deploymentObject).toMatchObject({ isDeletionMarker: true, objectCount: 0 });
    expect((await service.as(ADMIN).getStack({ id: stackId })).stack?.options?.allowEmpty).toBe(true);
    await service.as(ADMIN).createDeploymentObject({ stackId, yamlContent: configMap('a') });
    expect((await service.as(ADMIN).getStack({ id: stackId })).stack?.options?.allowEmpty).toBe(false);
  });

  it('stores a text unread when validation is none', async () => {
    const stackId = await newStack();
    const text = 'a: [unclosed';
    const request = { stackId, yamlContent: text, validation: Validation.NONE };
    const { deploymentObject } = await service.as(ADMIN).createDeploymentObject(request);
    expect(deploymentObject?.objectCount).toBe(0);
    const [row] = await db.query<{ manifest: Buffer }>('select manifest from deployment_object where id = $1', [
      deploymentObject?.id,
    ]);
    const { opaque } = fromBinary(ManifestSchema, row?.manifest ?? new Uint8Array());
    expect(opaque?.size).toBe(text.length);
    const blobs = await createBlobStore().read(db, [opaque?.sourceDigest ?? new Uint8Array()]);
    expect([...blobs.values()].map(String)).toEqual([text]);
  });

  it('refuses 10,001 documents, naming the numbers', async () => {
    const stackId = await newStack();
    const many = testService({ db, yaml }, { limits: { textBytes: 16 * 1024 * 1024, documents: 10_000 } });
    const text = Array.from({ length: 10_001 }, (_, i) => `a: ${i}\n`).join('---\n');
    const error = await failure(many.as(ADMIN).createDeploymentObject({ stackId, yamlContent: text }));
    expect(error).toMatchObject({ code: 'invalid_deployment_object', message: expect.stringMatching(/10001 .*10000/) });
  });

  it('refuses a text beyond the limit, naming the numbers', async () => {
    const small = testService({ db, yaml }, { limits: { textBytes: 100, documents: 10 } });
    const error = await failure(
      small.as(ADMIN).createDeploymentObject({ stackId: await newStack(), yamlContent: configMap('a', 'é'.repeat(50)) }),
    );
    expect(error).toMatchObject({
      code: 'payload_too_large',
      message: expect.stringMatching(/^the text has \d{3} bytes, the limit is 100$/),
    });
  });

  it('leaves nothing behind after a dry run', async () => {
    const stackId = await newStack();
    const text = configMap(`dry-${randomUUID()}`);
    const { deploymentObject } = await service.as(ADMIN).createDeploymentObject({ stackId, yamlContent: text, dryRun: true });
    expect(deploymentObject?.revision).toBe(1n);
    expect(await db.query('select id from deployment_object where stack_id = $1', [stackId])).toEqual([]);
    expect(await db.query('select seq from change_log where stack_id = $1', [stackId])).toEqual([]);
    expect((await service.as(ADMIN).getStack({ id: stackId })).stack?.generation).toBe(0n);
  });

  it('answers a repeated request under the same idempotency key once, even when the stack is gone', async () => {
    const stackId = await newStack();
    const headers = { 'idempotency-key': randomUUID() };
    const request = { stackId, yamlContent: configMap('a') };
    const first = await service.as(ADMIN).createDeploymentObject(request, { headers });
    await service.as(ADMIN).deleteStack({ id: stackId });
    const second = await service.as(ADMIN).createDeploymentObject(request, { headers });
    expect(second.deploymentObject?.id).toBe(first.deploymentObject?.id);
  });

  it('stores each document once and renews it when it is old', async () => {
    const stackId = await newStack();
    const text = configMap(`shared-${randomUUID()}`);
    await service.as(ADMIN).createDeploymentObject({ stackId, yamlContent: text });
    const old = `update blob set touched_at = now() - interval '2 hours' where digest in (select digest from blob_ref r join deployment_object d on d.id = r.deployment_object_id where d.stack_id = $1)`;
    await db.query(old, [stackId]);
    await service.as(ADMIN).createDeploymentObject({ stackId, yamlContent: text });
    const rows = await db.query(
      `select b.touched_at > now() - interval '1 minute' as fresh, count(*)::integer as refs from blob b join blob_ref r using (digest)
       join deployment_object d on d.id = r.deployment_object_id where d.stack_id = $1 group by b.digest`,
      [stackId],
    );
    expect(rows).toEqual([{ fresh: true, refs: 2 }]);
  });
});

describe('deployment objects', () => {
  it('cannot be changed in the database', async () => {
    const stackId = await newStack();
    const { deploymentObject } = await service.as(ADMIN).createDeploymentObject({ stackId, yamlContent: configMap('a') });
    const change = db.query(`update deployment_object set yaml_content = 'x' where id = $1`, [deploymentObject?.id]);
    await expect(change).rejects.toMatchObject({
      code: 'check_violation',
      details: { constraint: 'deployment_object_immutable' },
    });
  });

  it('are hidden when their stack is deleted', async () => {
    const stackId = await newStack();
    const { deploymentObject } = await service.as(ADMIN).createDeploymentObject({ stackId, yamlContent: configMap('a') });
    const id = deploymentObject?.id ?? '';
    expect((await service.as(ADMIN).getDeploymentObject({ id })).deploymentObject).toEqual(deploymentObject);
    await service.as(ADMIN).deleteStack({ id: stackId });
    expect((await failure(service.as(ADMIN).getDeploymentObject({ id }))).code).toBe('deployment_object_not_found');
  });
});

describe('blobs at rest', () => {
  it('are readable only with the key they were encrypted with', async () => {
    const key = { keyId: 'k1', key: randomBytes(32) };
    const stackId = await newStack();
    const secret = `geheim-${randomUUID()}-${'y'.repeat(5000)}`;
    await testService({ db, yaml, keys: [key] })
      .as(ADMIN)
      .createDeploymentObject({ stackId, yamlContent: configMap('a', secret) });
    const rows = await db.query<{ digest: Buffer; bytes: Buffer; key_id: string; encoding: string }>(
      `select b.digest, b.bytes, b.key_id, b.encoding from blob b join blob_ref r using (digest)
       join deployment_object d on d.id = r.deployment_object_id where d.stack_id = $1`,
      [stackId],
    );
    expect(rows).toMatchObject([{ key_id: 'k1', encoding: 'zstd' }]);
    expect(rows[0]?.bytes.includes('geheim')).toBe(false);
    const digests = rows.map(({ digest }) => digest);
    const newer = { keyId: 'k2', key: randomBytes(32) };
    expect([...(await createBlobStore([newer, key]).read(db, digests)).values()].map(String)).toEqual([configMap('a', secret)]);
    await expect(createBlobStore([newer]).read(db, digests)).rejects.toThrow('encrypted with key k1');
    await expect(createBlobStore([{ keyId: 'k1', key: newer.key }]).read(db, digests)).rejects.toThrow();
  });
});
