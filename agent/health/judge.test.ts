import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#lib/clock.ts';
import type { HealthQuestion } from '#lib/health-rules.ts';
import { createLog } from '#lib/log.ts';
import { createYamlPool, type YamlPool } from '#lib/yaml-pool.ts';
import { FakeClock } from '../../test/fake-clock.ts';
import { HealthJudge, type Judged } from './judge.ts';

let yaml: YamlPool;
beforeAll(() => {
  yaml = createYamlPool({ maxThreads: 1 });
});
afterAll(() => yaml[Symbol.asyncDispose]());

const rule = (current: string) => ({ current, progressing: '', failed: '', message: '' });
const BOMB = rule('object.list.all(a, object.list.all(b, a == b || a > 0))');
const list = Array(5000).fill(1);

/** A running judge on the real pool; `asked` counts the questions that reached it. */
function judge(failures = 0) {
  const clock = new FakeClock();
  let left = failures;
  let asked = 0;
  const counting = {
    health(questions: readonly HealthQuestion[], signal: AbortSignal) {
      if (left-- > 0) return Promise.reject(new Error('the pool is full'));
      asked += questions.length;
      return yaml.health(questions, signal);
    },
  };
  const health = new HealthJudge({ yaml: counting, clock, log: createLog('test', { level: 'fatal' }) });
  const stop = new AbortController();
  const done = health.run(stop.signal);
  return {
    ...{ health, clock },
    asked: () => asked,
    ask: (id: string, question: { readonly rule: typeof BOMB; readonly object?: HealthQuestion['object'] }) =>
      new Promise<Judged>((told) => health.ask(id, { object: { list, ok: true }, ...question, told })),
    async [Symbol.asyncDispose]() {
      stop.abort(new Error('test over'));
      await done;
    },
  };
}

describe('the judge of health rules', () => {
  it('does not try a rule again that was killed, until its text changes', async () => {
    await using judging = judge();
    expect(await Promise.all(['a', 'b'].map((id) => judging.ask(id, { rule: BOMB })))).toMatchObject([
      { state: 'unknown', reason: 'HealthRuleDisabled' },
      { state: 'unknown', reason: 'HealthRuleDisabled' },
    ]);
    const asked = judging.asked();
    expect(await judging.ask('a', { rule: { ...BOMB } })).toMatchObject({ reason: 'HealthRuleDisabled' });
    expect(judging.asked()).toBe(asked);
    expect(await judging.ask('a', { rule: rule('object.ok') })).toMatchObject({ state: 'ready', reason: 'Current' });
  });

  it('compiles and kills a rule of many objects once', async () => {
    await using judging = judge();
    await judging.ask('warm', { rule: rule('object.ok') });
    const start = systemClock.monotonic();
    await Promise.all(Array.from({ length: 40 }, (_, index) => judging.ask(`${index}`, { rule: { ...BOMB } })));
    expect(systemClock.monotonic() - start).toBeLessThan(1500); // forty times 50 ms are 2 s
  });

  it('judges the newest state of an object that waits, and none of one that is gone', async () => {
    await using judging = judge();
    const told: string[] = [];
    const tell = (name: string) => (judged: Judged) => void told.push(`${name} ${judged.state}`);
    const ask = (id: string, name: string, ok: boolean) =>
      judging.health.ask(id, { rule: rule('object.ok'), object: { ok }, told: tell(name) });
    ask('s1 a', 'old', false);
    ask('s1 a', 'new', true);
    ask('s1 b', 'gone', true);
    ask('s2 a', 'left', true);
    judging.health.forget('s1 b');
    judging.health.forgetAll('s2 ');
    await judging.ask('last', { rule: rule('object.ok') });
    expect(told).toEqual(['new ready']);
    expect(judging.asked()).toBe(2);
  });

  it('asks again when the pool could not answer', async () => {
    await using judging = judge(1);
    const answer = judging.ask('a', { rule: rule('object.ok') });
    await judging.clock.advance(1000);
    expect(await answer).toMatchObject({ state: 'ready' });
  });
});
