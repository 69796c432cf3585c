import type { Endpoint, Flow, Zone } from './model.ts';

/** In which clusters the ends of a flow are: '' is the only one, undefined is outside of all. */
export interface Crossing {
  readonly from: string | undefined;
  readonly to: string | undefined;
  readonly sameZone: boolean;
  readonly local: boolean;
}

/** Where a flow goes. DNS and an API server without a zone are those of the source's cluster. */
export function crossingOf(from: Endpoint, to: Endpoint, zones: ReadonlyMap<string, Zone>): Crossing {
  const source = clusterOf(from, zones, undefined);
  const destination = clusterOf(to, zones, source);
  const builtin = to.peer.kind === 'kube-api' || to.peer.kind === 'dns';
  const sameZone = from.zone === to.zone && from.zone !== '';
  return { from: clusterOf(from, zones, destination), to: destination, sameZone, local: builtin && source === destination };
}

/** Whether the flow crosses the border of a cluster (V-001). */
export function isNorthSouth({ from, to }: Crossing): boolean {
  return from === undefined || to === undefined || from !== to;
}

/**
 * Directions that the zones allow a flow to have, the derived one first: `inbound` from outside, `outbound` to outside, `internal` inside a
 * cluster, `local` to the cluster's own API server and DNS. Between zones each end may see it its own way, so a document may say either.
 */
export function directionsOf(crossing: Crossing): readonly Flow['direction'][] {
  const { from, to, sameZone, local } = crossing;
  if (from === undefined && to === undefined) return ['outbound', 'inbound'];
  if (from === undefined) return ['inbound'];
  if (to === undefined) return ['outbound'];
  if (from !== to) return ['outbound', 'inbound'];
  if (local) return ['local', 'internal'];
  return sameZone ? ['internal', 'local'] : ['internal', 'local', 'inbound', 'outbound'];
}

function clusterOf(endpoint: Endpoint, zones: ReadonlyMap<string, Zone>, other: string | undefined): string | undefined {
  const zone = zones.get(endpoint.zone);
  switch (endpoint.peer.kind) {
    case 'pods':
      return zone?.cluster;
    case 'kube-api':
    case 'dns':
      return zone?.cluster ?? other ?? '';
    case 'namespaces':
      return other ?? '';
    case 'addresses':
    case 'any':
    case 'names':
      return undefined;
  }
}
