import { describe, expect, it } from 'vitest';
import type { Value, ValueObject } from '#lib/object.ts';
import { difference, type FieldPath, type FieldSet, paths, pathText, removeAt, union } from './managed-fields.ts';

/** A set of random paths over a small alphabet, so that they meet; the same for the same seed. */
function randomSet(seed: number): FieldSet {
  let state = seed * 2_654_435_761 + 1;
  const next = (below: number) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((state / 2_147_483_648) * below);
  };
  let set: FieldSet = {};
  for (let count = next(8); count > 0; count--) {
    const path = Array.from({ length: 1 + next(4) }, () => `f:${'abc'[next(3)]}`);
    set = union(set, setOf(path));
  }
  return set;
}

const setOf = (path: FieldPath): FieldSet => path.reduceRight<FieldSet>((inner, element) => ({ [element]: inner }), {});
const members = (set: FieldSet) => new Set([...paths(set)].map(pathText));
const SEEDS = Array.from({ length: 300 }, (_, seed) => [seed, seed + 1000] as const);

describe('sets of fields', () => {
  it('have the members of both in their union, whatever the order', () => {
    for (const [left, right] of SEEDS) {
      const [a, b] = [randomSet(left), randomSet(right)];
      expect(members(union(a, b)), `seeds ${left} and ${right}`).toEqual(members(a).union(members(b)));
      expect(members(union(b, a)), `seeds ${left} and ${right}`).toEqual(members(union(a, b)));
    }
  });

  it('have in their difference what only the first has', () => {
    for (const [left, right] of SEEDS) {
      const [a, b] = [randomSet(left), randomSet(right)];
      expect(members(difference(a, b)), `seeds ${left} and ${right}`).toEqual(members(a).difference(members(b)));
      expect(members(union(difference(a, b), b)), `seeds ${left} and ${right}`).toEqual(members(union(a, b)));
    }
  });
});

const WEB = 'k:{"name":"web"}';
const PORT = 'k:{"containerPort":80,"protocol":"TCP"}';
const pod = (): ValueObject => ({
  metadata: { labels: { 'example.org/a': 'x', b: 'y' }, finalizers: ['one', 'two'] },
  spec: {
    containers: [
      { name: 'first', image: 'i' },
      { name: 'web', image: 'j', ports: [{ containerPort: 80, name: 'http' }, { containerPort: 81 }], args: ['-v'] },
    ],
  },
});

describe('paths', () => {
  it.each<[FieldPath, string]>([
    [['f:spec', 'f:template', 'f:spec', 'f:containers', WEB, 'f:image'], '.spec.template.spec.containers[name="web"].image'],
    [['f:metadata', 'f:labels', 'f:example.org/a'], '.metadata.labels.example.org/a'],
    [['f:spec', 'f:ports', PORT], '.spec.ports[containerPort=80,protocol="TCP"]'],
    [['f:metadata', 'f:finalizers', 'v:"one"'], '.metadata.finalizers[="one"]'],
    [['f:x', 'i:2'], '.x[2]'],
  ])('%j reads as the server writes it', (path, text) => expect(pathText(path)).toBe(text));

  it.each<[string, FieldPath, (object: ValueObject) => unknown]>([
    ['a field', ['f:metadata', 'f:labels', 'f:b'], (o) => delete at(o, 'metadata', 'labels').b],
    ['a field of an item', ['f:spec', 'f:containers', WEB, 'f:image'], (o) => delete at(o, 'spec', 'containers', '1').image],
    ['an item whose key has a default', ['f:spec', 'f:containers', WEB, 'f:ports', PORT], (o) => ports(o).shift()],
    ['an item of a set', ['f:metadata', 'f:finalizers', 'v:"one"'], (o) => (at(o, 'metadata').finalizers as Value[]).shift()],
    ['nothing when it is not there', ['f:spec', 'f:containers', 'k:{"name":"no"}', 'f:image'], () => undefined],
  ])('take out %s', (_, path, byHand) => {
    const [taken, expected] = [pod(), pod()];
    removeAt(taken, path);
    byHand(expected);
    expect(taken).toEqual(expected);
  });
});

const at = (object: ValueObject, ...keys: string[]) =>
  keys.reduce<ValueObject>((inner, key) => inner[key] as ValueObject, object);
const ports = (object: ValueObject) => at(object, 'spec', 'containers', '1').ports as Value[];
