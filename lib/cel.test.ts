import { describe, expect, it } from 'vitest';
import { celValue, compileCel } from './cel.ts';
import { systemClock } from './clock.ts';
import type { Value } from './object.ts';

const judge = (expression: string, object: Value) =>
  compileCel(expression, ['object'], 'bool').evaluate({ object: celValue(object) });

describe('an expression', () => {
  it.each<[string, Value]>([
    ['object.spec.replicas * 2 == 10', { spec: { replicas: 5 } }],
    ['object.ratio > 0.5 && object.ratio < 1', { ratio: 0.75 }],
    ['object.long == 9007199254740993', { long: 9007199254740993n }],
    ['has(object.a) && !has(object.b)', { a: null }],
    [
      'object.status.conditions.exists(c, c.type == "Ready" && c.status == "True")',
      { status: { conditions: [{ type: 'Ready', status: 'True' }] } },
    ],
    ['object.list.filter(x, x > 1).map(x, x * 2).all(x, x > 2)', { list: [1, 2, 3] }],
    ['object.image.matches("^registry\\\\.example\\\\.com/")', { image: 'registry.example.com/web' }],
    ['object.list.all(x, x.matches("^a+$"))', { list: ['a', 'aa'] }],
    ['"team" in object.labels', { labels: { team: 'x' } }],
  ])('%s holds', (expression, object) => {
    expect(judge(expression, object)).toBe(true);
  });

  it.each([
    [/unexpected token: EOF \(column 12 of/, 'object.a =='],
    [/unknown variable: thing \(column 18 of/, 'object.a == 1 && thing == 2'],
    [/the result is of type int, not bool/, '1 + 2'],
    [/no such overload: int \+ string/, '1 + "a" == 2'],
    [/RE2 does not know such a pattern \(column 16 of/, 'object.matches("(")'],
    [/RE2 does not know such a pattern/, 'object.matches("a(?=b)")'],
    [/loops are nested deeper than 2 \(column 29 of/, 'object.all(a, object.all(b, object.all(c, true)))'],
    [/bind is not available/, 'cel.bind(a, object, a == a)'],
    [/maxAstNodes \(500\)/, `object == ${'1+'.repeat(300)}1`],
    [/has 2060 bytes, the limit is 2048/, `object == "${'é'.repeat(1024)}"`],
  ])('is refused with its place: %s', (message, expression) => {
    expect(() => compileCel(expression, ['object'], 'bool')).toThrow(message);
  });

  it.each([
    ['object.b == 1', 'no such key (column 8 of the expression)', true],
    ['object.list[3] == 1', 'index out of bounds (column 1 of the expression)', true],
    ['object.text', 'the result is not a bool (column 1 of the expression)', false],
    ['int(object.text) == 1', 'int conversion error (column 1 of the expression)', false],
    ['"a".matches(object.text + "(")', 'RE2 does not know such a pattern (column 1 of the expression)', false],
  ])('%s fails without a word of the object', (expression, message, absent) => {
    const program = compileCel(expression, ['object'], 'bool');
    const object = celValue({ text: 'hunter2', list: [] });
    expect(() => program.evaluate({ object })).toThrow(expect.objectContaining({ message, absent }));
  });

  it('matches in time linear in the text, whatever the pattern', () => {
    const start = systemClock.monotonic();
    expect(judge('object.matches("^(a+)+$")', `${'a'.repeat(5000)}b`)).toBe(false);
    expect(systemClock.monotonic() - start).toBeLessThan(1000);
  });

  it('reaches nothing of JavaScript', () => {
    for (const name of ['constructor', '__proto__', 'toString']) expect(judge(`has(object.${name})`, { a: 1 })).toBe(false);
  });
});
