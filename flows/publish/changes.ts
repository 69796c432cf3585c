import { compareReach, type ReachChange } from '#flows/evaluate/compare.ts';
import { createEvaluator, type Evaluator, ipBlockModeOf } from '#flows/evaluate/evaluator.ts';
import { readCluster } from '#flows/evaluate/read-cluster.ts';
import { hopsOf } from '#flows/model/hops.ts';
import type { Model } from '#flows/model/model.ts';
import { type AddressSet, addressesOf, parseAddress } from '#flows/sets/addresses.ts';
import { covers, union } from '#flows/sets/intervals.ts';
import type { Value } from '#lib/object.ts';
import { type SamplePod, samplePods } from './sample-pods.ts';

/** Connections that become possible, or impossible, by publishing policies. */
export interface PublishedChange extends ReachChange {
  /** Why somebody has to agree to it; empty when nobody has to. */
  readonly approval: '' | 'gained from an untrusted zone' | 'lost for a required flow';
}

/**
 * What changes when the policies `before` are replaced by those `after` that a model compiles to, over sample pods of the model and all
 * addresses. Where nothing was published before, nothing was declared that could be lost. Throws when policies cannot be read.
 */
export function changesBetween(model: Model, before: readonly Value[], after: readonly Value[]): readonly PublishedChange[] {
  const samples = samplePods(model);
  const { changes } = compareReach(evaluatorOf(model, samples, before), evaluatorOf(model, samples, after));
  const approvalOf = createApprovals(model, samples);
  return changes.map((change) => ({ ...change, approval: before.length > 0 ? approvalOf(change) : '' }));
}

function evaluatorOf({ facts }: Model, samples: readonly SamplePod[], policies: readonly Value[]): Evaluator {
  const { cluster, problems } = readCluster([...samples.map(({ object }) => object), ...policies]);
  const [problem] = problems;
  if (problem) throw new Error(`${problem.object}: ${problem.message}`);
  return createEvaluator(cluster, { ipBlockMode: ipBlockModeOf(facts.cni), podCIDRs: facts.podCIDRs });
}

/** Tells whether a change needs approval, and why. */
function createApprovals(model: Model, samples: readonly SamplePod[]): (change: ReachChange) => PublishedChange['approval'] {
  const { zones, endpoints, flows, dropped } = model;
  const byLabel = new Map(samples.map((sample) => [`${sample.namespace}/${sample.name}`, sample.endpoint]));
  const isTrustedZone = (zone: string | undefined) => zones.get(zone ?? '')?.trust === 'trusted';
  const trusted = [...endpoints.values()].flatMap(({ peer, zone }): readonly AddressSet[] =>
    peer.kind === 'addresses' && isTrustedZone(zone) ? peer.cidrs.map(addressesOf) : [],
  );
  const isTrusted = (label: string) => {
    if (byLabel.has(label)) return isTrustedZone(byLabel.get(label)?.zone);
    const addresses = addressesIn(label);
    return trusted.some((range) => covers(range, addresses));
  };
  const declared = [...flows, ...dropped.map(({ flow }) => flow)].flatMap((flow) => hopsOf(model, flow));
  return ({ change, src, dst }) => {
    if (change === 'gained') return isTrusted(src) ? '' : 'gained from an untrusted zone';
    const [from, to] = [byLabel.get(src)?.name, byLabel.get(dst)?.name];
    const hops = declared.filter((hop) => hop.from.name === from && hop.to.name === to);
    return hops.length > 0 && hops.every(({ flow }) => !flow.required) ? '' : 'lost for a required flow';
  };
}

/** The addresses of a list as changes name them: CIDRs, addresses and `first-last`, with commas. */
function addressesIn(text: string): AddressSet {
  const parts = text.split(',').map((part): AddressSet => {
    const [first, last] = part.split('-').map(parseAddress);
    return first === undefined || last === undefined ? addressesOf(part) : [first, last + 1n];
  });
  return parts.reduce(union, []);
}
