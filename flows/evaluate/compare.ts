import { PROTOCOLS, type Protocol } from '#flows/model/model.ts';
import { type AddressSet, addressTexts } from '#flows/sets/addresses.ts';
import { type ConnectionSet, portsText, subtractConnections, unionConnections } from '#flows/sets/connections.ts';
import { intersect, union } from '#flows/sets/intervals.ts';
import { podLabel } from './cluster.ts';
import type { AddressEndpoint, Endpoint, PodEndpoint } from './endpoint.ts';
import type { Evaluator } from './evaluator.ts';
import { reachClasses } from './reach-classes.ts';

/** Connections that one policy set has and the other has not. */
export interface ReachChange {
  readonly change: 'gained' | 'lost';
  /** `namespace/name`, or ranges of addresses with commas. */
  readonly src: string;
  readonly dst: string;
  readonly protocol: Protocol;
  readonly ports: string;
  /** It is not certain, for a fact is missing in the set after. */
  readonly undecidable?: true;
}

/** What `compareReach` returns. */
export interface ReachDifference {
  readonly changes: readonly ReachChange[];
  /** Pods and workloads that only one of the sets has; nothing about them is compared. */
  readonly onlyBefore: readonly string[];
  readonly onlyAfter: readonly string[];
}

/** An end in both sets. */
interface SharedEnd {
  readonly before: Endpoint;
  readonly after: Endpoint;
}

/**
 * What becomes reachable, and what no longer is, from one policy set to another: over the pods and workloads that both have, by name, and
 * all addresses. Neighbouring ranges that change alike are one entry.
 */
export function compareReach(before: Evaluator, after: Evaluator): ReachDifference {
  const [pods, others] = [podsByLabel(before), podsByLabel(after)];
  const shared = [...pods].flatMap(([label, pod]) => {
    const other = others.get(label);
    return other ? [{ label, before: pod, after: other }] : [];
  });
  const addresses = sharedAddresses(before, after);
  const changeOf = createChanges(before, after);
  const changes: ReachChange[] = [];
  for (const from of shared) {
    for (const to of shared) {
      if (from === to && from.before.kind === 'pod' && from.before.pod.kind === 'Pod') continue;
      for (const change of changeOf(from, to)) changes.push({ ...change, src: from.label, dst: to.label });
    }
    for (const [dst, change] of joined(addresses, (to) => changeOf(from, to))) changes.push({ ...change, src: from.label, dst });
    for (const [src, change] of joined(addresses, (to) => changeOf(to, from))) changes.push({ ...change, src, dst: from.label });
  }
  return {
    changes,
    onlyBefore: [...pods.keys()].filter((label) => !others.has(label)),
    onlyAfter: [...others.keys()].filter((label) => !pods.has(label)),
  };
}

type Change = Omit<ReachChange, 'src' | 'dst'>;

function podsByLabel({ cluster }: Evaluator): Map<string, PodEndpoint> {
  return new Map(cluster.pods.map((pod, index) => [podLabel(pod), { kind: 'pod', pod, index }]));
}

/** The address classes of both sets, cut so that neither tells members of one apart. */
function sharedAddresses(before: Evaluator, after: Evaluator): AddressEndpoint[] {
  const others = reachClasses(after.cluster).addresses;
  return reachClasses(before.cluster)
    .addresses.flatMap((own) => others.map((other) => intersect(own.addresses, other.addresses)))
    .filter((addresses) => addresses.length > 0)
    .map((addresses) => ({ kind: 'addresses', addresses }));
}

/** Changes with each set of addresses, those that change alike joined. */
function joined(ends: readonly AddressEndpoint[], changesOf: (end: SharedEnd) => readonly Change[]): [string, Change][] {
  const found = new Map<string, { readonly addresses: AddressSet; readonly change: Change }>();
  for (const end of ends) {
    for (const change of changesOf({ before: end, after: end })) {
      const key = JSON.stringify(change);
      found.set(key, { change, addresses: union(found.get(key)?.addresses ?? [], end.addresses) });
    }
  }
  return [...found.values()].map(({ addresses, change }) => [addressTexts(addresses).join(), change]);
}

function createChanges(before: Evaluator, after: Evaluator): (from: SharedEnd, to: SharedEnd) => readonly Change[] {
  const [ofBefore, ofAfter] = [before.between(before.ipBlockMode), after.between(after.ipBlockMode)];
  const known = new Map<string, readonly Change[]>();
  return (from, to) => {
    const [was, is] = [ofBefore(from.before, to.before), ofAfter(from.after, to.after)];
    const key = `${was.allowed} ${was.undecidable} ${is.allowed} ${is.undecidable}`;
    const found = known.get(key) ?? [
      ...parts('gained', subtractConnections(after.table.get(is.allowed), before.table.get(was.allowed))),
      ...parts('gained', subtractConnections(after.table.get(is.undecidable), possible(before, was)), true),
      ...parts('lost', subtractConnections(before.table.get(was.allowed), possible(after, is))),
      ...parts(
        'lost',
        without(before.table.get(was.allowed), after.table.get(is.allowed), after.table.get(is.undecidable)),
        true,
      ),
    ];
    known.set(key, found);
    return found;
  };
}

function possible({ table }: Evaluator, { allowed, undecidable }: { allowed: number; undecidable: number }): ConnectionSet {
  return unionConnections(table.get(allowed), table.get(undecidable));
}

/** What was allowed, is no longer for certain, and may still be. */
function without(was: ConnectionSet, is: ConnectionSet, maybe: ConnectionSet): ConnectionSet {
  const lost = subtractConnections(was, is);
  return subtractConnections(lost, subtractConnections(lost, maybe));
}

function parts(change: Change['change'], set: ConnectionSet, isUndecidable = false): Change[] {
  return PROTOCOLS.filter((protocol) => set[protocol].length > 0).map((protocol) => ({
    ...{ change, protocol, ports: portsText(set[protocol]) },
    ...(isUndecidable ? { undecidable: true } : {}),
  }));
}
