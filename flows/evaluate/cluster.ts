import type { LabelSelector, Protocol } from '#flows/model/model.ts';
import type { AddressSet } from '#flows/sets/addresses.ts';
import type { AdminKind, AdminPolicySpec } from './admin-policy.ts';
import type { Labels } from './label-selector.ts';
import type { NetworkPolicySpec } from './network-policy.ts';
import type { PodNetwork } from './workload.ts';

/** Where something was read: the number of the document (from 0) and a JSON pointer into it. */
export interface Place {
  readonly document: number;
  readonly path: string;
}

/** A namespace, declared or only named by an object. */
export interface Namespace {
  readonly name: string;
  /** With `kubernetes.io/metadata.name`, which every namespace has. */
  readonly labels: Labels;
  readonly declared: boolean;
}

/** A pod, or the pods of a workload, which are alike to the network: one stands for all. */
export interface Pod extends PodNetwork {
  /** `Pod`, or the kind of the workload. */
  readonly kind: string;
  readonly namespace: Namespace;
  readonly name: string;
  readonly place: Place;
}

/** A Service; policies act behind it, on the target port. */
export interface Service {
  readonly namespace: string;
  readonly name: string;
  /** Undefined without one: its endpoints are not known. */
  readonly selector: Labels | undefined;
  readonly ports: readonly { readonly protocol: Protocol; readonly port: number; readonly targetPort: number | string }[];
  readonly place: Place;
}

/** A node, for `nodes` peers of AdminNetworkPolicies. */
export interface Node {
  readonly name: string;
  readonly labels: Labels;
  readonly addresses: AddressSet;
}

/** A NetworkPolicy. */
export interface NetworkPolicy {
  readonly namespace: string;
  readonly name: string;
  readonly spec: NetworkPolicySpec;
  readonly place: Place;
}

/** An AdminNetworkPolicy or the BaselineAdminNetworkPolicy. */
export interface AdminPolicy {
  readonly kind: AdminKind;
  readonly name: string;
  readonly spec: AdminPolicySpec;
  readonly place: Place;
}

/**
 * A policy of a kind that is not evaluated. What it selects is undecidable in its directions, save that a CiliumNetworkPolicy which
 * allows egress to the API server or to names alone (`outsideOnly`) isolates like a NetworkPolicy and admits no pod.
 */
export interface ForeignPolicy {
  readonly kind: string;
  /** '' when the kind is cluster-wide. */
  readonly namespace: string;
  readonly name: string;
  readonly selector: LabelSelector;
  readonly directions: readonly ('ingress' | 'egress')[];
  readonly outsideOnly: boolean;
  readonly place: Place;
}

/** What manifests say about the network of a cluster. */
export interface Cluster {
  readonly namespaces: ReadonlyMap<string, Namespace>;
  readonly pods: readonly Pod[];
  readonly services: readonly Service[];
  readonly nodes: readonly Node[];
  readonly networkPolicies: readonly NetworkPolicy[];
  readonly adminPolicies: readonly AdminPolicy[];
  readonly foreignPolicies: readonly ForeignPolicy[];
}

/** A pod as people name it: `shop/web`; with the kind where two things of the namespace have the name. */
export function podLabel(pod: Pod): string {
  return `${pod.namespace.name}/${pod.name}`;
}
