import { describe, expect, it } from 'vitest';
import type { Clock } from '#lib/clock.ts';
import { KubeError } from './errors.ts';
import { LIMITER_DEFAULTS, Limiter, type Priority } from './limiter.ts';

const never = new AbortController().signal;
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Time that moves when told; `sleep` ends when its time has come. */
function manualClock() {
  let now = 0;
  let sleepers: { until: number; resolve: () => void }[] = [];
  const clock = {
    now: () => now,
    monotonic: () => now,
    sleep: (ms: number) => new Promise<void>((resolve) => sleepers.push({ until: now + ms, resolve })),
    deadline: () => {
      throw new Error('not used');
    },
  } satisfies Clock;
  const advance = async (ms: number) => {
    now += ms;
    const due = sleepers.filter(({ until }) => until <= now);
    sleepers = sleepers.filter(({ until }) => until > now);
    for (const { resolve } of due) resolve();
    await turn();
  };
  return { clock, advance };
}

/** Fills a limiter with calls that end when told. */
function occupy(limiter: Limiter, count: number, priority: Priority = 'normal', signal = never) {
  const calls = Array.from({ length: count }, () => {
    const gate = Promise.withResolvers<void>();
    const done = limiter.run(() => gate.promise, priority, signal);
    done.catch(() => undefined);
    return { ...gate, done };
  });
  return calls;
}

describe('Limiter', () => {
  it('lets through as many as the limit and the rest in order of priority', async () => {
    const { clock } = manualClock();
    const limiter = new Limiter(clock, { start: 1, min: 1, max: 1 });
    const order: string[] = [];
    const [first] = occupy(limiter, 1);
    const rest = (['low', 'normal', 'high', 'normal'] as const).map((priority, index) =>
      limiter.run(async () => void order.push(`${priority} ${index}`), priority, never),
    );
    expect(limiter.inFlight).toBe(1);
    first?.resolve();
    await Promise.all(rest);
    expect(order).toEqual(['high 2', 'normal 1', 'normal 3', 'low 0']);
    expect(limiter.inFlight).toBe(0);
  });

  it('forgets a waiter whose signal aborts', async () => {
    const { clock } = manualClock();
    const limiter = new Limiter(clock, { start: 1, min: 1, max: 1 });
    const [first] = occupy(limiter, 1);
    const stop = new AbortController();
    const waiting = limiter.run(async () => 1, 'normal', stop.signal);
    stop.abort(new Error('stopped'));
    await expect(waiting).rejects.toThrow('stopped');
    first?.resolve();
    expect(await limiter.run(async () => 2, 'normal', never)).toBe(2);
    expect(limiter.inFlight).toBe(0);
  });

  it('halves once for calls that failed together, and not below the minimum', async () => {
    const { clock, advance } = manualClock();
    const limiter = new Limiter(clock, LIMITER_DEFAULTS);
    const fail = async () => {
      const calls = occupy(limiter, limiter.limit);
      await turn();
      for (const { reject } of calls) reject(new KubeError(503, 'unavailable'));
      await Promise.allSettled(calls.map(({ done }) => done));
    };
    const seen: number[] = [];
    for (let round = 0; round < 4; round += 1) {
      await fail();
      seen.push(limiter.limit);
      await advance(1000);
    }
    expect(seen).toEqual([8, 4, 4, 4]);
  });

  it('grows by one a second while the limit is reached, up to the maximum', async () => {
    const { clock, advance } = manualClock();
    const limiter = new Limiter(clock, { start: 2, min: 1, max: 4 });
    const seen: number[] = [];
    for (let second = 0; second < 4; second += 1) {
      const calls = occupy(limiter, limiter.limit);
      await advance(1000);
      for (const { resolve } of calls) resolve();
      await Promise.all(calls.map(({ done }) => done));
      seen.push(limiter.limit);
    }
    expect(seen).toEqual([3, 4, 4, 4]);
  });

  it('does not grow while there is room', async () => {
    const { clock, advance } = manualClock();
    const limiter = new Limiter(clock, LIMITER_DEFAULTS);
    for (let second = 0; second < 5; second += 1) {
      await limiter.run(() => advance(1000), 'normal', never);
    }
    expect(limiter.limit).toBe(16);
  });

  it('starts nothing before the time the server asked for', async () => {
    const { clock, advance } = manualClock();
    const limiter = new Limiter(clock, LIMITER_DEFAULTS);
    const refused = limiter.run(() => Promise.reject(new KubeError(429, 'slow down', { retryAfterMs: 3000 })), 'normal', never);
    await expect(refused).rejects.toThrow('slow down');
    let ran = false;
    const next = limiter.run(
      async () => {
        ran = true;
      },
      'high',
      never,
    );
    await advance(2999);
    expect(ran).toBe(false);
    await advance(1);
    await next;
    expect(ran).toBe(true);
    expect(limiter.limit).toBe(8);
  });

  it('halves when the 95th percentile is above two seconds', async () => {
    const { clock, advance } = manualClock();
    const limiter = new Limiter(clock, LIMITER_DEFAULTS);
    for (let call = 0; call < 64; call += 1) await limiter.run(() => advance(call < 58 ? 10 : 2500), 'normal', never);
    expect(limiter.limit).toBe(8);
  });

  it('does not take a refusal of the content as trouble', async () => {
    const { clock } = manualClock();
    const limiter = new Limiter(clock, LIMITER_DEFAULTS);
    const unknownField = new KubeError(500, 'failed to create typed patch object (a): .x: field not declared in schema');
    await expect(limiter.run(() => Promise.reject(unknownField), 'normal', never)).rejects.toBe(unknownField);
    expect(limiter.limit).toBe(16);
  });
});
