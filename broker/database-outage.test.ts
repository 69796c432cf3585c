import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { beforeAll, describe, expect, it } from 'vitest';
import { openTestDatabase, startOwnPostgres, type TestDatabase, testDatabase } from '../test/postgres.ts';
import type { Database } from './database.ts';
import { endpointText, parseConnectionUri } from './postgres/uri.ts';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await testDatabase({ empty: true });
  db = await database.open();
});

describe('start-up failures', () => {
  const open = (url: string, changes = {}) => openTestDatabase(url, { connectTimeoutMs: 0, acquireTimeoutMs: 500, ...changes });

  it('names host and port of a server that is not there', async () => {
    await expect(open('postgresql://u@127.0.0.1:1/x')).rejects.toMatchObject({
      code: 'database_unavailable',
      message: expect.stringContaining('127.0.0.1:1'),
      details: { reason: 'refused', next: expect.stringContaining('compare the port') },
    });
    await expect(open('postgresql://u@no-such-host.invalid/x')).rejects.toMatchObject({
      message: expect.stringContaining('no-such-host.invalid:5432'),
      details: { reason: expect.stringMatching(/^(nxdomain|dns)$/) }, // what it is depends on the machine having a DNS server
    });
  });

  it('tells a silent server from a missing one', async () => {
    const server = createServer(() => undefined).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    await expect(open(`postgresql://u@127.0.0.1:${port}/x?sslmode=disable`)).rejects.toMatchObject({
      details: { reason: 'timeout' },
    });
    server.close();
  });

  it('tells a missing database, and a schema without rights', async () => {
    await expect(open(database.url.replace(database.name, 'absent'))).rejects.toMatchObject({
      details: { reason: 'database_missing' },
    });
    await db.query('create role guest login');
    await db.query('create schema closed');
    await expect(open(database.url.replace('brokkr@', 'guest@'), { schema: 'closed' })).rejects.toMatchObject({
      details: { reason: 'schema' },
    });
    await expect(open(database.url.replace('brokkr@', 'guest@'), { schema: 'absent' })).rejects.toMatchObject({
      details: { reason: 'schema' },
    });
    await expect(open(database.url.replace('brokkr@', 'nobody_knows@'))).rejects.toMatchObject({
      details: { reason: 'authentication' },
    });
  });
});

describe('outage', () => {
  it('fails with database_unavailable while the server is away and recovers by itself', async () => {
    await using own = await startOwnPostgres();
    await using away = await openTestDatabase(own.url, { acquireTimeoutMs: 2_000 });
    await away.query('create table kept (id integer)');
    const stop = new AbortController();
    let connects = 0;
    let heard = Promise.withResolvers<void>();
    const listening = away.listen(
      'feed',
      (payload) => {
        if (payload === undefined) connects++;
        heard.resolve();
      },
      stop.signal,
    );
    await heard.promise;

    await Promise.all(Array.from({ length: 5 }, () => away.query('insert into kept values (1)')));
    await own.stop();
    await expect(away.query('select 1')).rejects.toMatchObject({ code: 'database_unavailable' });
    await expect(away.transaction((tx) => tx.query('select 1'))).rejects.toMatchObject({ code: 'database_unavailable' });
    await expect(away.ping(750, stop.signal)).rejects.toMatchObject({ code: 'database_unavailable' });

    heard = Promise.withResolvers<void>();
    await own.start();
    await away.transaction((tx) => tx.query('insert into kept values (2)'));
    expect(await away.query('select from kept')).toHaveLength(6);
    await heard.promise;
    expect(connects).toBe(2);
    stop.abort();
    await listening;
  });

  it('waits for a server that starts later', async () => {
    await using own = await startOwnPostgres();
    await own.stop();
    const opening = openTestDatabase(own.url, { connectTimeoutMs: 20_000 });
    await own.start();
    await using late = await opening;
    await expect(late.query('select 1 as one')).resolves.toEqual([{ one: 1 }]);
  });

  it('ends the transactions of killed connections without harming the next', async () => {
    await using own = await database.open({ poolMax: 2 });
    const failing = own.transaction(async (tx) => {
      const [row] = await tx.query<{ pid: number }>('select pg_backend_pid() as pid');
      await db.query('select pg_terminate_backend($1)', [row?.pid]);
      await tx.query('select 1');
    });
    await expect(failing).rejects.toMatchObject({ code: 'database_unavailable' });
    await expect(Promise.all([own.query('select pg_sleep(0.01)'), own.query('select pg_sleep(0.01)')])).resolves.toHaveLength(2);
    expect(own.poolUse()).toEqual({ inUse: 0, idle: 2, waiting: 0 });
  });

  it('gives up a connection that went silent, in and outside a transaction', async () => {
    const socket = parseConnectionUri(database.url, {});
    const links = new Set<Socket>();
    const proxy = createServer((near) => {
      const far = connect(endpointText(socket));
      near.pipe(far).pipe(near);
      for (const link of [near, far]) links.add(link.on('error', () => undefined));
    }).listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    const { port } = proxy.address() as AddressInfo;
    await using own = await openTestDatabase(`postgresql://brokkr@127.0.0.1:${port}/${database.name}?sslmode=disable`, {
      poolMax: 2,
      statementTimeoutMs: 300,
    });
    const failing = own.transaction(async (tx) => {
      await tx.query('select 1');
      for (const link of links) link.unpipe().pause(); // the network swallows everything from here on
      await tx.query('select 2');
    });
    await expect(failing).rejects.toMatchObject({ code: 'database_unavailable' });
    await expect(own.query('select 3 as three')).resolves.toEqual([{ three: 3 }]);
    expect(own.poolUse()).toMatchObject({ inUse: 0, waiting: 0 });
    for (const link of links) link.destroy();
    proxy.close();
  });
});
