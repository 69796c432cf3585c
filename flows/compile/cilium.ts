import type { LabelSelector } from '#flows/model/model.ts';
import type { CompileContext, Side } from './context.ts';
import { portsOf } from './policy-ports.ts';

/** An egress rule of a CiliumNetworkPolicy. */
export interface CiliumRule {
  readonly toEntities?: readonly 'kube-apiserver'[];
  readonly toFQDNs?: readonly ({ readonly matchName: string } | { readonly matchPattern: string })[];
  readonly toEndpoints?: readonly LabelSelector[];
  readonly toPorts: readonly CiliumPorts[];
}

/** Ports of a rule; `rules` sends what passes through Cilium's DNS proxy. */
interface CiliumPorts {
  readonly ports: readonly { readonly port: string; readonly endPort?: number; readonly protocol: string }[];
  readonly rules?: { readonly dns: readonly { readonly matchPattern: string }[] };
}

/**
 * What only Cilium can say: the API server, which no address range matches there because it has an identity of its own, and names. Names
 * are learnt from the answers of DNS, so the way to it is part of the policy.
 */
export function ciliumRules({ model }: CompileContext, sides: readonly Side[]): { ids: readonly string[]; rule: CiliumRule }[] {
  if (model.facts.cni !== 'cilium') return [];
  const rules: { ids: readonly string[]; rule: CiliumRule }[] = [];
  const byName: string[] = [];
  for (const { hop, direction, peer } of sides) {
    if (direction !== 'egress') continue;
    const toPorts = [{ ports: portsOf(hop).map(({ port = 0, ...rest }) => ({ ...rest, port: String(port) })) }];
    if (peer.peer.kind === 'kube-api') rules.push({ ids: [hop.flow.id], rule: { toEntities: ['kube-apiserver'], toPorts } });
    if (peer.peer.kind !== 'names') continue;
    const toFQDNs = peer.peer.names.map((name) => (name.includes('*') ? { matchPattern: name } : { matchName: name }));
    rules.push({ ids: [hop.flow.id], rule: { toFQDNs, toPorts } });
    byName.push(hop.flow.id);
  }
  if (byName.length === 0) return rules;
  return [...rules, { ids: byName, rule: dnsRule(model.facts.dns) }];
}

function dnsRule({
  namespace,
  selector,
  ports,
}: {
  namespace: string;
  selector: LabelSelector;
  ports: readonly number[];
}): CiliumRule {
  const matchLabels = { 'k8s:io.kubernetes.pod.namespace': namespace, ...selector.matchLabels };
  const seen = ports.map((port) => ({ port: String(port), protocol: 'ANY' }));
  return {
    toEndpoints: [{ ...selector, matchLabels }],
    toPorts: [{ ports: seen, rules: { dns: [{ matchPattern: '*' }] } }],
  };
}
