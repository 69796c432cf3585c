import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readRules } from './rules-file.ts';

describe('a rules file', () => {
  it('is read as in the example', () => {
    const text = readFileSync(new URL('../examples/rules/environment.yaml', import.meta.url), 'utf8');
    const { rules, problems } = readRules(text);
    expect(problems).toEqual([]);
    expect(rules).toMatchObject({ ceilings: { replicas: 20 }, expressions: [{ name: 'no-host-network' }, {}] });
  });

  it.each([
    ['', 'the file has no rules'],
    ['[', /^line 1, column \d+: /],
    ['kinds: {forbidden: [A]}\nkinds: {}\n', /^line 2, column 1: .*already/],
    ['- a\n', 'line 1, column 1: must be object'],
    ['kinds:\n  forbiden: [A]\n', 'line 2, column 3: /kinds/forbiden is unknown'],
    ['kinds:\n  allowed: []\n', 'line 2, column 3: /kinds/allowed must NOT have fewer than 1 items'],
    ['namespaces: {allowed: [shop, 7]}\n', 'line 1, column 30: /namespaces/allowed/1 must be string'],
    ['ceilings:\n  limits:\n    cpu: 4 cores\n', /^line 3, column 5: \/ceilings\/limits\/cpu must match format "quantity"/],
    ['ceilings: {replicas: many}\n', 'line 1, column 12: /ceilings/replicas must be integer'],
    ['labels:\n  - kinds: [A]\n', "line 2, column 5: /labels/0 must have required property 'required'"],
    [
      'expressions:\n  - {name: a, message: m,\n     expression: object.x ==}\n',
      'line 3, column 6: /expressions/0/expression is invalid: unexpected token: EOF (column 12 of the expression)',
    ],
    [
      'expressions:\n  - {name: a, message: m, expression: "true"}\n  - {name: a, message: m, expression: "true"}\n',
      'line 3, column 6: /expressions/1/name is the name of two expressions',
    ],
    ['kinds: {}\n---\nimages: {}\n', 'the text has 2 documents, the limit is 1'],
  ])('%j is refused with the place', (text, problem) => {
    const { rules, problems } = readRules(text);
    expect(problems).toEqual([typeof problem === 'string' ? problem : expect.stringMatching(problem)]);
    expect(rules).toEqual({});
  });

  it('is refused with everything wrong in it', () => {
    expect(readRules('kinds: 1\nimages: {}\nceilings: {storage: x}\n').problems).toEqual([
      'line 1, column 1: /kinds must be object',
      'line 3, column 12: /ceilings/storage must match format "quantity"',
      "line 2, column 1: /images must have required property 'allowed'",
    ]);
  });
});
