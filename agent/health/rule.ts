import type { HealthExpressions } from '#lib/health-rules.ts';
import type { HealthRule } from '#proto/brokkr/v1/content_pb.js';

/** The rule of a stack for a kind. Secrets have none: they are never read as a whole. */
export function ruleFor(rules: readonly HealthRule[] | undefined, group: string, kind: string): HealthRule | undefined {
  if (group === '' && kind === 'Secret') return undefined;
  return rules?.find((rule) => rule.group === group && rule.kind === kind);
}

/** What tells one rule from another. */
export function ruleText({ current, progressing, failed, message }: HealthExpressions): string {
  return JSON.stringify([current, progressing, failed, message]);
}
