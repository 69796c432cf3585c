import { createHash, hash, randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { manifestDigest } from '#lib/digest.ts';
import { createLog } from '#lib/log.ts';
import { ApplyOptionsSchema } from '#proto/brokkr/v1/content_pb.js';
import { RevisionSchema } from '#proto/brokkr/v1/sync_pb.js';
import { temporaryDirectory } from '../../test/processes.ts';
import { type KeptWayBack, WayBacks } from './way-back.ts';

const log = createLog('test', { level: 'fatal' });

function wayBackOf(stackId: string, texts: Readonly<Record<string, string>>): KeptWayBack {
  const manifest = Object.entries(texts).map(([kind, text]) => ({
    ...{ group: '', version: 'v1', kind, namespace: 'shop', name: 'one', size: text.length, wave: 0, item: 0 },
    ...{ objectDigest: hash('sha256', `object ${text}`), sourceDigest: hash('sha256', text) },
  }));
  const digest = manifestDigest(manifest);
  const goal = {
    ...{ stackId, stackName: 'shop', generation: 7n, deploymentObjectId: randomUUID(), manifest, manifestDigest: digest },
    ...{
      optionsDigest: createHash('sha256').update('options').digest(),
      options: create(ApplyOptionsSchema, { confirmSeconds: 9 }),
    },
    ...{ salt: createHash('md5').update('salt').digest(), publishedAtMs: 5, incarnation: 'test', traceparent: '' },
    revision: create(RevisionSchema, { xid: 1n, seq: 2n, nonce: 2n ** 63n }),
  };
  const documents = new Map(Object.values(texts).map((text) => [hash('sha256', text), text]));
  return { goal, good: { manifest: manifest.slice(1), manifestDigest: manifestDigest(manifest.slice(1)) }, documents };
}

describe('a way back', () => {
  it('outlives the process as it was kept, but for Secrets', async () => {
    const dir = join(await temporaryDirectory(), 'way-back');
    const kept = wayBackOf(randomUUID(), { ConfigMap: 'a: 1', Secret: 'password' });
    const before = new WayBacks({ dir, log });
    await before.keep(kept);
    expect(before.find(kept.goal.stackId)?.documents.size).toBe(2);
    expect(await readFile(join(dir, `${kept.goal.stackId}.json`), 'utf8')).not.toContain('password');
    const after = new WayBacks({ dir, log });
    const [found] = await after.load(new Set([kept.goal.stackId]));
    expect(found?.goal.manifest).toEqual(kept.goal.manifest);
    expect(found).toMatchObject({ goal: { generation: 7n, publishedAtMs: 5, incarnation: 'test' } });
    for (const field of ['manifestDigest', 'optionsDigest', 'salt'] as const) {
      expect(Buffer.from(found?.goal[field] ?? []).equals(kept.goal[field])).toBe(true);
    }
    expect(found?.goal.options.confirmSeconds).toBe(9);
    expect(found?.goal.revision?.nonce).toBe(2n ** 63n);
    expect(found?.good?.manifest).toEqual(kept.good?.manifest);
    expect([...(after.find(kept.goal.stackId)?.documents.values() ?? [])]).toEqual(['a: 1']);
  });

  it('is dropped when its stack does not need it, and when it is damaged', async () => {
    const dir = join(await temporaryDirectory(), 'way-back');
    const [one, other, torn] = [1, 2, 3].map(() => wayBackOf(randomUUID(), { ConfigMap: 'a: 1' })) as [
      KeptWayBack,
      KeptWayBack,
      KeptWayBack,
    ];
    const before = new WayBacks({ dir, log });
    for (const each of [one, other, torn]) await before.keep(each);
    const path = join(dir, `${torn.goal.stackId}.json`);
    await writeFile(path, (await readFile(path, 'utf8')).replace('a: 1', 'a: 2'));
    await before.drop(one.goal.stackId);
    const after = new WayBacks({ dir, log });
    const found = await after.load(new Set([one.goal.stackId, torn.goal.stackId]));
    expect(found).toEqual([]);
    expect(await new WayBacks({ dir, log }).load(new Set([other.goal.stackId]))).toEqual([]);
  });
});
