import { expect, it } from 'vitest';
import { withEncodedData } from './secret-data.ts';

const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 's' } };

it('writes the stringData of a Secret as data, over keys of the same name', () => {
  const object = { ...secret, data: { kept: 'eA==', token: 'eA==' }, stringData: { token: 'grün', empty: '' } };
  expect(withEncodedData(object)).toEqual({ ...secret, data: { kept: 'eA==', token: 'Z3LDvG4=', empty: '' } });
});

it.each([
  ['another kind', { ...secret, kind: 'ConfigMap', stringData: { a: 'b' } }],
  ['a Secret of another group', { ...secret, apiVersion: 'example.org/v1', stringData: { a: 'b' } }],
  ['a value that is no text', { ...secret, stringData: { a: 1 } }],
  ['no stringData', { ...secret, data: { a: 'eA==' } }],
])('leaves %s alone', (_, object) => {
  expect(withEncodedData(object)).toBe(object);
});
