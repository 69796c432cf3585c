import { type PublishInput, type PublishResult, publish as publishText } from './yaml-content.ts';
import { type Change, type DiffInput, diff as diffObjects } from './yaml-diff.ts';
import { type PrepareInput, type PrepareResult, prepare as prepareObjects } from './yaml-prepare.ts';

/** Runs `publish` in a thread of the pool, which calls it by name. */
export function publish(input: PublishInput): PublishResult {
  return publishText(input);
}

/** Runs `prepare` in a thread of the pool. */
export function prepare(input: PrepareInput): PrepareResult {
  return prepareObjects(input);
}

/** Runs `diff` in a thread of the pool. */
export function diff(input: DiffInput): Change[] {
  return diffObjects(input);
}
