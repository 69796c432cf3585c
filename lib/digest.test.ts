import { describe, expect, it } from 'vitest';
import { entryDigest, manifestDigest, RootDigest, tombstoneDigest } from './digest.ts';
import {
  canonicalJson,
  compareEntries,
  compareUtf8,
  isMapping,
  type ManifestEntry,
  objectDigest,
  sourceDigest,
  type Value,
} from './object.ts';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const STACK = '0198b5a0-0000-7000-8000-000000000001';
const OTHER = '0198b5a0-0000-7000-8000-000000000002';
const ENTRY: ManifestEntry = {
  group: 'apps',
  version: 'v1',
  kind: 'Deployment',
  namespace: 'shop',
  name: 'web',
  objectDigest: 'aa'.repeat(32),
  sourceDigest: 'bb'.repeat(32),
  size: 321,
  wave: -1,
  item: 0,
};

describe('canonical JSON', () => {
  it('sorts keys by UTF-16 unit and keeps long integers exactly', () => {
    const value = { b: [1, 2.5, null, true], a: 9007199254740993n, '\u{1f600}': 1, '\uffff': 'é"\n' };
    expect(canonicalJson(value)).toBe('{"a":9007199254740993,"b":[1,2.5,null,true],"\u{1f600}":1,"\uffff":"é\\"\\n"}');
  });
});

describe('object digests', () => {
  /** The same value with the keys of every mapping in another order. */
  const reordered = (value: Value, turn: number): Value => {
    if (Array.isArray(value)) return value.map((item) => reordered(item, turn));
    if (!isMapping(value)) return value;
    const keys = Object.keys(value).map((key, index) => ({ key, rank: (index * 7919 + turn * 104_729) % 31 }));
    return Object.fromEntries(keys.sort((a, b) => a.rank - b.rank).map(({ key }) => [key, reordered(value[key] ?? null, turn)]));
  };

  it('do not depend on the order of keys', () => {
    const leaf = (depth: number): Value =>
      depth === 0 ? 'x' : { b: leaf(depth - 1), a: [leaf(depth - 1), 1], é: 1n, 'a b': null, A: 2.5 };
    const value = leaf(4);
    const salt = new Uint8Array(16);
    const digests = Array.from({ length: 31 }, (_, turn) => objectDigest(salt, canonicalJson(reordered(value, turn))));
    expect(new Set(digests).size).toBe(1);
  });
});

describe('order of a manifest', () => {
  it('compares UTF-8 bytes, not UTF-16 units', () => {
    const words = ['\u{1f600}', '\uffff', 'b', 'a', '', 'ab', 'é'];
    const bytes = [...words].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    expect(words.sort(compareUtf8)).toEqual(bytes);
  });

  it('is group, kind, namespace, name, version', () => {
    const key = (text: string) => {
      const [group = '', kind = '', namespace = '', name = '', version = ''] = text.split(' ');
      return { group, kind, namespace, name, version };
    };
    const sorted = ['apps A a a v1', 'apps A a a v2', 'apps A a b v1', 'apps A b a v1', 'apps B a a v1', 'batch A a a v1'];
    const shuffled = [3, 0, 5, 1, 4, 2].map((index) => key(sorted[index] ?? ''));
    expect(shuffled.sort(compareEntries)).toEqual(sorted.map(key));
  });
});

/** Fixed vectors: another implementation of the protocol must compute the same. They were computed with another language. */
describe('golden digests', () => {
  it('of objects and sources', () => {
    expect(sourceDigest('a: 1\n')).toBe('37b128c59f1f5097f73f82691cb519f1f568667faab5ced1b4ab979d36837eae');
    expect(objectDigest(Buffer.from('00112233445566778899aabbccddeeff', 'hex'), '{"a":1}')).toBe(
      '4fd2d68985127b4b699c6f3151749545f6d68b6f543f3ac385abd6eacefdbf99',
    );
  });

  it('of manifests', () => {
    expect(hex(manifestDigest([]))).toBe('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
    expect(hex(manifestDigest([ENTRY, { ...ENTRY, name: 'web2', item: 3 }]))).toBe(
      'aa07fc8347acba3e56d84d6065acd34ddb43833e65e1837179dd8122cdeed12f',
    );
    expect(hex(manifestDigest({ opaqueSourceDigest: 'cc'.repeat(32), size: 7 }))).toBe(
      '3b11a378cbfcd4f303600e35750e0cee3655c508be4d817a9b06779f2950d6e2',
    );
  });

  it('of entries, tombstones and the root', () => {
    const entry = entryDigest(STACK, 7n, new Uint8Array(32).fill(1), new Uint8Array(32).fill(2));
    const tombstone = tombstoneDigest(OTHER, 8n, 'orphan');
    expect(hex(entry)).toBe('d0fc669f67e44992fc8d399e7c104975176bbfcf6e8be3eb235906e0936e1a9e');
    expect(hex(tombstone)).toBe('0f236d8dfd85b75b3a2640221675b03a0848ed2915795b16a1f4eb8f1df8d1b1');
    const root = new RootDigest();
    expect(hex(root.root())).toBe('9f1dcbc35c350d6027f98be0f5c8b43b42ca52b7604459c0c42be3aa88913d47');
    root.set(STACK, entry);
    root.set(OTHER, tombstone);
    expect([root.bucket(STACK), root.bucket(OTHER)]).toEqual([76, 159]);
    expect(hex(root.root())).toBe('7afc143ed2b9364d47c544b0e079398c30708f15a1704242f5be685fc0ab2d85');
  });
});

describe('root digest', () => {
  const ids = Array.from({ length: 500 }, (_, index) => `0198b5a0-0000-7000-8000-${index.toString(16).padStart(12, '0')}`);
  const digest = (id: string, generation = 1n) => tombstoneDigest(id, generation, 'delete');

  it('does not depend on the order or the history of the entries', () => {
    const forth = new RootDigest();
    for (const id of ids) forth.set(id, digest(id));
    const back = new RootDigest();
    for (const id of ids.toReversed()) {
      back.set(id, digest(id, 5n));
      back.set(id, undefined);
      back.set(id.toUpperCase(), digest(id, 9n));
      back.set(id, digest(id));
    }
    expect(back.root()).toEqual(forth.root());
    expect(back.size).toBe(500);
  });

  it('changes with an entry, in its bucket only, and returns when the entry returns', () => {
    const root = new RootDigest();
    for (const id of ids) root.set(id, digest(id));
    const before = { root: root.root(), buckets: root.bucketDigests() };
    root.set(STACK, digest(STACK, 2n));
    const changed = [...Array(256).keys()].filter(
      (bucket) =>
        hex(root.bucketDigests().slice(bucket * 32, bucket * 32 + 32)) !==
        hex(before.buckets.slice(bucket * 32, bucket * 32 + 32)),
    );
    expect(changed).toEqual([root.bucket(STACK)]);
    expect(root.root()).not.toEqual(before.root);
    root.set(STACK, digest(STACK));
    expect(root.root()).toEqual(before.root);
  });

  it('lists the entries of a bucket', () => {
    const root = new RootDigest();
    root.set(STACK, digest(STACK));
    const entries = root.entries(root.bucket(STACK)).map((entry) => [entry.stackId, hex(entry.digest)]);
    expect(entries).toEqual([[STACK, hex(digest(STACK))]]);
    expect(root.entries((root.bucket(STACK) + 1) % 256)).toEqual([]);
    root.set(STACK, undefined);
    expect(root.entries(root.bucket(STACK))).toEqual([]);
    expect(root.size).toBe(0);
  });

  it('refuses what is no uuid', () => {
    expect(() => new RootDigest().set('stack', new Uint8Array(32))).toThrow('stack id is not a uuid');
  });
});
