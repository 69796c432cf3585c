import { isEmptySelector, selectorKeys, selectorText, selects } from '#flows/evaluate/label-selector.ts';
import { type NetworkPolicyPeer, PEERS_FIELD } from '#flows/evaluate/network-policy.ts';
import { NAMESPACE_NAME_LABEL } from '#flows/evaluate/read-cluster.ts';
import { isForApiServerPort, type LintContext, type LintedRule, peerPlace, podsOfPeer } from './policy-context.ts';
import type { OpenFinding } from './policy-lints.ts';

/** Lints over the way in which policies are written, and over selectors that select nothing. */
export function writingLints(context: LintContext): OpenFinding[] {
  const { policies, rules } = context;
  return [
    ...rules.flatMap(orSplit),
    ...rules.flatMap(openSource),
    ...rules.flatMap((rule) => apiServerByPods(context, rule)),
    ...policies.flatMap(({ policy, label, place }) => {
      if (policy.spec.typesWritten) return [];
      const message = `policyTypes is not written: ${policy.spec.policyTypes.join(' and ')} by default, which depends on the sections`;
      return [{ lint: 'NO-POLICYTYPES' as const, subject: label, place: { ...place, path: `${place.path}/spec` }, message }];
    }),
    ...deadSelectors(context),
    ...rules.flatMap((rule) => namespaceLabels(context, rule)),
  ];
}

function isNamespaceOnly({ namespaceSelector, podSelector }: NetworkPolicyPeer): boolean {
  return namespaceSelector !== undefined && podSelector === undefined;
}

function isPodsOnly({ namespaceSelector, podSelector }: NetworkPolicyPeer): boolean {
  return podSelector !== undefined && namespaceSelector === undefined;
}

/** Two list items where one with both selectors is likely meant. */
function orSplit(rule: LintedRule): OpenFinding[] {
  const { peers } = rule.written;
  const at = peers.findIndex((peer, index) => {
    const next = peers[index + 1];
    return next && ((isNamespaceOnly(peer) && isPodsOnly(next)) || (isPodsOnly(peer) && isNamespaceOnly(next)));
  });
  if (at < 0) return [];
  const field = PEERS_FIELD[rule.direction];
  const message = `namespaceSelector and podSelector are two items of ${field}, each of which is enough: write one item to mean both`;
  return [{ lint: 'OR-SPLIT', subject: rule.label, place: peerPlace(rule, at), message }];
}

function openSource({ direction, written, label, place }: LintedRule): OpenFinding[] {
  if (direction !== 'ingress' || written.peers.length > 0 || written.ports.length === 0) return [];
  return [{ lint: 'OPEN-SOURCE', subject: label, place, message: 'the rule has ports and no from: everyone reaches them' }];
}

function apiServerByPods({ cluster }: LintContext, rule: LintedRule): OpenFinding[] {
  if (!isForApiServerPort(rule)) return [];
  const labels = cluster.namespaces.get('kube-system')?.labels ?? { [NAMESPACE_NAME_LABEL]: 'kube-system' };
  return rule.written.peers.flatMap(({ namespaceSelector }, index) => {
    if (!namespaceSelector || isEmptySelector(namespaceSelector) || !selects(namespaceSelector, labels)) return [];
    const message =
      'pods of kube-system on the port of the API server: it is no pod to the network and is not reached by this, name its addresses';
    return [{ lint: 'APISERVER-BY-PODS', subject: rule.label, place: peerPlace(rule, index), message }];
  });
}

/** Only where there are pods at all: manifests of policies alone say nothing about workloads. */
function deadSelectors({ pods, policies, cluster }: LintContext): OpenFinding[] {
  if (pods.length === 0) return [];
  const found: OpenFinding[] = [];
  for (const { policy, label, place, pods: selected, rules } of policies) {
    if (selected.length === 0) {
      const message = `podSelector ${selectorText(policy.spec.podSelector)} selects no pod of namespace ${policy.namespace}`;
      found.push({ lint: 'DEAD-SELECTOR', subject: label, place: { ...place, path: `${place.path}/spec/podSelector` }, message });
    }
    for (const rule of rules) {
      for (const [index, peer] of rule.written.peers.entries()) {
        const { podSelector, namespaceSelector = {} } = peer;
        const hasNamespace = [...cluster.namespaces.values()].some(({ labels }) => selects(namespaceSelector, labels));
        if (!podSelector || !hasNamespace || podsOfPeer(rule, peer, pods).length > 0) continue;
        const message = `podSelector ${selectorText(podSelector)} of the peer selects no pod`;
        found.push({ lint: 'DEAD-SELECTOR', subject: rule.label, place: peerPlace(rule, index), message });
      }
    }
  }
  return found;
}

function namespaceLabels({ cluster }: LintContext, rule: LintedRule): OpenFinding[] {
  return rule.written.peers.flatMap(({ namespaceSelector }, index) => {
    if (!namespaceSelector || [...cluster.namespaces.values()].some(({ labels }) => selects(namespaceSelector, labels)))
      return [];
    const keys = selectorKeys(namespaceSelector).filter((key) => key !== NAMESPACE_NAME_LABEL);
    if (keys.length === 0) return [];
    const message = `no namespace has ${selectorText(namespaceSelector)}; only the label ${NAMESPACE_NAME_LABEL} is automatic`;
    return [{ lint: 'NS-LABEL', subject: rule.label, place: peerPlace(rule, index), message }];
  });
}
