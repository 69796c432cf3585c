import { create } from '@bufbuild/protobuf';
import { afterEach, describe, expect, it } from 'vitest';
import { createLog } from '#lib/log.ts';
import { GoAwayReason, GoAwaySchema, WelcomeSchema } from '#proto/brokkr/v1/sync_pb.js';
import { FakeClock, turn } from '../../test/fake-clock.ts';
import type { Tier } from '../transport/wire.ts';
import { endOfGoAway, type SessionEnd } from './end.ts';
import type { Session } from './session.ts';
import { Supervisor, type SupervisorOptions } from './supervisor.ts';

/** What one dial is to do. Without `end` the session stays up until closed. */
interface Script {
  readonly welcome?: boolean;
  readonly end?: SessionEnd;
  /** When it ends, after the dial. */
  readonly afterMs?: number;
  /** When the broker asks for another session. */
  readonly renewAfterMs?: number;
}

const lost = (rest: Partial<Extract<SessionEnd, { kind: 'lost' }>> = {}): SessionEnd => ({
  kind: 'lost',
  heldMs: 0,
  welcomed: false,
  unanswered: false,
  retryAfterMs: undefined,
  code: 'reset',
  detail: 'test',
  ...rest,
});
const up: Script = { welcome: true };

let stop = new AbortController();
afterEach(() => stop.abort(new Error('test over')));

function supervise(
  script: (tier: Tier, dial: number) => Script,
  options: Partial<SupervisorOptions> = {},
  streams = () => false,
) {
  stop = new AbortController();
  const clock = new FakeClock();
  const started = clock.now();
  const dials: { tier: Tier; at: number; session: Session; closed: string[] }[] = [];
  const calls: string[] = [];
  let probes = 0;
  const start = (tier: Tier, signal: AbortSignal): Session => {
    const { welcome, end, afterMs = 0, renewAfterMs } = script(tier, dials.length);
    const welcomed = Promise.withResolvers<never>();
    const renew = Promise.withResolvers<never>();
    const ended = Promise.withResolvers<SessionEnd>();
    const closed: string[] = [];
    if (welcome) welcomed.resolve(create(WelcomeSchema) as never);
    const later = (ms: number, then: () => void) => clock.sleep(ms, signal).then(then, () => ended.resolve({ kind: 'closed' }));
    if (end && afterMs === 0) ended.resolve(end);
    else if (end) void later(afterMs, () => ended.resolve(end));
    if (renewAfterMs !== undefined) void later(renewAfterMs, () => renew.resolve(create(GoAwaySchema) as never));
    signal.addEventListener('abort', () => ended.resolve({ kind: 'closed' }));
    const close = (reason: string) => {
      closed.push(reason);
      ended.resolve({ kind: 'closed' });
    };
    const session = { tier, welcomed: welcomed.promise, renew: renew.promise, ended: ended.promise, close };
    dials.push({ tier, at: clock.now() - started, session, closed });
    return session;
  };
  const supervisor = new Supervisor(
    {
      clock,
      log: createLog('test', { level: 'fatal' }),
      random: () => 0.999,
      start,
      probe: async () => {
        probes++;
        return streams();
      },
      suspend: (reason) => calls.push(`suspend: ${reason}`),
      resume: () => calls.push('resume'),
    },
    { transport: 'auto', probeIntervalMs: 600_000, ...options },
  );
  const done = supervisor.run(stop.signal);
  return { clock, dials, calls, supervisor, done, tiers: () => dials.map(({ tier }) => tier), probes: () => probes };
}

describe('Supervisor', () => {
  it('waits ever longer between failed dials, at most 60 s', async () => {
    const { clock, dials } = supervise(() => ({ end: lost() }), { transport: 'stream' });
    await clock.advance(400_000);
    const waits = dials.slice(1).map(({ at }, index) => Math.round((at - dials[index]!.at) / 1000));
    expect(waits.slice(0, 8)).toEqual([1, 2, 4, 8, 16, 32, 60, 60]);
  });

  it('says how long there has been no session, over all dials', async () => {
    const { clock, supervisor } = supervise((_, dial) =>
      dial === 0 ? { welcome: true, end: lost({ heldMs: 90_000, welcomed: true }), afterMs: 90_000 } : { end: lost() },
    );
    expect(supervisor.withoutSessionMs).toBe(Number.POSITIVE_INFINITY);
    await clock.advance(89_000);
    expect(supervisor.withoutSessionMs).toBe(0);
    await clock.advance(301_000);
    expect(supervisor.withoutSessionMs).toBe(300_000);
  });

  it('begins anew after a stable session', async () => {
    const { clock, dials } = supervise(
      (_, dial) =>
        dial === 5 ? { welcome: true, end: lost({ heldMs: 90_000, welcomed: true }), afterMs: 90_000 } : { end: lost() },
      { transport: 'stream' },
    );
    await clock.advance(300_000);
    expect(dials[6]!.at - dials[5]!.at).toBeLessThanOrEqual(91_000);
  });

  it('falls back to polling after three failures of the stream', async () => {
    const { clock, tiers } = supervise((tier) => (tier === 'stream' ? { end: lost() } : up));
    await clock.advance(20_000);
    expect(tiers()).toEqual(['stream', 'stream', 'stream', 'poll']);
  });

  it('falls back to polling when two dials got no answer', async () => {
    const { clock, tiers } = supervise((tier) => (tier === 'stream' ? { end: lost({ unanswered: true }) } : up));
    await clock.advance(20_000);
    expect(tiers()).toEqual(['stream', 'stream', 'poll']);
  });

  it('goes back to the stream when polls fail as well', async () => {
    const { clock, tiers } = supervise(() => ({ end: lost() }));
    await clock.advance(120_000);
    expect(tiers().slice(0, 7)).toEqual(['stream', 'stream', 'stream', 'poll', 'poll', 'stream', 'stream']);
  });

  it('returns to the stream by itself once it works, and polls until the new session is open', async () => {
    let works = false;
    const { clock, tiers, dials, probes, supervisor } = supervise(
      (tier) => (tier === 'stream' && !works ? { end: lost({ unanswered: true }) } : up),
      {},
      () => works,
    );
    await clock.advance(600_000);
    expect(tiers()).toEqual(['stream', 'stream', 'poll']);
    expect(probes()).toBeGreaterThan(2);
    expect(dials[2]!.closed).toEqual([]);
    works = true;
    await clock.advance(900_000);
    expect(tiers()).toEqual(['stream', 'stream', 'poll', 'stream']);
    expect(dials[2]!.closed).toEqual(['replaced by another session']);
    expect(supervisor.state).toMatchObject({ kind: 'up', tier: 'stream' });
  });

  it('opens another session before it ends one that reached its age', async () => {
    const { clock, dials, calls } = supervise((_, dial) => (dial === 0 ? { welcome: true, renewAfterMs: 1_000 } : up));
    await clock.advance(2_000);
    expect(dials).toHaveLength(2);
    expect(dials[0]!.closed).toEqual(['replaced by another session']);
    expect(dials[1]!.closed).toEqual([]);
    expect(calls.filter((call) => call.startsWith('suspend'))).toEqual([]);
  });

  it('keeps the old session when its replacement fails, and tries again', async () => {
    const { clock, dials } = supervise((_, dial) => {
      if (dial === 0) return { welcome: true, renewAfterMs: 1_000 };
      return dial < 3 ? { end: lost() } : up;
    });
    await clock.advance(1_000);
    expect(dials[0]!.closed).toEqual([]);
    await clock.advance(10_000);
    expect(dials).toHaveLength(4);
    expect(dials[0]!.closed).toHaveLength(1);
  });

  it('comes back within the window when the broker drains', async () => {
    const goAway = create(GoAwaySchema, { reason: GoAwayReason.DRAINING, windowMinMs: 2_000, windowMaxMs: 6_000 });
    const end = endOfGoAway(goAway, { heldMs: 90_000, welcomed: true, unanswered: false });
    const { clock, dials } = supervise((_, dial) => (dial === 0 ? { welcome: true, end } : up));
    await clock.advance(1_999);
    expect(dials).toHaveLength(1);
    await clock.advance(4_001);
    expect(dials).toHaveLength(2);
  });

  it('waits as long as the broker says', async () => {
    const { clock, dials } = supervise((_, dial) => (dial === 0 ? { end: lost({ retryAfterMs: 30_000 }) } : up));
    await clock.advance(29_000);
    expect(dials).toHaveLength(1);
    await clock.advance(1_000);
    expect(dials).toHaveLength(2);
  });

  it('stands by and writes nothing while another process has the session, and does not flap', async () => {
    const { clock, dials, calls } = supervise((_, dial) =>
      dial < 5 ? { end: { kind: 'superseded', retryAfterMs: undefined, detail: 'pod-b is newer' } } : up,
    );
    await clock.advance(0);
    expect(calls).toEqual(['suspend: superseded by another process of this agent']);
    await clock.advance(200_000);
    expect(dials.length).toBeLessThanOrEqual(4);
    await clock.advance(300_000);
    expect(calls.at(-1)).toBe('resume');
  });

  it('stops writing while the agent is inactive and goes on when it is active again', async () => {
    let active = false;
    const end: SessionEnd = { kind: 'halted', reason: 'inactive', retryAfterMs: undefined, detail: 'set inactive' };
    const { clock, calls, supervisor } = supervise(() => (active ? up : { end }));
    await clock.advance(70_000);
    expect(new Set(calls)).toEqual(new Set(['suspend: the agent is inactive']));
    expect(supervisor.state).toMatchObject({ kind: 'waiting', detail: 'the agent is inactive: set inactive' });
    active = true;
    await clock.advance(35_000);
    expect(calls.at(-1)).toBe('resume');
  });

  it('says that the key is in use elsewhere and waits minutes', async () => {
    const end: SessionEnd = { kind: 'halted', reason: 'duplicate_identity', retryAfterMs: undefined, detail: 'cluster b' };
    const { clock, dials, supervisor } = supervise(() => ({ end }));
    await clock.advance(250_000);
    expect(dials).toHaveLength(1);
    expect(supervisor.state.detail).toContain('in use on another cluster');
  });

  it('does not poll when it does not trust the certificate', async () => {
    const { clock, tiers } = supervise(() => ({
      end: { kind: 'untrusted', failure: 'certificate', reason: 'CERT_HAS_EXPIRED', detail: 'expired' },
    }));
    await clock.advance(60_000);
    expect(new Set(tiers())).toEqual(new Set(['stream']));
  });

  it('ends when told to', async () => {
    const { clock, done } = supervise(() => up);
    await clock.advance(10);
    stop.abort(new Error('stop'));
    await turn();
    await expect(done).resolves.toBeUndefined();
  });
});
