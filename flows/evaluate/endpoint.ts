import { type AddressSet, addressesOf, addressTexts, parseAddress } from '#flows/sets/addresses.ts';
import { type Cluster, type Pod, podLabel } from './cluster.ts';

/** One end of a connection: a pod, or addresses that no policy tells apart. */
export type Endpoint = PodEndpoint | AddressEndpoint;

/** A pod or the pods of a workload. */
export interface PodEndpoint {
  readonly kind: 'pod';
  readonly pod: Pod;
  /** Its place in `Cluster.pods`. */
  readonly index: number;
}

/** Addresses that belong to no pod of the cluster view. */
export interface AddressEndpoint {
  readonly kind: 'addresses';
  readonly addresses: AddressSet;
}

/** How a cell names an end: a pod (or workload, `Kind/name` where the name alone is ambiguous) or an address. */
export type EndpointName = { readonly namespace: string; readonly pod: string } | { readonly ip: string };

/** Finds ends by name. */
export type EndpointFinder = (name: EndpointName) => Endpoint;

/**
 * Looks ends up by name. An address of a pod is that pod, unless the pod is on the host's network: its address is the node's. Throws when
 * there is no such pod, when the name is ambiguous, or when the text is no address; the message says which.
 */
export function createEndpointFinder(cluster: Cluster): EndpointFinder {
  const byName = new Map<string, PodEndpoint[]>();
  const byAddress = new Map<bigint, PodEndpoint>();
  const add = (name: string, endpoint: PodEndpoint) => byName.set(name, [...(byName.get(name) ?? []), endpoint]);
  for (const [index, pod] of cluster.pods.entries()) {
    const endpoint = { kind: 'pod', pod, index } as const;
    add(podLabel(pod), endpoint);
    add(`${pod.namespace.name}/${pod.kind}/${pod.name}`, endpoint);
    if (!pod.hostNetwork) for (let at = 0; at < pod.addresses.length; at += 2) byAddress.set(pod.addresses[at] ?? 0n, endpoint);
  }
  return (name) => {
    if ('ip' in name) {
      const address = parseAddress(name.ip);
      if (address === undefined) throw new Error(`${JSON.stringify(name.ip)} is no IP address`);
      return byAddress.get(address) ?? { kind: 'addresses', addresses: addressesOf(name.ip) };
    }
    const [found, ...more] = byName.get(`${name.namespace}/${name.pod}`) ?? [];
    if (!found) throw new Error(`there is no pod or workload ${name.namespace}/${name.pod}`);
    if (more.length === 0) return found;
    const kinds = [found, ...more].map(({ pod }) => `${pod.kind}/${pod.name}`);
    throw new Error(`${name.namespace}/${name.pod} is ambiguous: write ${kinds.join(' or ')}`);
  };
}

/** The name in a text: an address, `namespace/pod` or `namespace/Kind/pod`; undefined when it is none of them. */
export function parseEndpointName(text: string): EndpointName | undefined {
  if (parseAddress(text) !== undefined) return { ip: text };
  const [, namespace, pod] = /^([^/]+)\/((?:[A-Za-z]+\/)?[^/]+)$/.exec(text) ?? [];
  return namespace === undefined || pod === undefined ? undefined : { namespace, pod };
}

/** An end as people name it: `shop/web`, `8.8.8.8`. */
export function endpointLabel(endpoint: Endpoint): string {
  return endpoint.kind === 'pod' ? podLabel(endpoint.pod) : addressTexts(endpoint.addresses).join(',');
}
