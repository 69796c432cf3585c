import { hash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createLog } from '#lib/log.ts';
import { stackOf, startAgentSide } from '../../test/agent-side.ts';
import { startScriptedBroker } from '../../test/scripted-broker.ts';
import { ContentUnavailableError } from '../stack/target.ts';
import type { Tier } from '../transport/wire.ts';
import { Content } from './content.ts';
import { openContentCache } from './content-cache.ts';
import { WayBacks } from './way-back.ts';

const A = '00000000-0000-4000-8000-00000000000a';
const log = createLog('test', { level: 'fatal' });
const signal = new AbortController().signal;

describe.each<Tier>(['stream', 'poll'])('content over %s', (tier) => {
  async function connected(kind = 'ConfigMap', names = ['one', 'two']) {
    const broker = await startScriptedBroker();
    const agent = await startAgentSide(broker.url);
    const session = agent.start(tier);
    await session.welcomed;
    const stack = stackOf(A, 1n, names, kind);
    for (const [digest, text] of stack.documents) broker.blobs.set(digest, Buffer.from(text));
    const { content, held } = agent.deps;
    held.take({
      ...stack.inline,
      manifest: stack.manifest,
      publishedAtMs: 0,
      traceparent: '',
      incarnation: '',
      revision: undefined,
      options: {} as never,
    });
    const disposal = new AsyncDisposableStack();
    disposal.use(broker);
    disposal.use(agent);
    return {
      broker,
      agent,
      session,
      stack,
      content,
      digests: [...stack.documents.keys()],
      [Symbol.asyncDispose]: () => disposal.disposeAsync(),
    };
  }

  it('fetches what it lacks once, then has it in memory and on disk', async () => {
    await using side = await connected();
    const { content, digests, broker, agent } = side;
    expect(await content.documents(A, 1n, digests, signal)).toEqual(side.stack.documents);
    await content.documents(A, 1n, digests, signal);
    expect(broker.fetches).toBe(1);
    await content.stored();
    const fresh = new Content({
      cache: await openContentCache(join(agent.dir, 'blobs'), { log }),
      wayBacks: new WayBacks({ dir: join(agent.dir, 'way-back'), log }),
      manifestOf: () => undefined,
      log,
    });
    expect(await fresh.documents(A, 1n, digests, signal)).toEqual(side.stack.documents);
  });

  it('never writes a Secret to the disk', async () => {
    await using side = await connected('Secret');
    await side.content.documents(A, 1n, side.digests, signal);
    await side.content.stored();
    expect(await readdir(join(side.agent.dir, 'blobs'))).toEqual([]);
  });

  it('never writes an unparsed text to the disk', async () => {
    await using side = await connected();
    const text = 'kind: Secret\n';
    const { sourceDigest } = await import('#lib/object.ts');
    side.broker.blobs.set(sourceDigest(text), Buffer.from(text));
    await side.content.documents(A, 1n, [sourceDigest(text)], signal);
    await side.content.stored();
    expect(await readdir(join(side.agent.dir, 'blobs'))).toEqual([]);
  });

  it('goes on where a transfer of a large document broke', async () => {
    await using side = await connected();
    const { sourceDigest } = await import('#lib/object.ts');
    const text = `# ${'x'.repeat(1_000_000)}\n`;
    side.broker.blobs.set(sourceDigest(text), Buffer.from(text));
    side.broker.breakAfter = 3;
    const found = await side.content.documents(A, 1n, [...side.digests, sourceDigest(text)], signal);
    expect(found.get(sourceDigest(text))).toBe(text);
    expect(side.broker.fetches).toBeGreaterThan(1);
  });

  it('refuses a document that does not match its digest', async () => {
    await using side = await connected();
    const [digest = ''] = side.digests;
    side.broker.blobs.set(digest, Buffer.from('kind: Evil\n'));
    await expect(side.content.documents(A, 1n, [digest], signal)).rejects.toThrow(/does not match its digest/);
  });

  it('is unavailable without a session', async () => {
    await using side = await connected();
    side.session.close('test');
    await side.session.ended;
    await expect(side.content.documents(A, 1n, side.digests, signal)).rejects.toBeInstanceOf(ContentUnavailableError);
  });

  it('takes documents that came with a frame', async () => {
    await using side = await connected();
    side.content.remember(side.stack.blobs);
    expect(await side.content.documents(A, 1n, side.digests, signal)).toEqual(side.stack.documents);
    expect(side.broker.fetches).toBe(0);
  });
});

describe('content cache', () => {
  const texts = ['first ten.', 'second ten', 'third ten.'];
  const digests = texts.map((text) => hash('sha256', text, 'hex'));
  const one = (index: number) => new Map([[digests[index] ?? '', texts[index] ?? '']]);

  async function directory() {
    const path = await mkdtemp(join(tmpdir(), 'brokkr-cache-'));
    return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
  }

  it('keeps a batch in one file and finds it again after a restart', async () => {
    await using dir = await directory();
    const cache = await openContentCache(dir.path, { log });
    const batch = new Map(digests.map((digest, index) => [digest, texts[index] ?? '']));
    await cache.write(batch);
    await cache.write(batch);
    expect(await readdir(dir.path)).toHaveLength(1);
    const again = await openContentCache(dir.path, { log });
    expect(digests.map((digest) => again.has(digest))).toEqual([true, true, true]);
    expect(await again.read([...digests, 'f'.repeat(64)])).toEqual(batch);
  });

  it('reads a first line that is longer than one read', async () => {
    await using dir = await directory();
    const many = new Map(Array.from({ length: 2000 }, (_, index) => [hash('sha256', `a${index}é`, 'hex'), `a${index}é`]));
    await (await openContentCache(dir.path, { log })).write(many);
    const again = await openContentCache(dir.path, { log });
    expect(await again.read([...many.keys()])).toEqual(many);
  });

  it('drops the least recently used batch beyond its size', async () => {
    await using dir = await directory();
    const cache = await openContentCache(dir.path, { log }, { maxBytes: 200 }); // a batch of one takes 84
    await cache.write(one(0));
    await cache.write(one(1));
    expect(await cache.read([digests[0] ?? ''])).toEqual(one(0));
    await cache.write(one(2));
    expect(digests.map((digest) => cache.has(digest))).toEqual([true, false, true]);
    expect(await readdir(dir.path)).toHaveLength(2);
  });

  it('forgets a batch that was damaged', async () => {
    await using dir = await directory();
    const cache = await openContentCache(dir.path, { log });
    await cache.write(one(0));
    const [name = ''] = await readdir(dir.path);
    const file = join(dir.path, name);
    await writeFile(file, (await readFile(file, 'utf8')).replace('first', 'worst'));
    expect(await cache.read([digests[0] ?? ''])).toEqual(new Map());
    expect(cache.has(digests[0] ?? '')).toBe(false);
    expect(await readdir(dir.path)).toEqual([]);
  });

  it('removes torn and foreign files when it opens', async () => {
    await using dir = await directory();
    const cache = await openContentCache(dir.path, { log });
    await cache.write(one(0));
    await cache.write(one(1));
    await truncate(join(dir.path, '1.seg'), 80);
    await writeFile(join(dir.path, '7.seg'), '[["not a digest",3]]\nabc');
    await writeFile(join(dir.path, digests[2] ?? ''), texts[2] ?? '');
    const again = await openContentCache(dir.path, { log });
    expect(await readdir(dir.path)).toEqual(['2.seg']);
    expect(await again.read(digests)).toEqual(one(1));
  });
});
