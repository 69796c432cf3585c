import { describe, expect, it } from 'vitest';
import { systemClock } from './clock.ts';
import { DEFAULT_LIMITS, HARD_LIMITS, parseStream } from './yaml.ts';

const values = (text: string) => parseStream(text).documents.map(({ value }) => value);

describe('documents of a text', () => {
  it('are what stands between lines of ---, as received', () => {
    const { documents, problems } = parseStream('# top\na: 1\n--- # comment\nb: 2 # two\n');
    expect(problems).toEqual([]);
    expect(documents.map(({ text }) => text)).toEqual(['# top\na: 1\n', 'b: 2 # two\n']);
  });

  it('are numbered without the empty ones', () => {
    const { documents } = parseStream('---\n# nothing\n---\n\n---\na: 1\n---\n~\n---\nb: 2\n---');
    expect(documents.map(({ index, line, value }) => ({ index, line, value }))).toEqual([
      { index: 1, line: 6, value: { a: 1 } },
      { index: 3, line: 10, value: { b: 2 } },
    ]);
  });

  it('may have a byte order mark and CRLF line ends', () => {
    expect(values('\ufeff---\r\na: 1\r\n---\r\nb: |\r\n  x\r\n')).toEqual([{ a: 1 }, { b: 'x\n' }]);
  });

  it('are not cut at --- inside of a line or an indented text', () => {
    expect(values('a: |\n  ---\n  x\nb: ---\n---x: 1\n')).toEqual([{ a: '---\nx\n', b: '---', '---x': 1 }]);
  });

  it('share no object, so that one place can be changed alone', () => {
    const [value] = values('a: &x {b: [1]}\nc: *x\n') as { a: object; c: object }[];
    expect(value?.a).toEqual(value?.c);
    expect(value?.a).not.toBe(value?.c);
  });

  it('may be JSON indented by tabs', () => {
    expect(values('{\n\t"a": [1, 2.5],\n\t"b": null\n}\n')).toEqual([{ a: [1, 2.5], b: null }]);
  });
});

describe('refusals', () => {
  const nested = (depth: number) => `${'['.repeat(depth)}1${']'.repeat(depth)}`;
  it.each([
    ['a: 1\nb: [', 'yaml_syntax', 2],
    ['a: 1\n\tb: 2', 'yaml_syntax', 2],
    ['a:\n  b: 1\n\tc: 2', 'yaml_syntax', 3],
    ['x: 1\na: 1\na: 2', 'duplicate_key', 3],
    ['y: 1\ntrue: 2', 'duplicate_key', 2],
    ['a: .inf', 'non_finite_number', 1],
    ['a: [1, .nan]', 'non_finite_number', 1],
    ['a: !!timestamp 2024-01-01', 'unknown_tag', 1],
    ['a: !secret x', 'unknown_tag', 1],
    ['a: !!set {b}', 'unknown_tag', 1],
    ['a: !!int 1.5', 'invalid_tag_value', 1],
    ['a: !!binary "?"', 'invalid_tag_value', 1],
    ['a: 1\n__proto__: {b: 1}', 'reserved_key', 2],
    ['[a]: 1', 'invalid_key', 1],
    ['~: 1', 'invalid_key', 1],
    ['a: &x [*x]', 'recursive_alias', 1],
    ['a: *x', 'unknown_alias', 1],
    ['a:\n  <<: 5', 'invalid_merge', 2],
    [`a: ${nested(64)}`, 'too_deep', 1],
    [`a: ${nested(500)}`, 'too_deep', 1],
    ['a: 1\n...\nb: 2', 'several_documents', 1],
    ['a: 1\n--- b: 2', 'document_separator', 2],
    ['a: \ud800', 'invalid_unicode', undefined],
  ])('refuses %j as %s', (text, rule, line) => {
    const errors = parseStream(text).problems.filter(({ severity }) => severity === 'error');
    expect(errors.map((error) => [error.rule, error.line])).toEqual([[rule, line]]);
  });

  it('says where in the whole text', () => {
    const { problems } = parseStream('a: 1\n---\nb: 1\nc:\n  d: 1\n  d: 2\n');
    expect(problems).toMatchObject([{ document: 2, line: 6, column: 3, rule: 'duplicate_key' }]);
  });

  it('reports the problems of all documents together', () => {
    const { problems, documents } = parseStream('a: [\n---\nb: 1\n---\nc: 1\nc: 2\nd: .inf\n');
    expect(problems.map(({ document, rule }) => `${document} ${rule}`)).toEqual([
      '1 yaml_syntax',
      '3 duplicate_key',
      '3 non_finite_number',
    ]);
    expect(documents.filter(({ ok }) => ok)).toHaveLength(1);
  });

  it('never quotes the text', () => {
    const secrets = [
      'a: *hunter2',
      'a: !hunter2 x',
      'a: !hunter2!x y',
      'a: "\\hunter2"',
      'a: !<hunter2^> b',
      'hunter2: 1\nhunter2: 2',
    ];
    for (const text of secrets) {
      const { problems } = parseStream(text);
      expect(problems).not.toEqual([]);
      expect(JSON.stringify(problems)).not.toContain('hunter2');
    }
  });

  it('accepts 64 levels', () => {
    expect(parseStream(nested(64)).problems).toEqual([]);
  });

  it('shows at most 100 problems, errors first, and a summary', () => {
    const warnings = Array.from({ length: 200 }, (_, index) => `k${index}: yes`).join('\n');
    const { problems } = parseStream(`${warnings}\nz: 1\nz: 2\n`);
    expect(problems).toHaveLength(101);
    expect(problems[0]).toMatchObject({ rule: 'duplicate_key', severity: 'error' });
    expect(problems[100]).toMatchObject({
      rule: 'too_many_problems',
      message: '101 more problems are not shown (the limit is 100)',
    });
  });
});

describe('limits', () => {
  const elapsed = (work: () => void) => {
    const start = systemClock.monotonic();
    work();
    return systemClock.monotonic() - start;
  };

  it('refuses more documents than asked for, and never more than 10,000, before parsing them', () => {
    const text = 'a: 1\n---\n'.repeat(10_001);
    const rules = (documents: number) => parseStream(text, { limits: { ...HARD_LIMITS, documents } }).problems;
    const ms = elapsed(() => {
      expect(rules(20_000)).toMatchObject([
        { rule: 'too_many_documents', message: 'the text has 10001 documents, the limit is 10000' },
      ]);
      expect(parseStream(text).problems).toMatchObject([{ message: 'the text has 10001 documents, the limit is 5000' }]);
    });
    expect(ms).toBeLessThan(1000);
  });

  it('refuses a text that is too large before reading it', () => {
    const limits = { ...DEFAULT_LIMITS, textBytes: 10 };
    expect(parseStream('a: "ééé"', { limits }).problems).toMatchObject([
      { rule: 'text_too_large', message: 'the text has 11 bytes, the limit is 10' },
    ]);
  });

  it('refuses an alias bomb at once', () => {
    const levels = Array.from(
      { length: 9 },
      (_, level) => `l${level + 1}: &l${level + 1} [${Array(9).fill(`*l${level}`).join(',')}]`,
    );
    const text = `l0: &l0 [x,x,x,x,x,x,x,x,x]\n${levels.join('\n')}\n`;
    const ms = elapsed(() => {
      expect(parseStream(text).problems).toMatchObject([{ rule: 'alias_expansion', line: 3 }]);
    });
    expect(ms).toBeLessThan(1000);
  });

  it('refuses aliases that add more than 1,000 nodes or make a document ten times larger', () => {
    const list = (length: number) => `[${Array(length).fill('1').join(',')}]`;
    expect(parseStream(`a: &a ${list(400)}\nb: [*a, *a]\n`).problems).toEqual([]);
    expect(parseStream(`a: &a ${list(400)}\nb: [*a, *a, *a]\n`).problems).toMatchObject([{ rule: 'alias_expansion' }]);
    expect(parseStream(`a: &a ${list(30)}\nb: [${Array(30).fill('*a').join(',')}]\n`).problems).toMatchObject([
      { rule: 'alias_expansion' },
    ]);
  });
});
