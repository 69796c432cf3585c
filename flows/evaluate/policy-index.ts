import type { Direction } from '#flows/model/model.ts';
import { type AddressSet, addressesOf } from '#flows/sets/addresses.ts';
import { union } from '#flows/sets/intervals.ts';
import { adminPolicyRules, foreignPolicyRules } from './admin-rules.ts';
import type { AdminPolicy, Cluster, Pod } from './cluster.ts';
import { networkPolicyRules, type Policy } from './rules.ts';

/** The policies that act on a pod in one direction, in the order in which they are asked. */
export interface ActingPolicies {
  readonly foreign: readonly Policy[];
  readonly admin: readonly Policy[];
  readonly namespace: readonly Policy[];
  readonly baseline: readonly Policy[];
}

/** Finds the policies that act on a pod. A pod on the host's network is a node to the network: none does. */
export type PolicyIndex = (pod: Pod, direction: Direction) => ActingPolicies;

const NO_POLICIES: ActingPolicies = { foreign: [], admin: [], namespace: [], baseline: [] };

/** The policies of a cluster, looked up once for each pod and direction. */
export function createPolicyIndex(cluster: Cluster, podCIDRs: readonly string[]): PolicyIndex {
  const podRanges = podCIDRs.reduce<AddressSet>((set, cidr) => union(set, addressesOf(cidr)), []);
  const byNamespace = Map.groupBy(cluster.networkPolicies, ({ namespace }) => namespace);
  const inNamespace = new Map(
    [...byNamespace].map(([namespace, policies]) => [namespace, policies.map((each) => networkPolicyRules(each, podRanges))]),
  );
  const others = [
    ...cluster.adminPolicies.toSorted(inOrder).map((policy) => adminPolicyRules(policy, cluster, podRanges)),
    ...cluster.foreignPolicies.map(foreignPolicyRules),
  ];
  const found = { ingress: new Map<Pod, ActingPolicies>(), egress: new Map<Pod, ActingPolicies>() };
  return (pod, direction) => {
    if (pod.hostNetwork) return NO_POLICIES;
    const known = found[direction].get(pod);
    if (known) return known;
    const all = [...others, ...(inNamespace.get(pod.namespace.name) ?? [])];
    const acting = all.filter((policy) => policy[direction] !== undefined && policy.selects(pod));
    const ofTier = (tier: Policy['tier']) => acting.filter((policy) => policy.tier === tier);
    const result = {
      foreign: ofTier('foreign'),
      admin: ofTier('admin'),
      namespace: ofTier('namespace'),
      baseline: ofTier('baseline'),
    };
    found[direction].set(pod, result);
    return result;
  };
}

/** By priority; the order of equal priorities is up to the CNI, and by name here. */
function inOrder(a: AdminPolicy, b: AdminPolicy): number {
  return a.spec.priority - b.spec.priority || (a.name < b.name ? -1 : 1);
}
