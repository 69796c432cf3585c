import type { Place } from '#flows/evaluate/cluster.ts';
import type { Evaluator } from '#flows/evaluate/evaluator.ts';
import type { Facts } from '#flows/model/model.ts';
import { addressLints } from './policy-addresses.ts';
import { createLintContext, type LintContext } from './policy-context.ts';
import { reachLints } from './policy-reach.ts';
import { writingLints } from './policy-writing.ts';

/** Ids of the lints over policies and the workloads around them. */
export const POLICY_LINTS = [
  ...(['OR-SPLIT', 'OPEN-SOURCE', 'HALF-OPEN', 'DNS-UDP-ONLY', 'DNS-MISSING', 'APISERVER-BY-PODS'] as const),
  ...(['APISERVER-CIDR-CILIUM', 'PRIVATE-LEAK', 'POD-CIDR-LEAK', 'BROAD-CIDR', 'DEAD-SELECTOR', 'NS-LABEL'] as const),
  ...(['NO-POLICYTYPES', 'SERVICE-PORT', 'WORKLOAD-WITHOUT-FLOW'] as const),
] as const;
export type PolicyLint = (typeof POLICY_LINTS)[number];

/** What a lint says about one rule, policy or workload. */
export interface PolicyFinding {
  readonly lint: PolicyLint;
  /** `NetworkPolicy shop/db ingress[0]`, `NetworkPolicy shop/db` or `shop/db`. */
  readonly subject: string;
  readonly place: Place;
  /** Lower case, no full stop. */
  readonly message: string;
  /** Why it is accepted; undefined when it is not. */
  readonly accepted: string | undefined;
}

/** A finding before it is known whether it is accepted. */
export type OpenFinding = Omit<PolicyFinding, 'accepted'>;

/** A lint that is accepted for what begins with `subject` (`NetworkPolicy shop/db`); '' is everything. */
export interface AcceptedLint {
  readonly lint: string;
  readonly subject: string;
  readonly reason: string;
}

/** One group of lints. */
export type LintGroup = (context: LintContext) => OpenFinding[];

/** What is suspicious in NetworkPolicies and in the cluster around them, in the order of `POLICY_LINTS`; what is accepted says why. */
export function lintPolicies(evaluator: Evaluator, facts: Facts, accepted: readonly AcceptedLint[]): PolicyFinding[] {
  const context = createLintContext(evaluator, facts);
  const found = [writingLints, addressLints, reachLints].flatMap((group: LintGroup) => group(context));
  return found
    .map((finding) => ({ ...finding, accepted: accepted.find((each) => isAbout(each, finding))?.reason }))
    .sort((a, b) => POLICY_LINTS.indexOf(a.lint) - POLICY_LINTS.indexOf(b.lint));
}

function isAbout({ lint, subject }: AcceptedLint, finding: OpenFinding): boolean {
  if (lint !== finding.lint) return false;
  return subject === '' || finding.subject === subject || finding.subject.startsWith(`${subject} `);
}
