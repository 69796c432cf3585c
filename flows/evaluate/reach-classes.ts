import { type AddressSet, ALL_ADDRESSES, addressesOf } from '#flows/sets/addresses.ts';
import { contains, pairs, union } from '#flows/sets/intervals.ts';
import type { Cluster, Pod } from './cluster.ts';
import type { AddressEndpoint, PodEndpoint } from './endpoint.ts';
import { selectorKeys } from './label-selector.ts';
import { blockAddresses } from './rules.ts';

/** Pods and addresses in groups whose members no policy can tell apart: what is true of one of a group is true of all of it. */
export interface ReachClasses {
  /** Number of its class for each pod of the cluster. */
  readonly classOf: readonly number[];
  /** Members of each class, never empty. */
  readonly pods: readonly (readonly PodEndpoint[])[];
  /** All addresses, in as many sets as policies tell apart. */
  readonly addresses: readonly AddressEndpoint[];
}

/** Groups the pods of a cluster by what its policies look at: namespace, selected labels, ports with names, node, address blocks. */
export function reachClasses(cluster: Cluster): ReachClasses {
  const blocks = blocksOf(cluster);
  const keys = [...podLabelKeys(cluster)].sort();
  const byKey = new Map<string, PodEndpoint[]>();
  const numbers = new Map<string, number>();
  const classOf = cluster.pods.map((pod, index) => {
    const key = visible(pod, keys, blocks);
    const members = byKey.get(key) ?? [];
    if (members.length === 0) {
      numbers.set(key, byKey.size);
      byKey.set(key, members);
    }
    members.push({ kind: 'pod', pod, index });
    return numbers.get(key) ?? 0;
  });
  return { classOf, pods: [...byKey.values()], addresses: addressClasses(blocks) };
}

/** What policies can see of a pod. */
function visible(pod: Pod, keys: readonly string[], blocks: readonly AddressSet[]): string {
  const named = pod.ports.filter(({ name }) => name !== '').map(({ name, protocol, port }) => `${name}/${protocol}/${port}`);
  const addresses = [...pairs(pod.addresses)].map(([address]) => signature(blocks, address));
  const labels = keys.map((key) => pod.labels[key] ?? null);
  return JSON.stringify([pod.namespace.name, labels, named.sort(), pod.hostNetwork && pod.nodeName, pod.hostNetwork, addresses]);
}

/** Address sets in policies, each once. */
function blocksOf({ networkPolicies, adminPolicies, nodes }: Cluster): AddressSet[] {
  const sets: AddressSet[] = nodes.map(({ addresses }) => addresses);
  for (const { spec } of networkPolicies) {
    for (const { peers } of [...spec.ingress, ...spec.egress])
      for (const { ipBlock } of peers) if (ipBlock) sets.push(blockAddresses(ipBlock));
  }
  for (const { spec } of adminPolicies) {
    for (const { peers } of spec.egress) for (const { networks } of peers) sets.push(...(networks ?? []).map(addressesOf));
  }
  return [...new Map(sets.map((set) => [set.join(), set])).values()];
}

function podLabelKeys({ networkPolicies, adminPolicies, foreignPolicies }: Cluster): Set<string> {
  const np = networkPolicies.flatMap(({ spec }) => [
    spec.podSelector,
    ...[...spec.ingress, ...spec.egress].flatMap(({ peers }) => peers.map(({ podSelector }) => podSelector)),
  ]);
  const admin = adminPolicies.flatMap(({ spec }) =>
    [spec.subject, ...[...spec.ingress, ...spec.egress].flatMap(({ peers }) => peers)].map(({ pods }) => pods?.podSelector),
  );
  const all = [...np, ...admin, ...foreignPolicies.map(({ selector }) => selector)];
  return new Set(all.flatMap((selector) => (selector ? selectorKeys(selector) : [])));
}

/** All addresses cut at every boundary of a block; pieces that lie in the same blocks are one class. */
function addressClasses(blocks: readonly AddressSet[]): AddressEndpoint[] {
  const cuts = [...new Set([...ALL_ADDRESSES, ...blocks.flat()])].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  const classes = new Map<string, AddressSet>();
  for (const [index, from] of cuts.entries()) {
    const to = cuts[index + 1];
    if (to === undefined || !contains(ALL_ADDRESSES, from)) continue;
    const key = signature(blocks, from);
    classes.set(key, union(classes.get(key) ?? [], [from, to]));
  }
  return [...classes.values()].map((addresses) => ({ kind: 'addresses', addresses }));
}

function signature(blocks: readonly AddressSet[], address: bigint): string {
  return blocks.map((block) => (contains(block, address) ? '1' : '0')).join('');
}
