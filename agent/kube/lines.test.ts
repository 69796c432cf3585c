import { describe, expect, it } from 'vitest';
import { createLineSplitter } from './lines.ts';

describe('createLineSplitter', () => {
  it('joins lines that come in pieces, wherever they are cut', () => {
    const bytes = Buffer.from('{"a":"ü€"}\n{"b":2}\n\n{"c":3}\n');
    for (let size = 1; size <= bytes.length; size += 1) {
      const split = createLineSplitter();
      const lines: string[] = [];
      for (let at = 0; at < bytes.length; at += size) lines.push(...split(bytes.subarray(at, at + size)));
      expect(lines).toEqual(['{"a":"ü€"}', '{"b":2}', '{"c":3}']);
    }
  });

  it('keeps back a line whose end has not come', () => {
    const split = createLineSplitter();
    expect(split(Buffer.from('{"a":1}\n{"b"'))).toEqual(['{"a":1}']);
    expect(split(Buffer.from(':2}'))).toEqual([]);
    expect(split(Buffer.from('\n'))).toEqual(['{"b":2}']);
  });

  it('refuses a line longer than the limit, counted over all pieces', () => {
    const split = createLineSplitter(10);
    expect(split(Buffer.from('0123456789\n'))).toEqual(['0123456789']);
    split(Buffer.from('01234567'));
    expect(() => split(Buffer.from('890'))).toThrow('line longer than 10 bytes');
  });
});
