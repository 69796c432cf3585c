import { parseAddress, parseCidr } from '#flows/sets/addresses.ts';
import { type FlowProblem, FlowSetError, readDocument } from './document.ts';
import schema from './facts.schema.json' with { type: 'json' };
import { type SelectorSpec, selectorOf } from './flowset.ts';
import type { Facts } from './model.ts';
import { cidrContains, familyOf } from './ranges.ts';

/** Where facts come from: a person, the agent in the cluster, or nowhere. */
export type FactSource = 'declared' | 'discovered' | 'assumed';

/** Facts of which some are not known. */
export interface PartialFacts extends Partial<Omit<Facts, 'apiServer' | 'dns' | 'sources'>> {
  readonly apiServer?: Partial<Facts['apiServer']>;
  readonly dns?: Partial<Facts['dns']>;
}

/** Where pods are assumed to be: kubeadm's example and the default of many network plugins. */
export const ASSUMED_POD_CIDRS: readonly string[] = ['10.244.0.0/16'];

/**
 * What is assumed without better: kubeadm's ranges and ports, the labels that kube-dns and CoreDNS have in every distribution, and the
 * metadata address of the large clouds. Node ranges and the API server's own addresses cannot be guessed.
 */
const ASSUMED: Omit<Facts, 'sources'> = {
  cni: 'generic',
  podCIDRs: ASSUMED_POD_CIDRS,
  serviceCIDRs: ['10.96.0.0/12'],
  nodeCIDRs: [],
  apiServer: { serviceIP: '10.96.0.1', endpoints: [], ports: [443, 6443] },
  dns: { namespace: 'kube-system', selector: { matchLabels: { 'k8s-app': 'kube-dns' } }, ports: [53], nodeLocalIP: '' },
  metadataIPs: ['169.254.169.254'],
  ipFamilies: ['IPv4'],
};

/** Reads a facts file. Throws `FlowSetError` with everything that is wrong, overlapping ranges included. */
export function loadFacts(text: string, file: string): PartialFacts {
  const { value, at } = readDocument<{ readonly spec: FactsSpec }>(text, file, schema);
  const problems = problemsOf(value.spec, (...path) => at('spec', ...path));
  if (problems.length > 0) throw new FlowSetError(problems);
  const { dns, ...rest } = value.spec;
  if (!dns) return rest;
  const { selector, ...other } = dns;
  return { ...rest, dns: { ...other, ...(selector && { selector: selectorOf(selector) }) } };
}

/** Lays facts over what is assumed, the first given being the strongest, and remembers the source of each. */
export function resolveFacts(...layers: readonly { readonly facts: PartialFacts; readonly source: FactSource }[]): Facts {
  const sources: Record<string, FactSource> = {};
  const choose = (path: string, read: (facts: PartialFacts) => unknown) => {
    const layer = layers.find(({ facts }) => read(facts) !== undefined);
    sources[path] = layer?.source ?? 'assumed';
    return read(layer?.facts ?? ASSUMED);
  };
  const chosen = Object.keys(ASSUMED).map((field) => {
    if (field !== 'apiServer' && field !== 'dns') return [field, choose(field, (facts) => facts[field as 'cni'])];
    const parts = Object.keys(ASSUMED[field]).map((part) => [
      part,
      choose(`${field}.${part}`, (facts) => facts[field]?.[part as keyof object]),
    ]);
    return [field, Object.fromEntries(parts)];
  });
  return { ...(Object.fromEntries(chosen) as Omit<Facts, 'sources'>), sources };
}

/** Facts as written. */
interface FactsSpec extends Omit<PartialFacts, 'dns'> {
  readonly dns?: Omit<Partial<Facts['dns']>, 'selector'> & { readonly selector?: SelectorSpec };
}

const RANGES = ['podCIDRs', 'serviceCIDRs', 'nodeCIDRs'] as const;

function problemsOf(spec: FactsSpec, at: (...path: (string | number)[]) => string): FlowProblem[] {
  const problems: FlowProblem[] = [];
  const ranges = RANGES.flatMap((field) => (spec[field] ?? []).map((cidr, index) => ({ field, index, cidr })));
  const valid = ranges.filter(({ field, index, cidr }) => {
    if (parseCidr(cidr)) return true;
    problems.push({ place: at(field, index), message: `${field}: ${cidr} is no CIDR` });
    return false;
  });
  for (const [position, one] of valid.entries()) {
    // a range may be in one list twice, as when each node has a part of the pods' range
    const other = valid.slice(0, position).find(({ field, cidr }) => field !== one.field && overlap(cidr, one.cidr));
    if (!other) continue;
    const message = `${one.field} ${one.cidr} overlaps ${other.field} ${other.cidr}: an address would belong to both`;
    problems.push({ place: at(one.field, one.index), message });
  }
  const addresses: readonly (readonly [path: readonly (string | number)[], address: string])[] = [
    [['apiServer', 'serviceIP'], spec.apiServer?.serviceIP ?? ''],
    ...(spec.apiServer?.endpoints ?? []).map((address, index) => [['apiServer', 'endpoints', index], address] as const),
    [['dns', 'nodeLocalIP'], spec.dns?.nodeLocalIP ?? ''],
    ...(spec.metadataIPs ?? []).map((address, index) => [['metadataIPs', index], address] as const),
  ];
  for (const [path, address] of addresses) {
    if (address === '' || parseAddress(address) !== undefined) continue;
    if (path[1] !== 'endpoints') problems.push({ place: at(...path), message: `${path.join('.')}: ${address} is no IP address` });
    else if (!parseCidr(address))
      problems.push({ place: at(...path), message: `${path.join('.')}: ${address} is neither an IP address nor a CIDR` });
  }
  return problems;
}

function overlap(a: string, b: string): boolean {
  return familyOf(a) === familyOf(b) && (cidrContains(a, b, 'or equal') || cidrContains(b, a, 'or equal'));
}
