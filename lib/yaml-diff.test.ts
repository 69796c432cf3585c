import { describe, expect, it } from 'vitest';
import { diff } from './yaml-diff.ts';

const changes = (before: unknown, after: unknown, secret = false) =>
  diff({ before: JSON.stringify(before), after: JSON.stringify(after), secret });

describe('difference of two objects', () => {
  it('lists what was added, removed and changed', () => {
    expect(changes({ a: 1, b: { c: [1, 2] }, d: 1 }, { a: 2, b: { c: [1, 3, 4] }, e: null })).toEqual([
      { path: '/a', kind: 'changed', before: '1', after: '2' },
      { path: '/b/c/1', kind: 'changed', before: '2', after: '3' },
      { path: '/b/c/2', kind: 'added', after: '4' },
      { path: '/d', kind: 'removed', before: '1' },
      { path: '/e', kind: 'added', after: 'null' },
    ]);
  });

  it('matches items by their names', () => {
    const env = (...names: string[]) => ({ env: names.map((name) => ({ name, value: name })) });
    expect(changes(env('a', 'b'), env('b', 'a'))).toEqual([]);
    expect(changes(env('a', 'b'), env('c', 'b')).map(({ path, kind }) => `${kind} ${path}`)).toEqual([
      'removed /env/[name=a]',
      'added /env/[name=c]',
    ]);
  });

  it('sees changes of long integers', () => {
    const [change] = diff({ before: '{"a":9007199254740992}', after: '{"a":9007199254740993}', secret: false });
    expect(change).toMatchObject({ before: '9007199254740992', after: '9007199254740993' });
  });

  it('shows no values of a secret', () => {
    expect(changes({ data: { a: 'x' } }, { data: { a: 'y', b: 'z' } }, true)).toEqual([
      { path: '/data/a', kind: 'changed' },
      { path: '/data/b', kind: 'added' },
    ]);
  });

  it('is empty for the same object and bounded for large ones', () => {
    const many = Object.fromEntries(Array.from({ length: 500 }, (_, index) => [`k${index}`, index]));
    expect(changes(many, many)).toEqual([]);
    expect(changes({}, many)).toHaveLength(200);
  });
});
