import { describe, expect, it } from 'vitest';
import { systemClock } from './clock.ts';
import { type HealthExpressions, judgeHealth } from './health-rules.ts';
import type { ValueObject } from './object.ts';

const rule = (expressions: Partial<HealthExpressions>): HealthExpressions => ({
  ...{ current: 'object.status.phase == "Done"', progressing: '', failed: '', message: '' },
  ...expressions,
});
const judge = (expressions: Partial<HealthExpressions>, object: ValueObject) =>
  judgeHealth([{ rule: rule(expressions), object }])[0];
const phase = (name: string): ValueObject => ({ status: { phase: name, items: [], note: 'because' } });

describe('health rules', () => {
  it.each<[string, Partial<HealthExpressions>, ValueObject, object]>([
    ['current', {}, phase('Done'), { state: 'ready', message: '' }],
    ['nothing true', {}, phase('Other'), { state: 'progressing' }],
    ['no status yet', {}, {}, { state: 'progressing' }],
    ['an item that is not there yet', { current: 'object.status.items[0].ok' }, phase('Done'), { state: 'progressing' }],
    ['failed goes first', { failed: 'object.status.phase == "Done"' }, phase('Done'), { state: 'failing' }],
    [
      'progressing goes before current',
      { progressing: 'object.status.phase == "Done"' },
      phase('Done'),
      { state: 'progressing' },
    ],
    ['a message', { message: '"it is " + object.status.note' }, phase('Done'), { state: 'ready', message: 'it is because' }],
    ['a message that is not there yet', { message: 'object.status.other' }, phase('Done'), { state: 'ready', message: '' }],
  ])('%s', (_name, expressions, object, expected) => {
    expect(judge(expressions, object)).toMatchObject({ kind: 'judged', ...expected });
  });

  it('that cannot be used say which expression and where', () => {
    expect(judge({ failed: 'object.' }, {})).toMatchObject({
      kind: 'invalid',
      message: expect.stringMatching(/^failed: .*column 8/),
    });
    expect(judge({ message: 'true' }, {})).toMatchObject({
      kind: 'invalid',
      message: expect.stringMatching(/^message: .*not string/),
    });
    expect(judge({ current: 'object.status.phase' }, phase('hunter2'))).toEqual({
      kind: 'invalid',
      message: 'the result is not a bool (column 1 of the expression)',
    });
  });

  it('that take too long are killed after 50 ms, once, and the others go on', () => {
    const bomb = rule({ current: 'object.list.all(a, object.list.all(b, a == b || a > 0))' });
    const fine = rule({});
    const list = Array(5000).fill(1);
    const start = systemClock.monotonic();
    const questions = [bomb, fine, bomb, bomb, fine].map((each) => ({ rule: each, object: { ...phase('Done'), list } }));
    expect(judgeHealth(questions).map(({ kind }) => kind)).toEqual(['killed', 'judged', 'killed', 'killed', 'judged']);
    expect(systemClock.monotonic() - start).toBeLessThan(1000);
  });
});
