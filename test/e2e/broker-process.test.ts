import { once } from 'node:events';
import { connect } from 'node:net';
import pg from 'pg';
import { describe, expect, it } from 'vitest';
import { parseConnectionUri } from '../../broker/postgres/uri.ts';
import { freePort } from '../../hack/kube/ports.ts';
import { mintKey } from '../../lib/pak.ts';
import { testDatabase } from '../postgres.ts';
import { startBroker, startProcess, type TestProcess } from '../processes.ts';

const YAML = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n';

/** Exit code and everything said by a process that is expected to end by itself. */
async function fate(started: TestProcess): Promise<{ readonly code: number | null; readonly said: string }> {
  await started.line(() => false).catch(() => undefined); // rejects when the process has ended
  const code = await started.stop();
  return { code, said: [...started.text, ...started.log.map((line) => JSON.stringify(line))].join('\n') };
}

describe('a broker that cannot start says why', () => {
  // N-061
  it('names host and port of the database that is down, after the time it was given', async () => {
    const port = await freePort();
    const started = performance.now();
    const { code, said } = await fate(
      await startProcess('broker/main.ts', ['serve'], {
        DATABASE_URL: `postgres://brokkr@127.0.0.1:${port}/brokkr`,
        BROKKR__DATABASE__CONNECT_TIMEOUT: '2s',
        BROKKR__BROKER__LISTEN: '127.0.0.1:0',
      }),
    );
    expect(code).toBe(1);
    expect(said).toContain(`no database listens at 127.0.0.1:${port}`);
    expect(performance.now() - started).toBeGreaterThan(2000);
  });

  it('lists all problems of its settings at once, without their secrets', async () => {
    const { code, said } = await fate(
      await startProcess('broker/main.ts', ['serve'], {
        BROKKR__BROKER__PAK_HASH: 'not-a-hash',
        BROKKR__BROKER__ENCRYPTION_KEY: 'too-short-a-secret',
        BROKKR__DATABASE__POOL_MAX: '1',
        BROKKR__LOG__LEVEL: 'loud',
        BROKKR__BROKER__LISTENN: '0.0.0.0:1',
      }),
    );
    expect(code).toBe(1);
    for (const name of ['pak_hash', 'encryption_key', 'pool_max', 'log.level', 'listenn'])
      expect(said.toLowerCase().replaceAll('__', '.')).toContain(name);
    expect(said).not.toContain('too-short-a-secret');
  });

  it('names the address that another process uses', async () => {
    const { url } = await testDatabase();
    const first = await startBroker({ databaseUrl: url });
    const address = new URL(first.url).host;
    const { code, said } = await fate(
      await startProcess('broker/main.ts', ['serve'], { DATABASE_URL: url, BROKKR__BROKER__LISTEN: address }),
    );
    expect(code).toBe(1);
    expect(said).toContain(`cannot listen on ${address}: another process uses it`);
    expect((await fetch(`${first.url}/healthz`)).status).toBe(200);
    await first.stop();
  });

  // N-078
  it.each(['tenant"; drop schema public; --', 'pg_catalog', 'x'.repeat(64)])('refuses the schema name %j', async (schema) => {
    const { url } = await testDatabase();
    const { code, said } = await fate(
      await startProcess('broker/main.ts', ['serve'], {
        DATABASE_URL: url,
        BROKKR__DATABASE__SCHEMA: schema,
        BROKKR__BROKER__LISTEN: '127.0.0.1:0',
      }),
    );
    expect(code).toBe(1);
    expect(said).toContain('schema');
  });
});

describe('two brokers in two schemas of one database', () => {
  // N-078
  it('see nothing of each other', async () => {
    const { url } = await testDatabase({ empty: true });
    const [red, blue] = await Promise.all(
      ['red', 'blue'].map((schema) =>
        startBroker({ databaseUrl: url, env: { BROKKR__DATABASE__SCHEMA: schema, BROKKR__DATABASE__POOL_MAX: '3' } }),
      ),
    );
    if (!red || !blue) throw new Error('not started');
    for (const broker of [red, blue]) {
      const { status } = await broker.api('PUT', '/api/v1/stacks/by-name/shared/apply', {
        yaml_content: YAML,
        description: broker.url,
      });
      expect(status).toBe(200);
    }
    for (const broker of [red, blue]) {
      const { body } = await broker.api<{ name: string; description: string }[]>('GET', '/api/v1/stacks');
      expect(body.map(({ name, description }) => [name, description])).toEqual([['shared', broker.url]]);
    }
    const foreign = await red.api('GET', '/api/v1/stacks', undefined, { authorization: blue.adminPak });
    expect(foreign).toMatchObject({ status: 401, body: { code: 'unauthorized' } });
    const [ids, others] = await Promise.all(
      [red, blue].map(async (broker) => (await broker.api<{ id: string }[]>('GET', '/api/v1/stacks')).body.map(({ id }) => id)),
    );
    expect((await red.api('GET', `/api/v1/stacks/${others?.[0]}`)).status).toBe(404);
    expect(ids?.[0]).not.toBe(others?.[0]);
    await Promise.all([red.stop(), blue.stop()]);
  });
});

describe('a pool of five connections', () => {
  // N-075
  it('serves 200 requests at once, and says how it is used', async () => {
    const { url } = await testDatabase();
    const broker = await startBroker({ databaseUrl: url, env: { BROKKR__DATABASE__POOL_MAX: '5' } });
    const requests = Array.from({ length: 200 }, (_, index) =>
      broker.api('PUT', `/api/v1/stacks/by-name/s${index}/apply`, { yaml_content: YAML }),
    );
    const scrapes: string[] = [];
    let done = false;
    const all = Promise.all(requests).finally(() => {
      done = true;
    });
    do scrapes.push(await (await fetch(`${broker.url}/metrics`)).text());
    while (!done);
    const failed = (await all).filter(({ status }) => status !== 200);
    expect(failed).toEqual([]);
    const gauge = (text: string, state: string) =>
      Number(new RegExp(`^brokkr_database_pool_connections\\{state="${state}"\\} (\\d+)$`, 'm').exec(text)?.[1]);
    for (const text of scrapes) {
      expect(gauge(text, 'in_use') + gauge(text, 'idle')).toBeLessThanOrEqual(5);
      expect(gauge(text, 'waiting')).toBeGreaterThanOrEqual(0);
    }
    expect(Math.max(...scrapes.map((text) => gauge(text, 'in_use')))).toBeGreaterThan(0);
    expect(gauge(await (await fetch(`${broker.url}/metrics`)).text(), 'waiting')).toBe(0);
    await broker.stop();
  });
});

describe('SIGTERM', () => {
  it('lets requests in flight finish, takes no new ones, and ends with 0', async () => {
    const { url } = await testDatabase();
    const broker = await startBroker({ databaseUrl: url, adminKey: mintKey() });
    const { id } = (await broker.api<{ id: string }>('POST', '/api/v1/stacks', { name: 's' })).body;
    const { host, port, user, database } = parseConnectionUri(url, {});
    const holder = new pg.Client({ host, port, user, database, ssl: false });
    await holder.connect();
    await holder.query('begin');
    await holder.query('select from stack where id = $1 for update', [id]);
    const inFlight = broker.api('PUT', `/api/v1/stacks/${id}`, { description: 'drained' });
    await expect
      .poll(
        async () =>
          (await holder.query(`select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`))
            .rowCount,
      )
      .toBe(1);
    const stopped = broker.stop('SIGTERM');
    await expect.poll(() => accepts(broker.url)).toBe(false);
    await holder.query('rollback');
    await holder.end();
    expect(await inFlight).toMatchObject({ status: 200, body: { description: 'drained' } });
    expect(await stopped).toBe(0);
    expect(broker.log.filter(({ level }) => level === 'error')).toEqual([]);
  });

  it('ends an idle broker at once', async () => {
    const { url } = await testDatabase();
    const broker = await startBroker({ databaseUrl: url });
    expect((await fetch(`${broker.url}/healthz`)).status).toBe(200);
    const sinceMs = performance.now();
    expect(await broker.stop('SIGTERM')).toBe(0);
    expect(performance.now() - sinceMs).toBeLessThan(5000);
  });
});

async function accepts(url: string): Promise<boolean> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
