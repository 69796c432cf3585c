import { describe, expect, it } from 'vitest';
import { ConflictPolicy } from '#proto/brokkr/v1/content_pb.js';
import { conflictPolicy, type Decision, decide, type Writer } from './field-managers.ts';

const OURS = 'brokkr/0123456789ab';
const { UNSPECIFIED, FORCE, YIELD, FAIL } = ConflictPolicy;

/** What is decided about a manager on an object that is ours, by policy: none, force, yield, fail. */
const TABLE: readonly [Writer, Decision, Decision, Decision, Decision][] = [
  [{ manager: 'brokkr/ffffffffffff' }, 'refuse', 'refuse', 'refuse', 'refuse'],
  [{ manager: OURS }, 'force', 'force', 'force', 'force'],
  [{ manager: 'before-first-apply' }, 'force', 'force', 'force', 'force'],
  [{ manager: 'kubectl' }, 'take', 'take', 'take', 'take'],
  [{ manager: 'kubectl-client-side-apply' }, 'take', 'take', 'take', 'take'],
  [{ manager: 'Helm' }, 'take', 'take', 'take', 'take'],
  [{ manager: 'argocd-controller' }, 'take', 'take', 'yield', 'fail'],
  [{ manager: 'kustomize-controller' }, 'take', 'take', 'yield', 'fail'],
  [{ manager: 'kubectl-edit' }, 'force', 'force', 'force', 'force'],
  [{ manager: 'Mozilla' }, 'force', 'force', 'force', 'force'],
  [{ manager: 'kubectl', subresource: 'scale' }, 'force', 'force', 'force', 'force'],
  [{ manager: 'horizontal-pod-autoscaler', subresource: 'scale' }, 'yield', 'force', 'yield', 'yield'],
  [{ manager: 'cert-manager' }, 'force', 'force', 'yield', 'fail'],
  [{ manager: 'kubectl-rollout' }, 'force', 'force', 'yield', 'fail'],
  [{ manager: 'keda-operator' }, 'yield', 'yield', 'yield', 'yield'],
];

describe('a conflict', () => {
  it.each(TABLE)('with %o is decided by whose it is and by policy', (writer, ...expected) => {
    const rules = { fieldManager: OURS, yieldManagers: ['keda-*', 'other'], claimed: true, adopting: false };
    const decided = [UNSPECIFIED, FORCE, YIELD, FAIL].map((policy) => decide(writer, { ...rules, policy }));
    expect(decided).toEqual(expected);
  });

  it('with an edit by hand is a takeover when the object is not ours yet', () => {
    const rules = { fieldManager: OURS, yieldManagers: [], claimed: true, adopting: true, policy: FORCE };
    expect(decide({ manager: 'kubectl-edit' }, rules)).toBe('take');
    expect(decide({ manager: 'kubectl-rollout' }, rules)).toBe('force');
  });

  it('is left to a manager that is to be yielded to, but for another stack', () => {
    const rules = {
      fieldManager: OURS,
      yieldManagers: ['brokkr/*', 'kubectl', 'hpa'],
      claimed: true,
      adopting: true,
      policy: FORCE,
    };
    expect(decide({ manager: 'kubectl' }, rules)).toBe('yield');
    expect(decide({ manager: 'hpa', subresource: 'scale' }, rules)).toBe('yield');
    expect(decide({ manager: 'brokkr/ffffffffffff' }, rules)).toBe('refuse');
    expect(decide({ manager: 'brokkr/ffffffffffff' }, { ...rules, claimed: false })).toBe('take');
  });

  it('follows the mark of the object before the policy of the stack', () => {
    expect(conflictPolicy({}, FAIL)).toBe(FAIL);
    expect(conflictPolicy({ conflicts: 'yield' }, FAIL)).toBe(YIELD);
  });
});
