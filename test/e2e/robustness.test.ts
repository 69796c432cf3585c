import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { Database } from '../../broker/database.ts';
import { mintKey } from '../../lib/pak.ts';
import { openTestDatabase, startOwnPostgres, testDatabase } from '../postgres.ts';
import { startBroker, type TestBroker } from '../processes.ts';

/** One publication that a client wants, under its own key. */
interface Publication {
  readonly stack: string;
  readonly key: string;
  readonly yaml: string;
}

interface Answer {
  readonly deployment_object: { readonly id: string; readonly yaml_checksum: string };
}

const PUBLISHERS = 8;
const DOCUMENTS = 12;

function publication(publisher: number, round: number): Publication {
  const documents = Array.from({ length: DOCUMENTS }, (_, index) => {
    const data = `${publisher}-${round}-${index} `.repeat(200); // too long to travel inside the manifest
    return `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c${index}}\ndata: {a: "${data}"}\n`;
  });
  return { stack: `stack-${publisher}`, key: `${publisher}/${round}`, yaml: documents.join('---\n') };
}

async function publish(broker: Pick<TestBroker, 'api'>, { stack, key, yaml }: Publication) {
  return await broker.api<Answer>(
    'PUT',
    `/api/v1/stacks/by-name/${stack}/apply`,
    { yaml_content: yaml },
    { 'idempotency-key': key },
  );
}

/** Everything that must hold between the tables, whatever was interrupted when; an empty list when it does. */
async function inconsistencies(db: Database): Promise<string[]> {
  const checks: Readonly<Record<string, string>> = {
    'objects whose checksum is not that of their text': `select id from deployment_object where yaml_checksum <> encode(sha256(convert_to(yaml_content, 'UTF8')), 'hex')`,
    'objects without all their blobs': `select o.id from deployment_object o where o.object_count <> (select count(*) from blob_ref r join blob b using (digest) where r.deployment_object_id = o.id)`,
    'objects that were never a head': `select o.id from deployment_object o where not exists (select from stack_generation g where g.deployment_object_id = o.id)`,
    'objects without an audit row': `select o.id from deployment_object o where not exists (select from audit_log a where a.resource_id = o.id and a.action = 'deployment.created')`,
    'stacks whose head is not their newest object': `select s.id from stack s where s.deployment_object_id is distinct from (select o.id from deployment_object o where o.stack_id = s.id order by o.revision desc limit 1)`,
    'stacks whose generations have gaps': `select s.id from stack s where s.generation <> (select count(*) from stack_generation g where g.stack_id = s.id) or s.generation <> (select coalesce(max(g.generation), 0) from stack_generation g where g.stack_id = s.id)`,
    'stacks whose revisions have gaps': `select stack_id from deployment_object group by stack_id having count(*) <> max(revision)`,
    'idempotency keys without an answer': `select key from idempotency_key where response = ''`,
  };
  const found: string[] = [];
  for (const [what, sql] of Object.entries(checks)) {
    const rows = await db.query(sql);
    if (rows.length > 0) found.push(`${rows.length} ${what}`);
  }
  return found;
}

describe('a broker killed in the middle of publications', () => {
  it('keeps all that was acknowledged and nothing half, and every repetition ends as one publication', {
    timeout: 120_000,
  }, async () => {
    const { url } = await testDatabase();
    const db = await openTestDatabase(url);
    const adminKey = mintKey();
    let broker = await startBroker({ databaseUrl: url, adminKey });
    const port = Number(new URL(broker.url).port);
    const acknowledged = new Map<string, { readonly wanted: Publication; readonly answer: Answer }>();
    const open = new Map<number, Publication>();
    let rounds = 0;

    for (let kills = 0; kills < 3; kills++) {
      const goal = acknowledged.size + 25;
      const killed = Promise.withResolvers<void>();
      const publisher = async (number: number) => {
        for (;;) {
          const wanted = open.get(number) ?? publication(number, rounds++);
          open.set(number, wanted);
          const reply = await publish(broker, wanted).catch(() => undefined);
          if (reply === undefined) return; // the connection broke: this one is repeated after the restart
          expect(reply.status, JSON.stringify(reply.body)).toBe(200);
          acknowledged.set(wanted.key, { wanted, answer: reply.body });
          open.delete(number);
          if (acknowledged.size >= goal) killed.resolve();
        }
      };
      const publishers = Array.from({ length: PUBLISHERS }, (_, number) => publisher(number));
      await killed.promise;
      await broker.stop('SIGKILL');
      await Promise.all(publishers);
      expect(open.size).toBe(PUBLISHERS);
      expect(await inconsistencies(db)).toEqual([]);
      broker = await startBroker({ databaseUrl: url, adminKey, port });
    }

    for (const wanted of open.values()) {
      const reply = await publish(broker, wanted);
      expect(reply.status, JSON.stringify(reply.body)).toBe(200);
      acknowledged.set(wanted.key, { wanted, answer: reply.body });
    }
    expect(await inconsistencies(db)).toEqual([]);
    const stored = await db.query<{ id: string; yaml_content: string }>('select id, yaml_content from deployment_object');
    const texts = new Map(stored.map(({ id, yaml_content }) => [id, yaml_content]));
    for (const { wanted, answer } of acknowledged.values()) {
      expect(texts.get(answer.deployment_object.id)).toBe(wanted.yaml);
      expect(answer.deployment_object.yaml_checksum).toBe(createHash('sha256').update(wanted.yaml).digest('hex'));
    }
    expect(stored).toHaveLength(acknowledged.size); // none twice, although many were sent twice
    await broker.stop();
  });
});

describe('a database that goes away and comes back', () => {
  // N-061
  it('is missed under load without a restart: alive, not ready, 503 for every request, and then as before', {
    timeout: 120_000,
  }, async () => {
    await using postgres = await startOwnPostgres();
    const broker = await startBroker({ databaseUrl: postgres.url, env: { BROKKR__DATABASE__ACQUIRE_TIMEOUT: '2s' } });
    const stop = new AbortController();
    const seen: { readonly status: number; readonly code: string | undefined }[] = [];
    const acknowledged: string[] = [];
    const health = new Set<number>();
    const worker = async (number: number) => {
      for (let round = 0; !stop.signal.aborted; round++) {
        const name = `s-${number}-${round}`;
        const { status, body } = await broker.api<{ code?: string }>('POST', '/api/v1/stacks', { name });
        seen.push({ status, code: body.code });
        if (status === 201) acknowledged.push(name);
        else await delay(20);
      }
    };
    const watcher = async () => {
      while (!stop.signal.aborted) {
        health.add((await fetch(`${broker.url}/healthz`)).status);
        await delay(50);
      }
    };
    const load = Promise.all([watcher(), ...Array.from({ length: 6 }, (_, number) => worker(number))]);
    const ready = async () => (await fetch(`${broker.url}/readyz`)).status;

    for (let outage = 0; outage < 2; outage++) {
      await expect.poll(() => acknowledged.length, { timeout: 10_000 }).toBeGreaterThan(20 * (outage + 1));
      expect(await ready()).toBe(200);
      await postgres.stop();
      await expect.poll(ready, { timeout: 10_000 }).toBe(503);
      const refused = seen.filter(({ status }) => status === 503).length;
      await expect
        .poll(() => seen.filter(({ status }) => status === 503).length, { timeout: 10_000 })
        .toBeGreaterThan(refused + 5);
      const before = acknowledged.length;
      await postgres.start();
      await expect.poll(ready, { timeout: 15_000 }).toBe(200);
      await expect.poll(() => acknowledged.length, { timeout: 15_000 }).toBeGreaterThan(before + 20);
    }
    stop.abort();
    await load;

    expect(health).toEqual(new Set([200]));
    expect(new Set(seen.map(({ status, code }) => `${status} ${code}`))).toEqual(
      new Set(['201 undefined', '503 database_unavailable']),
    );
    const db = await openTestDatabase(postgres.url);
    const stored = new Set((await db.query<{ name: string }>('select name from stack')).map(({ name }) => name));
    expect(acknowledged.filter((name) => !stored.has(name))).toEqual([]);
    expect(broker.log.filter(({ level }) => level === 'fatal')).toEqual([]);
    await db[Symbol.asyncDispose]();
    expect(await broker.stop()).toBe(0);
  });

  it('goes away while the broker stops, and the broker still ends', { timeout: 60_000 }, async () => {
    await using postgres = await startOwnPostgres();
    const broker = await startBroker({ databaseUrl: postgres.url, env: { BROKKR__DATABASE__ACQUIRE_TIMEOUT: '2s' } });
    expect((await broker.api('POST', '/api/v1/stacks', { name: 's' })).status).toBe(201);
    await postgres.stop();
    const sinceMs = performance.now();
    expect(await broker.stop('SIGTERM')).toBe(0);
    expect(performance.now() - sinceMs).toBeLessThan(20_000);
  });
});
