import { beforeAll, describe, expect, it } from 'vitest';
import { GoAwayReason } from '#proto/brokkr/v1/sync_pb.js';
import type { Database } from '../../broker/database.ts';
import { connectAgent, hello } from '../agent-client.ts';
import { openTestDatabase, testDatabase } from '../postgres.ts';
import { startBroker, startProcess, type TestBroker } from '../processes.ts';
import { dump } from './rows.ts';

let broker: TestBroker;
let db: Database;
/** Every key that was ever shown in this file. */
const shown: string[] = [];
let serial = 0;
const unique = (prefix: string) => `${prefix}-${++serial}`;

beforeAll(async () => {
  const { url } = await testDatabase();
  db = await openTestDatabase(url);
  broker = await startBroker({ databaseUrl: url, env: { BROKKR__LOG__LEVEL: 'trace' } });
  shown.push(broker.adminPak);
});

async function call<T = unknown>(method: string, path: string, body?: unknown, pak = broker.adminPak) {
  const answer = await broker.api<T>(method, `/api/v1${path}`, body, { authorization: pak });
  for (const [pak_] of JSON.stringify(answer.body ?? '').matchAll(/brokkr_BR[0-9A-Za-z]+_[0-9A-Za-z]+/g)) shown.push(pak_);
  return answer;
}

/** Status of a call that every working key may make. */
async function works(pak: string): Promise<number> {
  return (await call('POST', '/auth/pak', undefined, pak)).status;
}

async function newAgent() {
  return (
    await call<{ agent: { id: string }; initial_pak: string }>('POST', '/agents', { name: unique('agent'), cluster_name: 'c' })
  ).body;
}

describe('a key', () => {
  // C-070
  it('is shown when it is made and never again', async () => {
    const { body: made } = await call<{ generator: { id: string }; pak: string }>('POST', '/generators', { name: unique('g') });
    const { agent, initial_pak } = await newAgent();
    for (const path of [
      `/generators/${made.generator.id}`,
      '/generators',
      `/agents/${agent.id}`,
      '/agents',
      '/keys',
      '/paks',
      '/admin/audit-logs?limit=1000',
    ]) {
      const answer = JSON.stringify((await call('GET', path)).body);
      for (const pak of [made.pak, initial_pak]) expect(answer, path).not.toContain(pak.split('_')[2]);
    }
  });

  it('works until it is revoked, and not a moment longer', async () => {
    const { body } = await call<{ key: { id: string }; pak: string }>('POST', '/keys', { role: 'admin', name: unique('k') });
    expect(await works(body.pak)).toBe(200);
    expect((await call('DELETE', `/keys/${body.key.id}`)).status).toBe(204);
    expect(await works(body.pak)).toBe(401);
    expect(await call('DELETE', `/keys/${body.key.id}`)).toMatchObject({ status: 404, body: { code: 'key_not_found' } });
  });

  it('expires at its time although it was used a moment before', async () => {
    const { body } = await call<{ pak: string }>('POST', '/keys', {
      role: 'admin',
      name: unique('k'),
      expires_at: new Date(Date.now() + 1500).toISOString(),
    });
    expect(await works(body.pak)).toBe(200);
    await expect.poll(() => works(body.pak), { timeout: 5000, interval: 100 }).toBe(401);
  });

  // C-071
  it('dies at once when its owner rotates it, and its stream is closed', async () => {
    const { agent, initial_pak } = await newAgent();
    using stream = connectAgent(broker.url, initial_pak);
    stream.send(hello({ clusterUid: agent.id }));
    await stream.take('welcome');
    const rotated = await call<{ pak: string }>('POST', `/agents/${agent.id}/rotate-pak`, undefined, initial_pak);
    expect(rotated.status).toBe(200);
    expect([await works(initial_pak), await works(rotated.body.pak)]).toEqual([401, 200]);
    expect((await stream.take('goAway')).reason).toBe(GoAwayReason.REVOKED);
  });

  // C-071
  it('lives on for the grace that a rotation gives it', async () => {
    const { body: made } = await call<{ generator: { id: string }; pak: string }>('POST', '/generators', { name: unique('g') });
    const rotated = await call<{ pak: string }>(
      'POST',
      `/generators/${made.generator.id}/rotate-pak?grace_seconds=2`,
      undefined,
      made.pak,
    );
    expect(rotated.status).toBe(201);
    expect([await works(made.pak), await works(rotated.body.pak)]).toEqual([200, 200]);
    await expect.poll(() => works(made.pak), { timeout: 6000, interval: 100 }).toBe(401);
    expect(await works(rotated.body.pak)).toBe(200);
  });

  it('is one of several of its owner, each with its own name and last use', async () => {
    const { agent, initial_pak } = await newAgent();
    const second = await call<{ pak: string }>('POST', '/keys', { role: 'agent', agent_id: agent.id, name: 'second' });
    expect([await works(initial_pak), await works(second.body.pak)]).toEqual([200, 200]);
    const keys = await call<{ agent_id: string; name: string }[]>('GET', '/keys');
    expect(
      keys.body
        .filter(({ agent_id }) => agent_id === agent.id)
        .map(({ name }) => name)
        .sort(),
    ).toEqual(['initial', 'second']);
  });

  it.each([
    ['an agent key without an agent', { role: 'agent', name: 'k' }, 'agent_id'],
    ['an admin key with an agent', { role: 'admin', name: 'k', agent_id: crypto.randomUUID() }, 'neither'],
    ['a key for nobody', { role: 'generator', name: 'k', generator_id: crypto.randomUUID() }, 'no generator'],
  ])('is not made: %s', async (_what, request, words) => {
    const { status, body } = await call<{ message: string }>('POST', '/keys', request);
    expect(status).toBeGreaterThanOrEqual(400);
    expect(status).toBeLessThan(500);
    expect(body.message).toContain(words);
  });
});

describe('the admin key of a first start', () => {
  // C-069, C-070
  it('is printed once on the terminal and never in the log', async () => {
    const { url } = await testDatabase({ empty: true });
    const start = async () => {
      const started = await startProcess('broker/main.ts', ['serve'], {
        DATABASE_URL: url,
        BROKKR__BROKER__LISTEN: '127.0.0.1:0',
        BROKKR__LOG__LEVEL: 'trace',
      });
      return { started, address: (await started.line((line) => line.msg === 'broker serves')).address };
    };
    const first = await start();
    const printed = first.started.text.join('\n').match(/brokkr_BR\w+/g) ?? [];
    expect(printed).toHaveLength(1);
    const pak = String(printed[0]);
    shown.push(pak);
    const answer = await fetch(`http://${first.address}/api/v1/auth/pak`, {
      method: 'POST',
      headers: { authorization: `Bearer ${pak}` },
    });
    expect(await answer.json()).toMatchObject({ admin: true });
    expect(JSON.stringify(first.started.log)).not.toContain(pak.split('_')[2]);
    expect(await first.started.stop()).toBe(0);
    const second = await start();
    expect(second.started.text.join('\n')).not.toMatch(/brokkr_BR/);
    await second.started.stop();
  });
});

describe('no trace of a secret', () => {
  // C-069, C-070
  it('is in the database or in the log of the process, after everything above', async () => {
    const yaml = 'apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: correct-horse-battery}\n';
    expect((await call('PUT', '/stacks/by-name/secret/apply', { yaml_content: yaml })).status).toBe(200);
    expect(
      (await call('PUT', '/stacks/by-name/secret/apply', { yaml_content: `${yaml}password: correct-horse-battery: [` })).status,
    ).toBe(400);
    const stored = await dump(db);
    const logged = [...broker.text, ...broker.log.map((line) => JSON.stringify(line))].join('\n');
    expect(shown.length).toBeGreaterThan(10);
    expect(logged.length).toBeGreaterThan(0);
    for (const pak of shown) {
      const longToken = pak.split('_')[2] ?? pak;
      expect(stored).not.toContain(longToken);
      expect(logged).not.toContain(longToken);
    }
    expect(logged).not.toContain('correct-horse-battery');
  });
});
