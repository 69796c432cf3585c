import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createLog } from '#lib/log.ts';
import { stackOf, startAgentSide } from '../test/agent-side.ts';
import { startScriptedBroker } from '../test/scripted-broker.ts';
import { Content } from './content.ts';
import { openContentCache } from './content-cache.ts';
import { ContentUnavailableError } from './target.ts';
import type { Tier } from './transport/wire.ts';

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
  it('drops the least recently used beyond its size and forgets what was damaged', async () => {
    await using broker = await startScriptedBroker();
    await using agent = await startAgentSide(broker.url);
    const { sourceDigest } = await import('#lib/object.ts');
    const cache = await openContentCache(join(agent.dir, 'small'), { log }, { maxBytes: 25 });
    const texts = ['first ten.', 'second ten', 'third ten.'];
    const digests = texts.map((text) => sourceDigest(text));
    for (const [index, text] of texts.slice(0, 2).entries()) await cache.write(digests[index]!, text);
    expect(await cache.read(digests[0]!)).toBe('first ten.');
    await cache.write(digests[2]!, texts[2]!);
    expect(await cache.read(digests[1]!)).toBeUndefined();
    expect(await cache.read(digests[0]!)).toBe('first ten.');
    const { writeFile } = await import('node:fs/promises');
    await writeFile(join(agent.dir, 'small', digests[0]!), 'damaged!!!');
    expect(await cache.read(digests[0]!)).toBeUndefined();
  });
});
