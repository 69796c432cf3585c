import { create } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { abortable } from '#lib/signal.ts';
import type { Outcome, WebhookRequest } from '#lib/webhook-send.ts';
import { WebhookAttemptSchema, type WebhookTurn, WebhookTurnedSchema } from '#proto/brokkr/v1/sync_pb.js';
import { FakeClock } from '../test/fake-clock.ts';
import { Webhooks } from './webhooks.ts';

const LEASE_MS = 15_000;
const [A, B] = ['delivery-a', 'delivery-b'];

/** An agent that sends, a broker played by the test, and endpoints that answer when told to. */
function rig() {
  const clock = new FakeClock();
  const stop = new AbortController();
  const open = new Map<string, PromiseWithResolvers<Outcome>>();
  const cut: string[] = [];
  const send = async ({ url }: WebhookRequest, signal: AbortSignal) => {
    const answer = Promise.withResolvers<Outcome>();
    open.set(url, answer);
    try {
      return await abortable(answer.promise, signal);
    } catch (error) {
      cut.push(url);
      throw error;
    } finally {
      open.delete(url);
    }
  };
  const webhooks = new Webhooks({ send, clock });
  const turns: WebhookTurn[] = [];
  const takeTurn = (turn: WebhookTurn) => void turns.push(turn);
  webhooks.connect(takeTurn);
  const running = webhooks.run(stop.signal);
  const attempt = (deliveryId: string, turn = turns.at(-1)?.turn ?? 0n, number = 1) =>
    webhooks.attempt(create(WebhookAttemptSchema, { turn, deliveryId, attempt: number, url: deliveryId, timeoutMs: 1000 }));
  const answer = (held: readonly string[] = [], turn = turns.at(-1)?.turn ?? 0n) =>
    webhooks.answered(create(WebhookTurnedSchema, { turn, held: [...held], leaseMs: LEASE_MS }));
  const end = async (id: string, outcome: Outcome) => {
    open.get(id)?.resolve(outcome);
    await expect.poll(() => open.has(id)).toBe(false);
  };
  const finish = async () => {
    stop.abort(new Error('test over'));
    await running;
  };
  return { clock, webhooks, turns, takeTurn, open, cut, attempt, answer, end, finish };
}

describe('sending webhooks for the broker', () => {
  it('begins when told, and tells an end until the broker has answered', async () => {
    const { webhooks, turns, attempt, answer, end, clock, finish } = rig();
    expect(turns).toEqual([]);
    webhooks.told();
    expect(turns).toMatchObject([{ turn: 1n, room: 10, held: [], ended: [] }]);
    attempt(A);
    answer();
    await end(A, { kind: 'failed', failure: '5xx', message: 'no\0', statusCode: 503, retryAfterMs: 7000.4 });
    await expect.poll(() => turns.length).toBe(2);
    const ended = [{ deliveryId: A, attempt: 1, failure: '5xx', message: 'no', statusCode: 503, retryAfterMs: 7000 }];
    expect(turns[1]).toMatchObject({ turn: 2n, room: 10, held: [], ended });
    await clock.advance(LEASE_MS + 1); // no answer came
    await clock.advance(LEASE_MS / 3);
    expect(turns[2]).toMatchObject({ turn: 3n, ended });
    answer();
    await clock.advance(LEASE_MS);
    expect(turns).toHaveLength(3);
    await finish();
  });

  it('renews its leases, and stops what the broker no longer confirms', async () => {
    const { webhooks, turns, attempt, answer, clock, open, cut, finish } = rig();
    webhooks.told();
    attempt(A);
    attempt(B);
    answer();
    for (let turn = 1; turn <= 4; turn++) {
      await clock.advance(LEASE_MS / 3);
      expect(turns[turn]).toMatchObject({ room: 8, held: [A, B] });
      answer([A, B]);
    }
    await clock.advance(LEASE_MS / 3);
    answer([A]);
    await expect.poll(() => cut).toEqual([B]);
    expect([...open.keys()]).toEqual([A]);
    await finish();
    expect(cut).toEqual([B, A]);
  });

  it('stops before the lease may be over when the broker is silent', async () => {
    const { webhooks, attempt, answer, clock, cut, finish } = rig();
    webhooks.told();
    await clock.advance(2_000);
    attempt(A); // its lease counts from the turn, two seconds ago
    answer();
    await clock.advance(3_000);
    await clock.advance(5_000);
    expect(cut).toEqual([A]);
    expect(clock.monotonic() - 1_700_000_000_000).toBeLessThan(LEASE_MS);
    await finish();
  });

  it('does not begin what comes late, or for another turn', async () => {
    const { webhooks, turns, attempt, answer, clock, open, finish } = rig();
    webhooks.told();
    attempt(B, 7n);
    await clock.advance(LEASE_MS / 2 + 1);
    attempt(A);
    expect([...open.keys()]).toEqual([]);
    answer();
    attempt(A, 1n);
    expect([...open.keys()]).toEqual([]);
    expect(turns).toHaveLength(1);
    await finish();
  });

  it('goes on in the session that follows', async () => {
    const { webhooks, turns, takeTurn, attempt, answer, open, finish } = rig();
    webhooks.told();
    attempt(A);
    webhooks.disconnect(takeTurn);
    webhooks.connect(takeTurn);
    expect(turns[1]).toMatchObject({ turn: 2n, held: [A] });
    answer([A]);
    expect([...open.keys()]).toEqual([A]);
    await finish();
  });
});
