import { describe, expect, it } from 'vitest';
import { FakeClock } from '../../test/fake-clock.ts';
import { ServerClock } from './server-clock.ts';

const at = (ms: number) => new Date(ms).toUTCString();

describe('ServerClock', () => {
  it('takes the middle of the second that the server names, in the middle of the round trip', () => {
    const clock = new FakeClock(1_700_000_000_000);
    const server = new ServerClock(clock);
    expect(server.offsetMs).toBeUndefined();
    expect(server.now()).toBe(clock.now());
    server.heard(at(clock.now() + 7_200_000), 400);
    expect(server.offsetMs).toBe(7_200_000 + 500 + 200);
    expect(server.now()).toBe(clock.now() + 7_200_700);
  });

  it('ignores answers without a date, with a broken one, and those that took too long', () => {
    const clock = new FakeClock();
    const server = new ServerClock(clock);
    server.heard(undefined, 0);
    server.heard('yesterday', 0);
    server.heard(at(clock.now()), 2001);
    expect(server.offsetMs).toBeUndefined();
  });
});
