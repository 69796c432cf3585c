import type { LabelSelector } from '#flows/model/model.ts';
import { isMapping, type Value, type ValueObject } from '#lib/object.ts';
import { SELECTOR_SHAPE } from './label-selector.ts';
import { decode } from './shape.ts';

/** What is known about a policy of a kind that is not evaluated. */
export interface ForeignReach {
  readonly clusterWide: boolean;
  readonly selector: LabelSelector;
  readonly directions: readonly ('ingress' | 'egress')[];
  readonly outsideOnly: boolean;
}

/** Groups whose policies act on the same packets; whether a kind of them is cluster-wide. */
const FOREIGN: readonly { readonly group: string; readonly kind: RegExp; readonly clusterWide: boolean }[] = [
  { group: 'cilium.io', kind: /^CiliumNetworkPolicy$/, clusterWide: false },
  { group: 'cilium.io', kind: /^CiliumClusterwideNetworkPolicy$/, clusterWide: true },
  { group: 'projectcalico.org', kind: /^(Staged)?NetworkPolicy$/, clusterWide: false },
  { group: 'projectcalico.org', kind: /^GlobalNetworkPolicy$/, clusterWide: true },
  { group: 'crd.projectcalico.org', kind: /^NetworkPolicy$/, clusterWide: false },
  { group: 'crd.projectcalico.org', kind: /^GlobalNetworkPolicy$/, clusterWide: true },
  { group: 'crd.antrea.io', kind: /^NetworkPolicy$/, clusterWide: false },
  { group: 'crd.antrea.io', kind: /^ClusterNetworkPolicy$/, clusterWide: true },
  { group: 'policy.networking.k8s.io', kind: /Policy$/, clusterWide: true },
];

const EVERYTHING: LabelSelector = {};
const BOTH = ['ingress', 'egress'] as const;

/**
 * How far a foreign policy reaches; undefined when the kind is no policy. The selector is read where it is a Kubernetes selector over
 * pod labels (Cilium's `endpointSelector`); otherwise everything in its reach counts as selected.
 */
export function foreignReach(group: string, kind: string, value: Value): ForeignReach | undefined {
  const known = FOREIGN.find((each) => each.group === group && each.kind.test(kind));
  if (!known) return undefined;
  const { clusterWide } = known;
  const all: ForeignReach = { clusterWide, selector: EVERYTHING, directions: BOTH, outsideOnly: false };
  const spec = isMapping(value) ? value.spec : undefined;
  if (group !== 'cilium.io' || !isMapping(spec)) return all;
  const directions = BOTH.filter((direction) => spec[direction] !== undefined || spec[`${direction}Deny`] !== undefined);
  const selector = endpointSelector(spec.endpointSelector);
  if (!selector || directions.length === 0) return all;
  return { clusterWide, selector, directions, outsideOnly: isOutsideOnly(spec) };
}

/** A selector over plain pod labels (`k8s:` and `any:` name their source), not over Cilium's own labels. */
function endpointSelector(value: Value | undefined): LabelSelector | undefined {
  let readable = true;
  const decoded = decode(value, SELECTOR_SHAPE, '', () => {
    readable = false;
  });
  if (!readable || decoded === undefined) return undefined;
  const plain = (key: string) => key.replace(/^(k8s|any)[:.]/, '');
  const { matchLabels = {}, matchExpressions = [] } = decoded as LabelSelector;
  const keys = [...Object.keys(matchLabels), ...matchExpressions.map(({ key }) => key)].map(plain);
  if (keys.some((key) => key.includes(':') || key.startsWith('io.'))) return undefined;
  return {
    matchLabels: Object.fromEntries(Object.entries(matchLabels).map(([key, label]) => [plain(key), label])),
    matchExpressions: matchExpressions.map((expression) => ({ ...expression, key: plain(expression.key) })),
  };
}

/** Whether all it does is to allow egress to the API server or to names of the world outside. */
function isOutsideOnly(spec: ValueObject): boolean {
  const { egress } = spec;
  const others = ['ingress', 'ingressDeny', 'egressDeny'];
  if (others.some((field) => spec[field] !== undefined) || !Array.isArray(egress)) return false;
  return egress.every((rule) => {
    if (!isMapping(rule)) return false;
    const { toPorts: _, toEntities, toFQDNs, ...rest } = rule;
    if (Object.keys(rest).length > 0 || (toEntities === undefined && toFQDNs === undefined)) return false;
    return toEntities === undefined || (Array.isArray(toEntities) && toEntities.every((entity) => entity === 'kube-apiserver'));
  });
}
