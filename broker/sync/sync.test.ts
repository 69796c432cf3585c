import { beforeAll, describe, expect, it } from 'vitest';
import { Phase } from '#proto/brokkr/v1/content_pb.js';
import { GoAwayReason, NackCode, SyncMode } from '#proto/brokkr/v1/sync_pb.js';
import { connectAgent, hello } from '../../test/agent-client.ts';
import { type InProcessBroker, startInProcessBroker } from '../../test/in-process-broker.ts';

const config = (name: string, value = '1') =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}}\ndata: {key: "${value}"}\n`;
let broker: InProcessBroker;
let serial = 0;
const unique = (prefix: string) => `${prefix}-${++serial}`;

beforeAll(async () => {
  broker = await startInProcessBroker();
});

async function eventually<T>(look: () => Promise<T>, fits: (value: T) => boolean): Promise<T> {
  const until = performance.now() + 10_000;
  for (;;) {
    const value = await look();
    if (fits(value)) return value;
    if (performance.now() > until) throw new Error(`still ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

describe('a session', () => {
  it('tells a new agent everything it should have, verified by the root digest', async () => {
    const label = unique('label');
    const agent = await broker.agent(unique('agent'), [label]);
    const stack = await broker.publish(unique('stack'), config('a'), [label]);
    using client = connectAgent(broker.url, agent.pak);
    client.send(hello());
    const welcome = await client.take('welcome');
    expect(welcome).toMatchObject({ version: 1, epoch: 1n, mode: SyncMode.SNAPSHOT, agentId: agent.id });
    expect((await client.take('snapshotBegin')).entries).toBe(1);
    const upsert = await client.take('upsert');
    expect(upsert).toMatchObject({ stackId: stack.id, generation: 1n });
    expect(upsert.manifest?.entries.map(({ kind, name }) => `${kind}/${name}`)).toEqual(['ConfigMap/a']);
    expect(Buffer.from(upsert.blobs[0]?.data ?? []).toString()).toBe(config('a'));
    expect(Buffer.from((await client.take('snapshotEnd')).rootDigest)).toEqual(Buffer.from(client.held.root()));
  });

  it('is told of a publication at once, as a delta against what the agent received', async () => {
    const label = unique('label');
    const agent = await broker.agent(unique('agent'), [label]);
    const name = unique('stack');
    const documents = Array.from({ length: 20 }, (_, index) => config(`c${index}`)).join('---\n');
    const stack = await broker.publish(name, documents, [label]);
    using client = connectAgent(broker.url, agent.pak);
    client.send(hello());
    const first = await client.take('upsert');
    client.send({
      case: 'status',
      value: {
        items: [
          { stackId: stack.id, receivedGeneration: 1n, receivedManifestDigest: first.manifestDigest, phase: Phase.RECEIVED },
        ],
      },
    });
    await client.take('snapshotEnd');
    const since = performance.now();
    await broker.publish(name, documents.replace('name: c7}\ndata: {key: "1"}', 'name: c7}\ndata: {key: "2"}'), [label]);
    const second = await client.take('upsert');
    expect(performance.now() - since).toBeLessThan(2000);
    expect(second.generation).toBe(2n);
    expect(second.manifest).toBeUndefined();
    expect(second.delta?.upserts.map(({ name: object }) => object)).toEqual(['c7']);
    expect(second.blobs).toHaveLength(1);
  });

  it('costs nothing when the agent comes back with the same root digest', async () => {
    const label = unique('label');
    const agent = await broker.agent(unique('agent'), [label]);
    await broker.publish(unique('stack'), config('a'), [label]);
    using client = connectAgent(broker.url, agent.pak);
    client.send(hello());
    await client.take('snapshotEnd');
    using again = connectAgent(broker.url, agent.pak);
    again.send(hello({ resume: { rootDigest: client.held.root(), entries: client.held.size } }));
    expect((await again.take('welcome')).mode).toBe(SyncMode.UP_TO_DATE);
    again.send({ case: 'ping', value: { rootDigest: client.held.root(), entries: 1 } });
    await again.take('pong');
    expect(again.waiting).toEqual([]);
  });

  it('compares buckets when something was missed and sends only what differs', async () => {
    const label = unique('label');
    const agent = await broker.agent(unique('agent'), [label]);
    const kept = await broker.publish(unique('stack'), config('a'), [label]);
    const missed = await broker.publish(unique('stack'), config('b'), [label]);
    using client = connectAgent(broker.url, agent.pak);
    client.send(hello());
    await client.take('snapshotEnd');
    const digest = client.held.get(kept.id) ?? new Uint8Array();
    using again = connectAgent(broker.url, agent.pak);
    again.send(hello({ resume: { rootDigest: digest, entries: 1 } }));
    expect((await again.take('welcome')).mode).toBe(SyncMode.BUCKETS);
    const { digests } = await again.take('buckets');
    expect(digests).toHaveLength(8192);
    const stranger = '00000000-0000-4000-8000-000000000001';
    again.send({
      case: 'bucketEntries',
      value: {
        buckets: Array.from({ length: 256 }, (_, index) => index),
        entries: [
          { stackId: kept.id, generation: 1n, digest },
          { stackId: stranger, generation: 4n, digest },
        ],
      },
    });
    expect((await again.take('absent')).stackId).toBe(stranger);
    expect((await again.take('upsert')).stackId).toBe(missed.id);
    await again.take('snapshotEnd');
    expect(again.waiting).toEqual([]);
  });

  it('is told by a tombstone that a stack leaves, until the prune is reported', async () => {
    const label = unique('label');
    const agent = await broker.agent(unique('agent'), [label]);
    const stack = await broker.publish(unique('stack'), config('a'), [label]);
    using client = connectAgent(broker.url, agent.pak);
    client.send(hello());
    await client.take('snapshotEnd');
    await broker.api('DELETE', `/api/v1/stacks/${stack.id}/labels/${label}`);
    expect(await client.take('tombstone')).toMatchObject({ stackId: stack.id, approved: false });
    using again = connectAgent(broker.url, agent.pak); // came back before it could prune
    again.send(hello());
    expect(await again.take('tombstone')).toMatchObject({ stackId: stack.id });
    again.send({ case: 'status', value: { items: [{ stackId: stack.id, phase: Phase.PRUNED }] } });
    await eventually(
      () => broker.db.query('select from delivery where agent_id = $1', [agent.id]),
      (rows) => rows.length === 0,
    );
  });

  it('carries an approved tombstone to an agent that was offline when the stack was deleted', async () => {
    const label = unique('label');
    const agent = await broker.agent(unique('agent'), [label]);
    const stack = await broker.publish(unique('stack'), config('a'), [label]);
    const first = connectAgent(broker.url, agent.pak);
    first.send(hello());
    await first.take('snapshotEnd');
    first[Symbol.dispose]();
    expect((await broker.api('DELETE', `/api/v1/stacks/${stack.id}`)).status).toBe(204);
    using back = connectAgent(broker.url, agent.pak);
    back.send(hello({ resume: { rootDigest: first.held.root(), entries: 1 } }));
    await back.take('buckets');
    back.send({
      case: 'bucketEntries',
      value: {
        buckets: Array.from({ length: 256 }, (_, index) => index),
        entries: [{ stackId: stack.id, generation: 1n, digest: first.held.get(stack.id) ?? new Uint8Array() }],
      },
    });
    expect(await back.take('tombstone')).toMatchObject({ stackId: stack.id, approved: true });
  });
});

describe('an agent that is being withheld', () => {
  it.each([
    ['INACTIVE', `update agent set status = 'INACTIVE' where id = $1`],
    ['deleted', 'update agent set deleted_at = now() where id = $1'],
  ])('%s is told of no tombstone by a change that overtakes the news', async (_, statement) => {
    const label = unique('label');
    const agent = await broker.agent(unique('agent'), [label]);
    const name = unique('stack');
    const stack = await broker.publish(name, config('a'), [label]);
    using client = connectAgent(broker.url, agent.pak);
    client.send(hello());
    await client.take('snapshotEnd');
    await broker.db.query(statement, [agent.id]); // committed, and not yet in the feed
    await broker.publish(name, config('a', '2'), [label]);
    expect(await client.take('upsert')).toMatchObject({ generation: 1n });
    // whichever comes first: the new generation, or the end of the session
    const next = await client.take('upsert').catch(() => undefined);
    if (next) expect(next).toMatchObject({ generation: 2n });
    expect(client.waiting.filter(({ body }) => body.case === 'tombstone')).toEqual([]);
    const rows = await broker.db.query<{ desired: string }>('select desired from delivery where stack_id = $1', [stack.id]);
    expect(rows).toEqual([{ desired: 'entry' }]);
  });
});

describe('a nack', () => {
  it('is not answered with the same frame before the agent wants it again', async () => {
    const label = unique('label');
    const agent = await broker.agent(unique('agent'), [label]);
    const stack = await broker.publish(unique('stack'), config('a'), [label]);
    using client = connectAgent(broker.url, agent.pak);
    client.send(hello());
    await client.take('upsert');
    await client.take('snapshotEnd');
    const since = performance.now();
    client.send({
      case: 'nack',
      value: { stackId: stack.id, generation: 1n, code: NackCode.CONTENT_UNAVAILABLE, retryAfterMs: 1500 },
    });
    await client.take('upsert');
    expect(performance.now() - since).toBeGreaterThan(1400);
  });
});

describe('identity', () => {
  it('gives the session to the newer process and keeps the older out while that one lives', async () => {
    const agent = await broker.agent(unique('agent'));
    using older = connectAgent(broker.url, agent.pak);
    older.send(hello({ processId: 'old' }));
    await older.take('welcome');
    using newer = connectAgent(broker.url, agent.pak);
    newer.send(hello({ processId: 'new' }));
    expect((await newer.take('welcome')).epoch).toBe(2n);
    expect((await older.take('goAway')).reason).toBe(GoAwayReason.SUPERSEDED);
    using flapping = connectAgent(broker.url, agent.pak);
    flapping.send(hello({ processId: 'old' }));
    expect(await flapping.ended).toMatchObject({ code: 10, details: expect.stringContaining('newer process') });
  });

  it('refuses the same key on another cluster', async () => {
    const agent = await broker.agent(unique('agent'));
    using first = connectAgent(broker.url, agent.pak);
    first.send(hello());
    await first.take('welcome');
    using second = connectAgent(broker.url, agent.pak);
    second.send(hello({ clusterUid: 'cluster-2', processId: 'process-2' }));
    expect(await second.ended).toMatchObject({ code: 9, details: expect.stringContaining('another cluster') });
    const { body } = await broker.api<{ logs: unknown[] }>(
      'GET',
      `/api/v1/admin/audit-logs?action=agent.duplicate_identity&resource_id=${agent.id}`,
    );
    expect(body.logs).toHaveLength(1);
  });

  it('ends the session of an agent set INACTIVE, of a revoked key and of a deleted agent, each with its reason', async () => {
    for (const [act, reason] of [
      [(id: string) => broker.api('PUT', `/api/v1/agents/${id}`, { status: 'INACTIVE' }), GoAwayReason.INACTIVE],
      [(id: string) => broker.api('POST', `/api/v1/agents/${id}/rotate-pak`), GoAwayReason.REVOKED],
      [(id: string) => broker.api('DELETE', `/api/v1/agents/${id}`), GoAwayReason.DELETED],
    ] as const) {
      const agent = await broker.agent(unique('agent'));
      using client = connectAgent(broker.url, agent.pak);
      client.send(hello());
      await client.take('welcome');
      expect((await act(agent.id)).status).toBeLessThan(300);
      const goAway = await client.take('goAway');
      expect([reason, GoAwayReason.REVOKED]).toContain(goAway.reason);
    }
  });

  it('refuses an inactive agent, an unknown version, a frame before hello and a wrong key', async () => {
    const agent = await broker.agent(unique('agent'));
    using early = connectAgent(broker.url, agent.pak);
    early.send({ case: 'ping', value: {} });
    expect(await early.ended).toMatchObject({ code: 3 });
    using unknown = connectAgent(broker.url, agent.pak);
    unknown.send(hello({ versions: [99] }));
    expect(await unknown.ended).toMatchObject({ code: 9, details: expect.stringContaining('99') });
    using stranger = connectAgent(broker.url, 'brokkr_BRabcdef_1234567890123456789012ab');
    stranger.send(hello());
    expect((await stranger.ended).code).toBe(16);
    await broker.api('PUT', `/api/v1/agents/${agent.id}`, { status: 'INACTIVE' });
    using inactive = connectAgent(broker.url, agent.pak);
    inactive.send(hello());
    expect(await inactive.ended).toMatchObject({ code: 9, details: expect.stringContaining('INACTIVE') });
  });
});

describe('events', () => {
  it('are stored once each and acknowledged after they are', async () => {
    const agent = await broker.agent(unique('agent'), [unique('label')]);
    using client = connectAgent(broker.url, agent.pak);
    client.send(hello());
    await client.take('welcome');
    const event = (seq: bigint, attempt: string) => ({
      seq,
      attemptId: attempt,
      eventType: 'APPLY',
      success: true,
      message: 'done',
    });
    client.send({ case: 'events', value: { bootId: 'boot', events: [event(1n, 'a'), event(2n, 'b')] } });
    expect(await client.take('eventsAck')).toMatchObject({ bootId: 'boot', through: 2n });
    client.send({ case: 'events', value: { bootId: 'boot', events: [event(2n, 'b'), event(3n, 'c')] } });
    expect((await client.take('eventsAck')).through).toBe(3n);
    client.send({ case: 'events', value: { bootId: 'after a lost outbox', events: [event(1n, 'c')] } });
    await client.take('eventsAck');
    const { body } = await broker.api<{ attempt_id: string }[]>('GET', `/api/v1/agents/${agent.id}/events`);
    expect(body.map((row) => row.attempt_id).sort()).toEqual(['a', 'b', 'c']);
  });
});

describe('a restored database', () => {
  it('holds every deletion until an admin confirms', async () => {
    const own = await startInProcessBroker();
    const agent = await own.agent('agent', ['x']);
    await own.publish('stack', config('a'), ['x']);
    using client = connectAgent(own.url, agent.pak);
    client.send(hello());
    const welcome = await client.take('welcome');
    expect(welcome.config?.deletionsHeld).toBe(false);
    using later = connectAgent(own.url, agent.pak);
    later.send(hello({ resume: { incarnation: welcome.incarnation, revision: { xid: 999_999_999n, seq: 5n, nonce: 7n } } }));
    const held = await later.take('welcome');
    expect(held.config?.deletionsHeld).toBe(true);
    expect(held.incarnation).not.toBe(welcome.incarnation);
    expect((await own.api('POST', '/api/v1/admin/history/confirm', {})).status).toBe(200);
    await eventually(
      async () => (await later.take('config')).deletionsHeld,
      (value) => value === false,
    );
  });
});
