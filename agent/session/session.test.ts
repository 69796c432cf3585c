import { create, toBinary } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { tombstoneDigest } from '#lib/digest.ts';
import { DeletionPolicy, Health, ManifestDeltaSchema, ManifestSchema, Phase } from '#proto/brokkr/v1/content_pb.js';
import {
  AbsentSchema,
  BucketDigestsSchema,
  EventsAckSchema,
  GoAwayReason,
  GoAwaySchema,
  NackCode,
  QuerySchema,
  SnapshotBeginSchema,
  SnapshotEndSchema,
  StackHealthSchema,
  StackStatusSchema,
  SyncMode,
  TombstoneSchema,
  UpsertSchema,
} from '#proto/brokkr/v1/sync_pb.js';
import { eventOf, eventually, rootOf, stackOf, startAgentSide } from '../../test/agent-side.ts';
import { answerUsually, ScriptedError, startScriptedBroker, welcome } from '../../test/scripted-broker.ts';
import type { Tier } from '../transport/wire.ts';
import { toWire } from './manifest.ts';

const A = '00000000-0000-4000-8000-00000000000a';
const B = '00000000-0000-4000-8000-00000000000b';
const C = '00000000-0000-4000-8000-00000000000c';

describe.each<Tier>(['stream', 'poll'])('session over %s', (tier) => {
  async function connected() {
    const broker = await startScriptedBroker();
    const agent = await startAgentSide(broker.url);
    const session = agent.start(tier);
    await session.welcomed;
    const peer = await broker.session(0);
    const stack = new AsyncDisposableStack();
    stack.use(broker);
    stack.use(agent);
    return { broker, agent, session, peer, [Symbol.asyncDispose]: () => stack.disposeAsync() };
  }

  it('says who it is and what it holds, and sends a heartbeat at once', async () => {
    await using side = await connected();
    const { hello, authorization } = side.peer;
    expect(hello).toMatchObject({ versions: [1], clusterUid: 'cluster', processId: 'process', installId: 'install' });
    expect(hello.resume).toMatchObject({ incarnation: '', entries: 0, bootId: side.agent.deps.outbox.bootId });
    expect(authorization).toBe('brokkr_BRtest_key');
    await eventually(() => side.peer.said('ping').length > 0);
    expect(side.peer.said('ping')[0]).toMatchObject({ kubernetesReachable: true, kubernetesLatencyMs: 3, pendingEvents: 0 });
  });

  it('offers a verified stack, reports it as received and holds it in the root digest', async () => {
    await using side = await connected();
    const a = stackOf(A, 3n, ['one', 'two']);
    side.peer.say({ case: 'upsert', value: a.inline });
    await eventually(() => side.peer.said('status').length > 0);
    expect(side.agent.offers).toHaveLength(1);
    expect(side.agent.offers[0]).toMatchObject({ stackId: A, generation: 3n, incarnation: 'inc-1' });
    const [item] = side.peer.said('status')[0]!.items;
    expect(item).toMatchObject({ stackId: A, receivedGeneration: 3n, phase: Phase.RECEIVED });
    expect(side.agent.deps.held.summary().rootDigest).toEqual(rootOf([[A, a.entry]]));
  });

  it('applies a delta to the manifest it holds, and asks for the whole when it does not hold the base', async () => {
    await using side = await connected();
    const first = stackOf(A, 1n, ['one', 'two', 'three']);
    const second = stackOf(A, 2n, ['one', 'three', 'four']);
    side.peer.say({ case: 'upsert', value: first.inline });
    await eventually(() => side.agent.offers.length === 1);
    const delta = create(ManifestDeltaSchema, {
      baseDigest: first.digest,
      upserts: toWire(second.manifest.filter(({ name }) => name === 'four')).entries,
      removals: toWire(first.manifest.filter(({ name }) => name === 'two')).entries,
    });
    side.peer.say({ case: 'upsert', value: create(UpsertSchema, { ...second.bare, delta }) });
    await eventually(() => side.agent.offers.length === 2);
    expect(side.agent.offers[1]!.manifest).toEqual(second.manifest);
    side.peer.say({ case: 'upsert', value: create(UpsertSchema, { ...second.bare, stackId: B, delta }) });
    await eventually(() => side.peer.said('nack').length > 0);
    expect(side.peer.said('nack')[0]).toMatchObject({ stackId: B, code: NackCode.BASE_UNKNOWN });
  });

  it('refuses a manifest that does not match its digest and goes on with others', async () => {
    await using side = await connected();
    const a = stackOf(A, 1n, ['one']);
    const b = stackOf(B, 1n, ['two']);
    side.peer.say(
      { case: 'upsert', value: create(UpsertSchema, { ...a.inline, manifest: toWire(b.manifest) }) },
      { case: 'upsert', value: b.inline },
    );
    await eventually(() => side.peer.said('nack').length > 0 && side.agent.offers.length > 0);
    expect(side.peer.said('nack')[0]).toMatchObject({ stackId: A, code: NackCode.DIGEST_MISMATCH });
    expect(side.agent.offers.map(({ stackId }) => stackId)).toEqual([B]);
  });

  it('fetches a manifest that was not sent, goes on after a break, and offers it', async () => {
    await using side = await connected();
    const big = stackOf(
      A,
      1n,
      Array.from({ length: 2000 }, (_, index) => `name-${index}`),
    );
    const wire = Buffer.from(toBinary(ManifestSchema, toWire(big.manifest)));
    side.broker.blobs.set(Buffer.from(big.digest).toString('hex'), wire);
    side.broker.breakAfter = 2;
    side.peer.say({ case: 'upsert', value: big.bare });
    await eventually(() => side.agent.offers.length === 1);
    expect(side.agent.offers[0]!.manifest).toHaveLength(2000);
    expect(side.broker.fetches).toBeGreaterThan(tier === 'stream' ? 1 : 0);
  });

  it('nacks content that cannot be had, and takes the stack when it comes again', async () => {
    await using side = await connected();
    const a = stackOf(A, 1n, ['one']);
    side.peer.say({ case: 'upsert', value: a.bare });
    await eventually(() => side.peer.said('nack').length > 0);
    expect(side.peer.said('nack')[0]).toMatchObject({ stackId: A, code: NackCode.CONTENT_UNAVAILABLE });
    side.broker.blobs.set(Buffer.from(a.digest).toString('hex'), Buffer.from(toBinary(ManifestSchema, toWire(a.manifest))));
    side.peer.say({ case: 'upsert', value: a.bare });
    await eventually(() => side.agent.offers.length === 1);
  });

  it('withdraws a stack and keeps the tombstone under the root digest until its end is known to the broker', async () => {
    await using side = await connected();
    side.peer.say({ case: 'upsert', value: stackOf(A, 1n, ['one']).inline });
    const tombstone = { stackId: A, stackName: 'a', generation: 2n, policy: DeletionPolicy.ORPHAN, approved: true };
    side.peer.say({ case: 'tombstone', value: create(TombstoneSchema, tombstone) });
    await eventually(() => side.agent.withdrawals.length === 1);
    expect(side.agent.withdrawals[0]).toMatchObject({ ...tombstone, incarnation: 'inc-1' });
    const { held, reports } = side.agent.deps;
    expect(held.summary().rootDigest).toEqual(rootOf([[A, tombstoneDigest(A, 2n, 'orphan')]]));
    reports.status(create(StackStatusSchema, { stackId: A, phase: Phase.PRUNED }));
    await eventually(() => side.peer.said('status').some(({ items }) => items.some(({ phase }) => phase === Phase.PRUNED)));
    side.peer.say({ case: 'pong', value: { $typeName: 'brokkr.v1.Pong' } });
    await eventually(() => held.summary().entries === 0);
  });

  it('keeps what the broker does not know, and says so', async () => {
    await using side = await connected();
    side.peer.say(
      { case: 'upsert', value: stackOf(A, 1n, ['one']).inline },
      { case: 'absent', value: create(AbsentSchema, { stackId: A }) },
    );
    await eventually(() => side.peer.said('status').some(({ items }) => items.some(({ phase }) => phase === Phase.KEPT)));
    expect(side.agent.withdrawals).toEqual([]);
    expect(side.agent.deps.held.summary().entries).toBe(0);
  });

  it('takes a listing only when it is complete', async () => {
    await using side = await connected();
    const [a, b, c] = [stackOf(A, 1n, ['one']), stackOf(B, 1n, ['two']), stackOf(C, 1n, ['three'])];
    side.peer.say({ case: 'upsert', value: a.inline });
    await eventually(() => side.agent.offers.length === 1);
    side.peer.say(
      { case: 'snapshotBegin', value: create(SnapshotBeginSchema, { entries: 2 }) },
      { case: 'upsert', value: b.inline },
      { case: 'upsert', value: c.inline },
    );
    await eventually(() => side.peer.acked >= 2n);
    expect(side.agent.offers).toHaveLength(1);
    const rootDigest = rootOf([
      [B, b.entry],
      [C, c.entry],
    ]);
    side.peer.say({ case: 'snapshotEnd', value: create(SnapshotEndSchema, { rootDigest }) });
    await eventually(() => side.agent.offers.length === 3);
    expect(side.agent.deps.held.summary().rootDigest).toEqual(rootDigest);
    expect(side.agent.withdrawals).toEqual([]);
  });

  it('changes nothing after a broken listing and ends the session', async () => {
    await using side = await connected();
    side.peer.say(
      { case: 'snapshotBegin', value: create(SnapshotBeginSchema, { entries: 2 }) },
      { case: 'upsert', value: stackOf(B, 1n, ['two']).inline },
      { case: 'snapshotEnd', value: create(SnapshotEndSchema, { rootDigest: rootOf([]) }) },
    );
    expect(await side.session.ended).toMatchObject({ kind: 'lost', detail: expect.stringContaining('1 of 2 entries') });
    expect(side.agent.offers).toEqual([]);
  });

  it('answers bucket digests with its entries of the buckets that differ', async () => {
    await using side = await connected();
    const a = stackOf(A, 4n, ['one']);
    side.peer.say({ case: 'upsert', value: a.inline });
    await eventually(() => side.agent.offers.length === 1);
    side.peer.say({ case: 'buckets', value: create(BucketDigestsSchema, { digests: new Uint8Array(8192) }) });
    await eventually(() => side.peer.said('bucketEntries').length > 0);
    const [answer] = side.peer.said('bucketEntries');
    expect(answer!.buckets).toHaveLength(1);
    expect(answer!.entries).toMatchObject([{ stackId: A, generation: 4n }]);
    expect(Buffer.from(answer!.entries[0]!.manifestDigest).equals(a.digest)).toBe(true);
  });

  it('keeps events until they are acknowledged, over sessions', async () => {
    await using side = await connected();
    side.broker.onFrame = (peer, message) => {
      if (message.body.case !== 'events') answerUsually(peer, message);
    };
    const { reports, outbox } = side.agent.deps;
    await reports.event(eventOf('first'));
    await reports.event(eventOf('second'));
    await eventually(() => side.peer.said('events').length > 0);
    expect(outbox.pending).toBe(2);
    side.session.close('test');
    await side.session.ended;
    side.broker.onFrame = answerUsually;
    side.broker.onHello = (peer) => peer.say(welcome({ eventsThrough: 1n }));
    await side.agent.start(tier).welcomed;
    const peer = await side.broker.session(1);
    await eventually(() => peer.said('events').length > 0);
    expect(peer.said('events')[0]!.events.map(({ seq, attemptId }) => [seq, attemptId])).toEqual([[2n, 'second']]);
    await eventually(() => outbox.pending === 0 || (tier === 'poll' && peer.frames.length > 0));
    peer.say({ case: 'eventsAck', value: create(EventsAckSchema, { bootId: outbox.bootId, through: 2n }) });
    await eventually(() => outbox.pending === 0);
  });

  it('says again after a reconnect what was not acknowledged, only the newest of it', async () => {
    await using side = await connected();
    const { reports } = side.agent.deps;
    side.session.close('test');
    await side.session.ended;
    for (const message of ['old', 'new']) reports.status(create(StackStatusSchema, { stackId: A, phase: Phase.FAILED, message }));
    reports.health([create(StackHealthSchema, { stackId: A, health: Health.HEALTHY })], 'transition');
    await side.agent.start(tier).welcomed;
    const peer = await side.broker.session(1);
    await eventually(() => peer.said('health').length > 0 && peer.said('status').length > 0);
    expect(peer.said('status').flatMap(({ items }) => items.map(({ message }) => message))).toEqual(['new']);
    await eventually(() => peer.said('ping').length > 0);
    expect(peer.said('ping')[0]).toMatchObject({ failing: 1 });
  });

  it('answers a question with its id', async () => {
    await using side = await connected();
    side.peer.say({
      case: 'query',
      value: create(QuerySchema, { id: A, timeoutMs: 1000, body: { case: 'explain', value: {} } }),
    });
    await eventually(() => side.peer.said('answer').length > 0);
    expect(side.peer.said('answer')).toMatchObject([{ id: A, body: { case: 'failure', value: 'asked in a test' } }]);
  });

  it('hands over what the broker configures', async () => {
    await using side = await connected();
    side.peer.say({
      case: 'config',
      value: {
        $typeName: 'brokkr.v1.SessionConfig',
        heartbeatIntervalMs: 100,
        healthIntervalMs: 0,
        pollHoldMs: 0,
        maxFrameBytes: 0,
        windowFrames: 0,
        deletionsHeld: true,
      },
    });
    await eventually(() => side.agent.configs.length === 2);
    expect(side.agent.configs.map((config) => config?.deletionsHeld)).toEqual([false, true]);
  });

  if (tier === 'stream')
    // heartbeats of a poller wait for its polls
    it('tells what it learns about its cluster with the next heartbeat, once', async () => {
      const broker = await startScriptedBroker();
      broker.onHello = (peer) => peer.say(welcome({ config: { heartbeatIntervalMs: 50 } as never })); // and every frame answered as usual
      await using stack = new AsyncDisposableStack();
      stack.use(broker);
      const agent = stack.use(await startAgentSide(broker.url));
      await agent.start(tier).welcomed;
      const peer = await broker.session(0);
      const told = () => peer.said('ping').flatMap(({ facts }) => (facts ? [facts.capabilities] : []));
      await eventually(() => peer.said('ping').length > 1);
      expect(peer.hello.facts?.clusterWide).toBe(true);
      expect(told()).toEqual([]);
      agent.facts.capabilities['kind:example.com/Widget'] = 'v1';
      await eventually(() => told().length > 0);
      const after = peer.said('ping').length;
      await eventually(() => peer.said('ping').length > after + 1);
      expect(told()).toEqual([{ 'kind:example.com/Widget': 'v1' }]);
    });

  if (tier === 'stream')
    it('ends when the broker falls silent', async () => {
      await using broker = await startScriptedBroker();
      await using agent = await startAgentSide(broker.url);
      broker.onHello = (peer) => peer.say(welcome({ config: { heartbeatIntervalMs: 50 } as never }));
      broker.onFrame = () => undefined;
      const session = agent.start(tier);
      await session.welcomed;
      expect(await session.ended).toMatchObject({
        kind: 'lost',
        welcomed: true,
        detail: expect.stringMatching(/nothing came from the broker for \d+ ms/),
      });
    });

  it('tells refusals apart', async () => {
    await using broker = await startScriptedBroker();
    await using agent = await startAgentSide(broker.url);
    const refuse = async (error: ScriptedError) => {
      broker.onHello = (peer) => peer.end(error);
      return agent.start(tier).ended;
    };
    expect(await refuse(new ScriptedError('agent_inactive', 9, 'set inactive'))).toMatchObject({
      kind: 'halted',
      reason: 'inactive',
    });
    expect(await refuse(new ScriptedError('unauthorized', 16, 'no such key'))).toMatchObject({
      kind: 'halted',
      reason: 'unauthorized',
    });
    expect(await refuse(new ScriptedError('superseded', 10, 'pod b is newer'))).toMatchObject({
      kind: 'superseded',
      detail: 'pod b is newer',
    });
    expect(await refuse(new ScriptedError('duplicate_identity', 9, 'cluster b', 600))).toMatchObject({
      kind: 'halted',
      reason: 'duplicate_identity',
      retryAfterMs: 600_000,
    });
    expect(await refuse(new ScriptedError('too_many_requests', 8, 'later', 7))).toMatchObject({
      kind: 'lost',
      retryAfterMs: 7_000,
    });
  });

  it('leaves as the broker asks, and announces when a replacement is wanted first', async () => {
    await using side = await connected();
    side.peer.say({ case: 'goAway', value: create(GoAwaySchema, { reason: GoAwayReason.AGE, keepUntilReplaced: true }) });
    await side.session.renew;
    const drain = { reason: GoAwayReason.DRAINING, windowMinMs: 10, windowMaxMs: 20 };
    side.peer.say({ case: 'goAway', value: create(GoAwaySchema, drain) });
    expect(await side.session.ended).toMatchObject({ kind: 'drained', minMs: 10, maxMs: 20 });
  });

  it('lets the newer of two sessions speak', async () => {
    await using side = await connected();
    const next = side.agent.start(tier);
    await next.welcomed;
    const newer = await side.broker.session(1);
    if (tier === 'stream') side.peer.say({ case: 'upsert', value: stackOf(A, 9n, ['stale']).inline });
    newer.say({ case: 'upsert', value: stackOf(B, 1n, ['fresh']).inline });
    await eventually(() => newer.said('status').length > 0);
    expect(side.agent.offers.map(({ stackId }) => stackId)).toEqual([B]);
    expect(side.peer.said('status')).toEqual([]);
  });

  it('says goodbye when it is closed', async () => {
    await using side = await connected();
    side.session.close('the agent stops');
    expect(await side.session.ended).toEqual({ kind: 'closed' });
    await eventually(() => side.peer.said('bye').length === 1);
    expect(side.peer.said('bye')[0]!.reason).toBe('the agent stops');
  });

  it('names the mode in which it did not resume as nothing taken yet', async () => {
    await using broker = await startScriptedBroker();
    await using agent = await startAgentSide(broker.url);
    broker.onHello = (peer) => peer.say(welcome({ mode: SyncMode.BUCKETS }));
    await agent.start(tier).welcomed;
    expect(agent.deps.held.summary()).not.toHaveProperty('revision');
  });
});

describe('a stream', () => {
  it('acknowledges before the window is used up although it has nothing to say', async () => {
    await using broker = await startScriptedBroker();
    await using agent = await startAgentSide(broker.url);
    await agent.start('stream').welcomed;
    const peer = await broker.session(0);
    for (let count = 0; count < 64; count++) peer.say({ case: 'pong', value: { $typeName: 'brokkr.v1.Pong' } });
    await eventually(() => peer.acked >= 32n);
    expect(peer.heard.some(({ body }) => body.case === undefined)).toBe(true);
  });

  it('is given up when something in between buffers it', async () => {
    await using broker = await startScriptedBroker();
    await using agent = await startAgentSide(broker.url);
    broker.network = 'buffering';
    expect(await agent.start('stream').ended).toMatchObject({ kind: 'lost', welcomed: false, unanswered: true });
  });

  it('fails at once through a proxy that speaks HTTP/1.1 only', async () => {
    await using broker = await startScriptedBroker();
    await using agent = await startAgentSide(broker.url);
    broker.network = 'http1';
    expect(await agent.start('stream').ended).toMatchObject({ kind: 'lost', welcomed: false, unanswered: false });
  });

  it('ends when the connection is cut', async () => {
    await using broker = await startScriptedBroker();
    await using agent = await startAgentSide(broker.url);
    const session = agent.start('stream');
    await session.welcomed;
    broker.drop();
    expect(await session.ended).toMatchObject({ kind: 'lost', welcomed: true });
  });
});
