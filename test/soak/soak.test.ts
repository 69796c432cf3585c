import { randomInt } from 'node:crypto';
import { expect, it } from 'vitest';
import { Operator, type Step } from './operations.ts';
import { createRandom } from './random.ts';
import { soak } from './soak.ts';
import { unlike } from './verify.ts';

/** Set by `npm run soak`: decimal numbers. */
const { BROKKR_SOAK_SEED, BROKKR_SOAK_MINUTES = '2', BROKKR_SOAK_OPERATIONS = '1000000' } = process.env;
const seed = BROKKR_SOAK_SEED === undefined ? randomInt(1, 2 ** 32 - 1) : Number(BROKKR_SOAK_SEED);
const forMs = Number(BROKKR_SOAK_MINUTES) * 60_000;

it('a seed always gives the same steps', () => {
  const steps = (from: number): Step[] => {
    const operator = new Operator(createRandom(from));
    return [...Array.from({ length: 500 }, () => operator.next()), ...operator.rest()];
  };
  expect(steps(7)).toEqual(steps(7));
  expect(steps(7)).not.toEqual(steps(8));
});

it('the comparison sees what differs and nothing else', () => {
  const live = { data: { a: '1', b: '2' }, list: [{ x: 1, y: 2 }] };
  expect(unlike({ data: { a: '1' }, list: [{ x: 1 }] }, live, '')).toEqual([]);
  expect(unlike({ data: { c: '3' } }, live, '')).toEqual(['.data.c is missing, wanted "3"']);
  expect(unlike({ list: [] }, live, '')).toHaveLength(1);
});

it(`a random operator for ${BROKKR_SOAK_MINUTES} minutes, seed ${seed}: at the end the cluster is as it was asked to be`, {
  timeout: forMs + 10 * 60_000,
}, async () => {
  const operations = Number(BROKKR_SOAK_OPERATIONS);
  const progress = (line: string) => void (process.env.BROKKR_SOAK_SEED !== undefined && process.stderr.write(`${line}\n`));
  const result = await soak({ seed, forMs, operations, progress });
  const replay = `npm run soak -- --seed ${seed} --operations ${result.operations}`;
  process.stderr.write(
    `soak: seed ${seed}, ${result.operations} operations, quiet after ${(result.quietMs / 1000).toFixed(1)} s, ${result.problems.length} problems\n`,
  );
  expect(result.problems, `${result.story}\nthe same steps again: ${replay}`).toEqual([]);
});
