import { BrokkrError } from '#lib/errors.ts';
import { healthRuleProblem } from '#lib/health-rules.ts';
import type { ApplyOptions } from '#proto/brokkr/v1/content_pb.js';

/** Impersonated service accounts are named `namespace/name`. */
const SERVICE_ACCOUNT = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?\/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$/;

/**
 * What the field rules of the contract cannot say about options of a request. Throws `invalid_stack` with the place of the first mistake.
 */
export function assertOptions(options: ApplyOptions | undefined): void {
  const [problem] = options ? problemsOf(options) : [];
  if (!problem) return;
  const [field, message] = problem;
  throw new BrokkrError('invalid_stack', `options.${field} ${message}`, { details: { field: `options.${field}` } });
}

type Problem = readonly [field: string, message: string];

function* problemsOf({ impersonate, yieldManagers, driftRules, ignore, healthRules }: ApplyOptions): Generator<Problem> {
  if (impersonate !== '' && !SERVICE_ACCOUNT.test(impersonate))
    yield ['impersonate', 'is not a service account written as namespace/name'];
  for (const [index, manager] of yieldManagers.entries()) {
    if (manager.slice(0, -1).includes('*')) yield [`yield_managers[${index}]`, 'has a * that is not at its end'];
  }
  for (const [name, rules] of Object.entries({ drift_rules: driftRules, ignore })) {
    for (const [index, { group, kind }] of rules.entries()) {
      if (kind === '' && group !== '') yield [`${name}[${index}]`, `names the group ${group} without a kind`];
    }
  }
  const kinds = new Set<string>();
  for (const [index, rule] of healthRules.entries()) {
    const name = rule.group === '' ? rule.kind : `${rule.kind}.${rule.group}`;
    if (kinds.has(name)) yield [`health_rules[${index}]`, `is the second one for ${name}`];
    kinds.add(name);
    const problem = healthRuleProblem(rule);
    if (problem !== undefined) yield [`health_rules[${index}]`, `cannot be used: ${problem}`];
  }
}
