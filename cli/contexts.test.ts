import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readContexts, resolveContext, saveContext } from './contexts.ts';

let dir: string;
let env: { BROKKR_CONFIG: string };
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'brokkr-contexts-'));
  env = { BROKKR_CONFIG: join(dir, 'below', 'config') };
});
afterEach(() => rm(dir, { recursive: true }));

const saved = { broker_url: 'https://broker.example:8443', pak: 'brokkr_BRsaved_key', ca_file: '/ca.pem' };

describe('contexts', () => {
  it('are kept for the user alone, and the last one saved is current', async () => {
    await saveContext(env, 'one', saved);
    await saveContext(env, 'two', { broker_url: 'http://127.0.0.1:3000' });
    expect((await stat(env.BROKKR_CONFIG)).mode & 0o777).toBe(0o600);
    expect(await readContexts(env)).toMatchObject({ current_context: 'two', contexts: { one: saved } });
    expect(await resolveContext({}, env)).toEqual({ broker_url: 'http://127.0.0.1:3000' });
    expect(await resolveContext({ context: 'one' }, env)).toEqual(saved);
  });

  it('give way to the environment, which gives way to flags', async () => {
    await saveContext(env, 'one', saved);
    await writeFile(join(dir, 'pak'), 'from-file\n');
    const here = { ...env, BROKKR_BROKER_URL: 'https://broker.example:8443/', BROKKR_PAK: 'from-env' };
    expect(await resolveContext({}, here)).toEqual({ ...saved, pak: 'from-env' });
    expect(await resolveContext({ pakFile: join(dir, 'pak') }, here)).toEqual({ ...saved, pak: 'from-file' });
    expect(await resolveContext({ broker: 'http://other' }, here)).toEqual({ broker_url: 'http://other', pak: 'from-env' });
  });

  it('never send a saved key to another broker', async () => {
    await saveContext(env, 'one', saved);
    expect(await resolveContext({ broker: 'https://elsewhere.example' }, env)).toEqual({
      broker_url: 'https://elsewhere.example',
    });
  });

  it('that are missing or broken are told with the next step, without the text of the file', async () => {
    await expect(resolveContext({}, env)).rejects.toMatchObject({
      code: 'no_broker',
      hint: expect.stringContaining('brokkr up'),
    });
    await saveContext(env, 'one', saved);
    await writeFile(env.BROKKR_CONFIG, '{"pak": "brokkr_secret');
    await expect(resolveContext({}, env)).rejects.toThrow(/^(?!.*secret).*is not a context file$/);
  });

  it('refuse an address that is none', async () => {
    await expect(resolveContext({ broker: 'broker:3000' }, env)).rejects.toMatchObject({ exitCode: 2 });
  });
});
