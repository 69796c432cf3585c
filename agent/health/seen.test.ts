import { describe, expect, it } from 'vitest';
import { FakeClock, turn } from '../../test/fake-clock.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { Readiness } from './readiness.ts';
import { SeenHealth } from './seen.ts';

const KEY = 'apps/Deployment/shop/web';
const entry = (name: string, generation = 1): InventoryEntry => ({
  ...{ group: 'apps', version: 'v1', kind: 'Deployment', plural: 'deployments', namespace: 'shop', namespaced: true },
  ...{ name, wave: 0, uid: `uid of ${name}`, digest: '', state: 'applied', marks: {} },
  print: { resourceVersion: '1', generation, time: '', fields: '' },
});
const seen = (state: Readiness['state'], generation = 1, uid = 'uid of web'): Readiness => ({
  ...{ state, reason: 'Why', message: 'in words', podsReady: 0, podsTotal: 1, uid, generation },
});

/** A wait that was begun, with what it told and how it ended. */
function begin(health: SeenHealth, entries: readonly InventoryEntry[], clock = new FakeClock()) {
  const told: string[] = [];
  const stop = new AbortController();
  const signal = new AbortController();
  const options = { clock, rules: [], stop: stop.signal, tell: (message: string) => void told.push(message) };
  let result: string[] | undefined;
  const done = health.ready({ wave: 1, entries, timeoutMs: 5000 }, options, signal.signal).then((unready) => {
    result = unready.map(({ name, reason }) => `${name} ${reason}`);
  });
  return { told, stop, signal, clock, done, result: () => result };
}

describe('the wait for health', () => {
  it('ends when the object is ready as it was applied last, not as it was before', async () => {
    const health = new SeenHealth();
    health.see(KEY, seen('ready', 1));
    const wait = begin(health, [entry('web', 2)]);
    await turn();
    expect(wait.told).toEqual(['wave 1 waits for Deployment shop/web: its state was not seen yet']);
    health.see(KEY, seen('progressing', 2));
    await turn();
    expect(wait.told.at(-1)).toBe('wave 1 waits for Deployment shop/web: in words');
    expect(wait.result()).toBeUndefined();
    health.see(KEY, seen('ready', 2));
    await wait.done;
    expect(wait.result()).toEqual([]);
    expect(wait.told.at(-1)).toBe('');
  });

  it('is not ended by another object that had the name before', async () => {
    const health = new SeenHealth();
    health.see(KEY, seen('ready', 7, 'uid of a stranger'));
    const wait = begin(health, [entry('web')]);
    await wait.clock.advance(5000);
    expect(wait.result()).toEqual(['web NotSeen']);
  });

  it('goes on when one falls back while the others become ready', async () => {
    const health = new SeenHealth();
    health.see(KEY, seen('ready'));
    const wait = begin(health, [entry('web'), entry('other')]);
    await turn();
    health.see(KEY, seen('failing'));
    health.see('apps/Deployment/shop/other', seen('ready', 1, 'uid of other'));
    await turn();
    expect(wait.told.at(-1)).toBe('wave 1 waits for Deployment shop/web: in words');
    health.see(KEY, seen('ready'));
    await wait.done;
    expect(wait.result()).toEqual([]);
  });

  it('says what is not ready when its time is over, whatever was seen meanwhile', async () => {
    const health = new SeenHealth();
    const wait = begin(health, [entry('web'), entry('other')]);
    await wait.clock.advance(4000);
    health.see('apps/Deployment/shop/other', seen('ready', 1, 'uid of other'));
    await wait.clock.advance(999);
    expect(wait.result()).toBeUndefined();
    await wait.clock.advance(1);
    expect(wait.result()).toEqual(['web NotSeen']);
  });

  it('has no result when the sync is stopped, and rejects when the process ends', async () => {
    const stopped = begin(new SeenHealth(), [entry('web')]);
    stopped.stop.abort(new Error('superseded'));
    await stopped.done;
    expect(stopped.result()).toEqual([]);
    const ended = begin(new SeenHealth(), [entry('web')]);
    ended.signal.abort(new Error('over'));
    await expect(ended.done).rejects.toThrow('over');
  });
});
