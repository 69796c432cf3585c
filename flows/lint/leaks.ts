import { hopsOf } from '#flows/model/hops.ts';
import type { Facts, Flow, Model, Peer } from '#flows/model/model.ts';
import { blocksOf, cidrContains, expandRange } from '#flows/model/ranges.ts';

/** What a flow lets out beside what is meant. */
export interface Leak {
  readonly lint: 'PRIVATE-LEAK' | 'POD-CIDR-LEAK' | 'BROAD-CIDR';
  readonly severity: 'warning';
  readonly message: string;
}

/** Private ranges, ranges of the cluster, and everything at all, among the destinations of a flow that is meant for the Internet. */
export function leaksOf(model: Model, flow: Flow): Leak[] {
  return hopsOf(model, flow).flatMap(({ to }) => (to.peer.kind === 'addresses' ? leaksTo(to.name, to.peer, model.facts) : []));
}

function leaksTo(name: string, peer: Peer & { readonly kind: 'addresses' }, facts: Facts): Leak[] {
  const leaks: Leak[] = [];
  const ofCluster = expandRange('cluster', facts);
  const notPublic = expandRange('private', facts).filter((range) => !ofCluster.includes(range));
  const told = (lint: Leak['lint'], ranges: readonly string[], what: string) => {
    if (ranges.length === 0) return;
    const shown = `${ranges.slice(0, 4).join(', ')}${ranges.length > 4 ? ` and ${ranges.length - 4} more` : ''}`;
    leaks.push({ lint, severity: 'warning', message: `${name} includes ${what}: ${shown}` });
  };
  told('PRIVATE-LEAK', heldBy(peer, notPublic), 'addresses that are not on the Internet');
  told('POD-CIDR-LEAK', heldBy(peer, ofCluster), 'addresses of the cluster itself');
  const all = blocksOf(peer.cidrs, peer.except).filter(({ cidr, except }) => cidr.endsWith('/0') && except.length === 0);
  told(
    'BROAD-CIDR',
    all.map(({ cidr }) => cidr),
    'every address, with no exception',
  );
  return leaks;
}

/** The ranges that lie inside the peer's and not inside an exception: a range of one's own, named as such, is none of them. */
function heldBy({ cidrs, except }: Peer & { readonly kind: 'addresses' }, ranges: readonly string[]): string[] {
  const inside = ranges.filter((range) => cidrs.some((cidr) => cidrContains(cidr, range, 'strictly')));
  return inside.filter((range) => !except.some((exception) => cidrContains(exception, range, 'or equal')));
}
