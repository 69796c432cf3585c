import type { HealthQuestion, HealthVerdict } from './health-rules.ts';
import type { RulesFile } from './rules-file.ts';
import { type PublishInput, type PublishResult, publish as publishText } from './yaml-content.ts';
import { type Change, type DiffInput, diff as diffObjects } from './yaml-diff.ts';
import { type PrepareInput, type PrepareResult, prepare as prepareObjects } from './yaml-prepare.ts';

/** Runs `publish` in a thread of the pool, which calls it by name. */
export function publish(input: PublishInput): PublishResult {
  return publishText(input);
}

/** Runs `prepare` in a thread of the pool. CEL is loaded by threads that need it. */
export async function prepare(input: PrepareInput): Promise<PrepareResult> {
  if (!input.local) return prepareObjects(input);
  const { checkRules } = await import('./rules.ts');
  return prepareObjects(input, checkRules);
}

/** Runs `readRules` in a thread of the pool. */
export async function rules(text: string): Promise<RulesFile> {
  const { readRules } = await import('./rules-file.ts');
  return readRules(text);
}

/** Runs `judgeHealth` in a thread of the pool. */
export async function health(questions: readonly HealthQuestion[]): Promise<HealthVerdict[]> {
  const { judgeHealth } = await import('./health-rules.ts');
  return judgeHealth(questions);
}

/** Runs `diff` in a thread of the pool. */
export function diff(input: DiffInput): Change[] {
  return diffObjects(input);
}
