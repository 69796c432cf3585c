import { describe, expect, it } from 'vitest';
import type { Outcome } from '#lib/webhook-send.ts';
import { verdictOf } from './outcome.ts';

const failed = (failure: '4xx' | '5xx' | 'timeout', statusCode?: number, wait?: number): Outcome => ({
  kind: 'failed',
  failure,
  message: '',
  ...(statusCode !== undefined && { statusCode }),
  ...(wait !== undefined && { retryAfterMs: wait }),
});
const verdict = (outcome: Outcome, attempts: number, random = 0.5) =>
  verdictOf(outcome, { attempts, maxRetries: 5 }, () => random);

describe('the verdict on an attempt', () => {
  it('waits twice as long each time, and longer than before however the dice fall', () => {
    const waits = [1, 2, 3, 4].map((attempts) => [0, 0.5, 0.999].map((random) => verdict(failed('timeout'), attempts, random)));
    const ms = waits.map((row) => row.map((item) => (item.kind === 'retry' ? item.afterMs : Number.NaN)));
    expect(ms.map((row) => row[1])).toEqual([2000, 4000, 8000, 16_000]);
    for (const [index, row] of ms.slice(1).entries()) expect(row[0]).toBeGreaterThan(ms[index]?.[2] ?? Number.NaN);
  });

  it('heeds Retry-After where it asks for more, up to an hour', () => {
    expect(verdict(failed('5xx', 503, 60_000), 1)).toEqual({ kind: 'retry', afterMs: 60_000 });
    expect(verdict(failed('5xx', 503, 100), 1)).toEqual({ kind: 'retry', afterMs: 2000 });
    expect(verdict(failed('4xx', 429, 1e9), 1)).toEqual({ kind: 'retry', afterMs: 3_600_000 });
  });

  it('gives up at the last attempt, and at once when the request itself is refused', () => {
    expect(verdict(failed('5xx', 500), 5)).toEqual({ kind: 'dead', disable: false });
    for (const status of [400, 401, 404, 422])
      expect(verdict(failed('4xx', status), 1)).toEqual({ kind: 'dead', disable: false });
    for (const status of [408, 425, 429]) expect(verdict(failed('4xx', status), 1).kind).toBe('retry');
    expect(verdict(failed('4xx', 410), 1)).toEqual({ kind: 'dead', disable: true });
    expect(verdict({ kind: 'delivered', statusCode: 204 }, 1)).toEqual({ kind: 'done' });
  });
});
