import { describe, expect, it } from 'vitest';
import { systemClock } from './clock.ts';
import { eachBounded } from './watchdog.ts';

const forever = () => {
  for (;;) {
    try {
      for (;;);
    } catch {
      // not even so
    }
  }
};

describe('calls with a deadline', () => {
  it('ends by force the one that takes too long, and it alone', () => {
    const done: number[] = [];
    const killed: number[] = [];
    const start = systemClock.monotonic();
    const work = (index: number) => {
      if (index === 2) forever();
      done[index] = index;
    };
    eachBounded(5, 50, work, (index) => killed.push(index));
    expect([done, killed]).toEqual([[0, 1, undefined, 3, 4], [2]]);
    expect(systemClock.monotonic() - start).toBeLessThan(1000);
  });

  it('gives each call the whole deadline, however long all of them take together', () => {
    let calls = 0;
    const killed: number[] = [];
    const busy = () => {
      const until = systemClock.monotonic() + 30;
      while (systemClock.monotonic() < until);
      calls++;
    };
    eachBounded(6, 100, busy, (index) => killed.push(index));
    expect(killed).toEqual([]);
    expect(calls).toBeGreaterThanOrEqual(6);
  });

  it('throws what a call throws', () => {
    const fail = () => {
      throw new RangeError('mine');
    };
    expect(() => eachBounded(1, 50, fail, forever)).toThrow(RangeError);
  });
});
