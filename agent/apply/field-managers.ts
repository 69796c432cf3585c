import type { Marks } from '#lib/object-marks.ts';
import { ConflictPolicy } from '#proto/brokkr/v1/content_pb.js';
import type { ManagedFieldsEntry } from '../kube/objects.ts';
import { MANAGER_PREFIX } from '../stack-identity.ts';

/** The part of an entry of `managedFields` that says who wrote. */
export type Writer = Pick<ManagedFieldsEntry, 'manager' | 'subresource'>;

/**
 * Who a field manager is, as far as it matters for its fields. `self`: somebody who wrote under the name of this stack; `stack`: another stack; `initial`: nobody, the server's name for what was there before the first apply; `applier`: a tool people apply
 * whole objects with; `engine`: a controller that applies whole objects for somebody; `person`: an edit by hand; `scaler`: a controller
 * that scales; `controller`: any other.
 */
export type ManagerKind = 'self' | 'stack' | 'initial' | 'applier' | 'engine' | 'person' | 'scaler' | 'controller';

/** Names as kubectl, Helm and others write them; kubectl's own apply is `kubectl` (server-side) or `kubectl-client-side-apply`. */
const APPLIERS = new Set([
  ...['kubectl', 'kubectl-client-side-apply', 'kubectl-last-applied', 'kubectl-create', 'kubectl-replace', 'kubectl-run'],
  ...['helm', 'Helm', 'Terraform', 'Pulumi', 'kapp'],
]);
const ENGINE = /^(argocd|argo-cd|kustomize-controller|helm-controller|flux|fleetagent|rancher-fleet)/;
/** `kubectl-rollout` is left out: what it writes restarts pods when it comes, and again when it goes. */
const PERSON = /^(kubectl-(?!rollout)|Mozilla|k9s|dashboard)/;

/** Tells who a manager is, for the stack that applies as `fieldManager`. */
export function managerKind({ manager = '', subresource = '' }: Writer, fieldManager: string): ManagerKind {
  if (manager === fieldManager) return 'self';
  if (manager.startsWith(MANAGER_PREFIX)) return 'stack';
  if (manager === 'before-first-apply') return 'initial';
  if (subresource === 'scale') return manager.startsWith('kubectl') ? 'person' : 'scaler';
  if (subresource !== '') return 'controller';
  if (APPLIERS.has(manager)) return 'applier';
  if (ENGINE.test(manager)) return 'engine';
  return PERSON.test(manager) ? 'person' : 'controller';
}

/** Where a conflict is decided. */
export interface ConflictRules {
  readonly fieldManager: string;
  /** The policy of the object: its mark, else the stack's. */
  readonly policy: ConflictPolicy;
  readonly yieldManagers: readonly string[];
  /** The object carries the label of another stack; without it a stack's fields are what it left behind. */
  readonly claimed: boolean;
  /** The object is not ours yet. */
  readonly adopting: boolean;
}

/**
 * What to do about fields of a manager that we want. `refuse`: leave the whole object alone, it is another stack's; `fail`: the same,
 * because the policy says so; `take`: take over all that it owns; `force`: take the fields; `yield`: leave the fields to it.
 */
export type Decision = 'refuse' | 'fail' | 'take' | 'force' | 'yield';

/** Decides one conflict. */
export function decide(writer: Writer, rules: ConflictRules): Decision {
  const kind = managerKind(writer, rules.fieldManager);
  const lets = rules.yieldManagers.some((name) => fits(name, writer.manager ?? ''));
  const ruled = BY_POLICY[rules.policy];
  switch (kind) {
    case 'stack':
      return rules.claimed ? 'refuse' : 'take';
    case 'self':
    case 'initial':
      return 'force';
    case 'scaler':
      return lets || rules.policy !== ConflictPolicy.FORCE ? 'yield' : 'force';
    case 'applier':
      return lets ? 'yield' : 'take';
    case 'person':
      if (lets) return 'yield';
      return rules.adopting ? 'take' : 'force'; // on an object that is ours, what else people added stays
    case 'engine':
      if (lets) return 'yield';
      return ruled === 'force' ? 'take' : ruled;
    case 'controller':
      return lets ? 'yield' : ruled;
  }
}

const BY_POLICY: Readonly<Record<ConflictPolicy, 'force' | 'yield' | 'fail'>> = {
  [ConflictPolicy.UNSPECIFIED]: 'force',
  [ConflictPolicy.FORCE]: 'force',
  [ConflictPolicy.YIELD]: 'yield',
  [ConflictPolicy.FAIL]: 'fail',
};

/** The policy of an object. */
export function conflictPolicy(marks: Marks, policy: ConflictPolicy): ConflictPolicy {
  return marks.conflicts === undefined ? policy : MARKED[marks.conflicts];
}

const MARKED = { force: ConflictPolicy.FORCE, yield: ConflictPolicy.YIELD, fail: ConflictPolicy.FAIL } as const;

function fits(pattern: string, name: string): boolean {
  return pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}
