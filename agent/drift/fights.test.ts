import { expect, it } from 'vitest';
import { FightDetector } from './fights.ts';

const MINUTE = 60_000;

/** Corrects as soon as allowed, so many times, and says how long each wait was. */
function waits(fights: FightDetector, times: number, fromMs = 0): number[] {
  let now = fromMs;
  return Array.from({ length: times }, () => {
    fights.corrected('key', now);
    const wait = Math.max(0, fights.notBefore('key') - now);
    now += wait;
    return wait / 1000;
  });
}

it('waits from the third correction on, twice as long each time, up to ten minutes', () => {
  expect(waits(new FightDetector(), 10)).toEqual([0, 0, 30, 60, 120, 240, 480, 600, 600, 600]);
});

it('sees no fight in corrections that are far apart', () => {
  const fights = new FightDetector();
  for (let at = 0; at < 100; at += 6) {
    fights.corrected('key', at * MINUTE);
    expect(fights.notBefore('key')).toBe(0);
  }
});

it('forgets a fight after ten quiet minutes beyond the wait, and tells of the next one', () => {
  const fights = new FightDetector();
  waits(fights, 3);
  expect(fights.tell('key')).toBe(true);
  expect(fights.tell('key')).toBe(false);
  fights.corrected('key', 30_000 + 10 * MINUTE); // not quiet yet
  expect(fights.notBefore('key')).toBe(30_000 + 10 * MINUTE + 60_000);
  const later = 30_000 + 21 * MINUTE + 1;
  expect(waits(fights, 3, later)).toEqual([0, 0, 30]);
  expect(fights.tell('key')).toBe(true);
});

it('remembers a thousand objects', () => {
  const fights = new FightDetector();
  waits(fights, 3);
  for (let index = 0; index < 1000; index++) fights.corrected(`other ${index}`, 0);
  expect(fights.notBefore('key')).toBe(0);
});
