import { describe, expect, it } from 'vitest';
import { compareQuantities, parseQuantity, type Quantity } from './quantity.ts';

describe('quantities', () => {
  it.each([
    ['1', '1000m'],
    ['0.1', '100m'],
    ['.5', '500m'],
    ['2.', '2'],
    ['1Ki', '1024'],
    ['1.5Gi', '1536Mi'],
    ['1e3', '1k'],
    ['12E', '12e18'],
    ['1E2', '100'],
    ['123456789012345678901234567890n', '123456789012345678901.23456789'],
    ['-1', '-1000m'],
    [0.25, '250m'],
    [2, '2'],
    [9007199254740993n, '9007199254740993'],
    [1e21, '1000E'],
  ])('%s is %s', (a, b) => {
    const [left, right] = [parseQuantity(a), parseQuantity(b)];
    expect(compareQuantities(left as Quantity, right as Quantity)).toBe(0);
  });

  it.each([
    ['999m', '1'],
    ['1G', '1Gi'],
    ['1Gi', '1073741825'],
    ['0.1', '0.10000000000000000000000000001'],
    ['-1', '0'],
  ])('%s is less than %s', (a, b) => {
    const [left, right] = [parseQuantity(a) as Quantity, parseQuantity(b) as Quantity];
    expect([compareQuantities(left, right), compareQuantities(right, left)]).toEqual([-1, 1]);
  });

  it.each(['', '.', 'm', '1 Gi', '1gi', '1KiB', '1e', '1e999', '0x1', 'one', '1,5', true, null, '1'.repeat(65)])(
    '%s is none',
    (value) => {
      expect(parseQuantity(value)).toBeUndefined();
    },
  );
});
