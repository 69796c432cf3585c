import type { Cluster, NetworkPolicy, Place, Pod } from '#flows/evaluate/cluster.ts';
import type { PodEndpoint } from '#flows/evaluate/endpoint.ts';
import type { Evaluator } from '#flows/evaluate/evaluator.ts';
import { type NetworkPolicyPeer, type NetworkPolicyRule, PEERS_FIELD } from '#flows/evaluate/network-policy.ts';
import { networkPolicyRules, type Policy, peerTest, type Rule } from '#flows/evaluate/rules.ts';
import type { Direction, Facts } from '#flows/model/model.ts';

/** A NetworkPolicy as written and as it acts. */
export interface LintedPolicy {
  readonly policy: NetworkPolicy;
  readonly label: string;
  readonly place: Place;
  /** Pods it selects. */
  readonly pods: readonly PodEndpoint[];
  readonly rules: readonly LintedRule[];
}

/** One of its rules in a direction on which it acts. */
export interface LintedRule {
  readonly of: LintedPolicy;
  readonly direction: Direction;
  readonly written: NetworkPolicyRule;
  readonly acting: Rule;
  readonly label: string;
  readonly place: Place;
}

/** What lints look at. */
export interface LintContext {
  readonly evaluator: Evaluator;
  readonly cluster: Cluster;
  readonly facts: Facts;
  readonly pods: readonly PodEndpoint[];
  readonly policies: readonly LintedPolicy[];
  readonly rules: readonly LintedRule[];
}

/** Gathers what lints look at. */
export function createLintContext(evaluator: Evaluator, facts: Facts): LintContext {
  const { cluster } = evaluator;
  const pods = cluster.pods.map((pod, index) => ({ kind: 'pod', pod, index }) as const);
  const policies = cluster.networkPolicies.map((policy) => lintedPolicy(policy, pods));
  return { evaluator, cluster, facts, pods, policies, rules: policies.flatMap(({ rules }) => rules) };
}

function lintedPolicy(policy: NetworkPolicy, all: readonly PodEndpoint[]): LintedPolicy {
  const acting: Policy = networkPolicyRules(policy, []);
  const pods = all.filter(({ pod }) => !pod.hostNetwork && acting.selects(pod));
  const rules: LintedRule[] = [];
  const linted: LintedPolicy = { policy, label: acting.label, place: acting.place, pods, rules };
  for (const direction of ['ingress', 'egress'] as const) {
    for (const [index, rule] of (acting[direction] ?? []).entries()) {
      const written = policy.spec[direction][index];
      if (written) rules.push({ of: linted, direction, written, acting: rule, label: rule.label, place: rule.place });
    }
  }
  return linted;
}

/** Where an item of `from` or `to` is. */
export function peerPlace({ place, direction }: LintedRule, index: number): Place {
  return { ...place, path: `${place.path}/${PEERS_FIELD[direction]}/${index}` };
}

/** The pods that an item of `from` or `to` names. */
export function podsOfPeer({ of }: LintedRule, peer: NetworkPolicyPeer, pods: readonly PodEndpoint[]): PodEndpoint[] {
  if (peer.ipBlock) return [];
  const test = peerTest(peer, of.policy.namespace, []);
  return pods.filter((pod) => test(pod, 'any-ip') === 'yes');
}

/** Ports of the API server that policies name. */
const API_SERVER_PORTS = [443, 6443];

/** Whether it is an egress rule that holds a port of the API server by number. */
export function isForApiServerPort({ direction, written }: LintedRule): boolean {
  if (direction !== 'egress') return false;
  return written.ports.some(({ port, endPort = port }) =>
    API_SERVER_PORTS.some((each) => typeof port === 'number' && typeof endPort === 'number' && port <= each && each <= endPort),
  );
}

/** The pod as a person would say it. */
export function podText({ namespace, name }: Pod): string {
  return `${namespace.name}/${name}`;
}
