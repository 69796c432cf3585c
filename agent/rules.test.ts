import { mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLog } from '#lib/log.ts';
import { createYamlPool, type YamlPool } from '#lib/yaml-pool.ts';
import { FakeClock } from '../test/fake-clock.ts';
import { EnvironmentRules, RulesError } from './rules.ts';

let dir: string;
let yaml: YamlPool;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'brokkr-rules-'));
  yaml = createYamlPool({ maxThreads: 1 });
});
afterAll(async () => {
  await yaml[Symbol.asyncDispose]();
  await rm(dir, { recursive: true });
});

/** Rules of a file, and what they told. */
async function open(path: string | undefined) {
  const clock = new FakeClock();
  const log = createLog('test', { level: 'fatal' });
  let changes = 0;
  let notify: () => void = () => undefined;
  const changed = () => {
    changes++;
    notify();
  };
  const rules = new EnvironmentRules({ yaml, clock, log, changed }, { path });
  const stop = new AbortController();
  await rules.load(stop.signal);
  const done = rules.run(stop.signal);
  return {
    rules,
    changes: () => changes,
    /** Lets the time of one look pass and waits for the change it finds. */
    async look() {
      const { promise, resolve } = Promise.withResolvers<void>();
      notify = resolve;
      await clock.advance(3000);
      await promise;
    },
    async [Symbol.asyncDispose]() {
      stop.abort(new Error('test over'));
      await done;
    },
  };
}

describe('the rules of the environment', () => {
  it('are none without a file', async () => {
    await using opened = await open(undefined);
    expect([opened.rules.current(), opened.rules.problem]).toEqual([undefined, undefined]);
  });

  it('are read again when the file is replaced, also behind a link, as Kubernetes mounts it', async () => {
    const [first, second, link] = ['first', 'second', 'link'].map((name) => join(dir, name)) as [string, string, string];
    await writeFile(first, 'kinds: {forbidden: [A]}\n');
    await writeFile(second, 'kinds: {forbidden: [B]}\n');
    await symlink(first, link);
    await using opened = await open(link);
    expect(opened.rules.current()).toEqual({ kinds: { forbidden: ['A'] } });
    await symlink(second, `${link}.new`);
    await rename(`${link}.new`, link);
    await opened.look();
    expect(opened.rules.current()).toEqual({ kinds: { forbidden: ['B'] } });
    expect(opened.changes()).toBe(2);
  });

  it('stop everything new while the file is invalid or away, and say why', async () => {
    const path = join(dir, 'wrong');
    await using opened = await open(path);
    expect(opened.rules.problem).toMatch(/cannot be read: .*ENOENT/);
    expect(() => opened.rules.current()).toThrow(RulesError);
    await writeFile(path, 'kinds:\n  forbiden: [A]\n');
    await opened.look();
    expect(opened.rules.problem).toBe(
      `the rules of the environment are invalid: ${path}: line 2, column 3: /kinds/forbiden is unknown`,
    );
    expect(() => opened.rules.current()).toThrow(/nothing new is applied/);
    await writeFile(path, 'kinds:\n  forbidden: [A]\n');
    await opened.look();
    expect([opened.rules.current(), opened.rules.problem]).toEqual([{ kinds: { forbidden: ['A'] } }, undefined]);
    await writeFile(path, `# ${'x'.repeat(300_000)}`);
    await opened.look();
    expect(opened.rules.problem).toMatch(/it has 300002 bytes, the limit is 262144/);
  });
});
