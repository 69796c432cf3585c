import { create } from '@bufbuild/protobuf';
import { errorText } from '#lib/errors.ts';
import { type ClusterNetwork, ClusterNetworkSchema } from '#proto/brokkr/v1/network_pb.js';
import { classify } from './kube/errors.ts';
import type { Kube } from './kube/kube.ts';
import type { KubeObject } from './kube/objects.ts';
import type { Resource } from './kube/resource.ts';

/** Limits of the contract (network.proto). */
const MAX_RANGES = 100;
const MAX_PORTS = 20;
const MAX_UNKNOWN = 256;

/** API groups that a network plugin serves, and its name; the first that is served counts, since Cilium may be chained behind another. */
const PLUGIN_GROUPS: readonly (readonly [group: string, cni: string])[] = [
  ['cilium.io', 'cilium'],
  ['crd.projectcalico.org', 'calico'],
  ['projectcalico.org', 'calico'],
  ['k8s.ovn.org', 'ovn'],
];
/** DaemonSet of the Amazon VPC CNI, which brings definitions under a general name. */
const AWS_NODE = 'aws-node';
/** DaemonSet of the node-local DNS cache (Kubernetes, "Using NodeLocal DNSCache in Kubernetes clusters"). */
const NODE_LOCAL_DNS = 'node-local-dns';
/** Where the Service of DNS is: the label of kube-dns and CoreDNS, and OpenShift's name. */
const DNS_SERVICES = [
  { namespace: 'kube-system', labelSelector: 'k8s-app=kube-dns' },
  { namespace: 'openshift-dns', fieldSelector: 'metadata.name=dns-default' },
] as const;

const kind = (group: string, version: string, name: string, plural: string, namespaced: boolean): Resource => {
  return { group, version, kind: name, plural, namespaced, verbs: ['list'] };
};
const SERVICES = kind('', 'v1', 'Service', 'services', true);
const NODES = kind('', 'v1', 'Node', 'nodes', false);
const DAEMON_SETS = kind('apps', 'v1', 'DaemonSet', 'daemonsets', true);
const ENDPOINT_SLICES = kind('discovery.k8s.io', 'v1', 'EndpointSlice', 'endpointslices', true);
const SERVICE_CIDRS = kind('networking.k8s.io', 'v1', 'ServiceCIDR', 'servicecidrs', false);

interface Service extends KubeObject {
  readonly spec?: {
    readonly clusterIP?: string;
    readonly selector?: Readonly<Record<string, string>>;
    readonly ports?: readonly { readonly port: number; readonly targetPort?: number | string }[];
    readonly ipFamilies?: readonly string[];
  };
}
interface Node extends KubeObject {
  readonly spec?: { readonly podCIDRs?: readonly string[] };
  readonly status?: { readonly addresses?: readonly { readonly type: string; readonly address: string }[] };
}
interface EndpointSlice extends KubeObject {
  readonly endpoints?: readonly { readonly addresses?: readonly string[] }[];
  readonly ports?: readonly { readonly port?: number }[];
}
interface ServiceCidr extends KubeObject {
  readonly spec?: { readonly cidrs?: readonly string[] };
}
interface DaemonSet extends KubeObject {
  readonly spec?: {
    readonly template?: { readonly spec?: { readonly containers?: readonly { readonly args?: readonly string[] }[] } };
  };
}

/** One list of a look; undefined when it could not be had, which is noted then. */
type Look = <Item extends KubeObject>(
  what: string,
  request: Omit<Parameters<Kube['list']>[0], 'content'>,
) => Promise<readonly Item[] | undefined>;

/**
 * Finds out what the network of the cluster is like: seven lists at most. What may not be read, or is more than the contract carries, is left
 * out and named. `groups`: API groups that are served. Rejects when the server does not answer.
 */
export async function discoverNetwork(kube: Kube, groups: ReadonlySet<string>, signal: AbortSignal): Promise<ClusterNetwork> {
  const unknown: string[] = [];
  const look: Look = async <Item extends KubeObject>(what: string, request: Omit<Parameters<Kube['list']>[0], 'content'>) => {
    try {
      const items: KubeObject[] = [];
      for await (const page of kube.list({ ...request, content: 'full', resourceVersion: '0' }, signal))
        items.push(...page.items);
      return items as readonly KubeObject[] as readonly Item[];
    } catch (error) {
      signal.throwIfAborted();
      if (classify(error) === 'transient') throw error;
      unknown.push(`${what}: ${errorText(error)}`.slice(0, MAX_UNKNOWN));
      return undefined;
    }
  };
  const bounded = (what: string, values: readonly string[]): string[] => {
    const found = [...new Set(values)].sort();
    if (found.length <= MAX_RANGES) return found;
    unknown.push(`${what}: ${found.length} are more than the ${MAX_RANGES} that can be told`);
    return [];
  };
  const [api, slices, cidrs, nodes, daemons, dns] = await Promise.all([
    look<Service>('services in default', { resource: SERVICES, namespace: 'default', fieldSelector: 'metadata.name=kubernetes' }),
    look<EndpointSlice>('endpointslices in default', {
      ...{ resource: ENDPOINT_SLICES, namespace: 'default', labelSelector: 'kubernetes.io/service-name=kubernetes' },
    }),
    look<ServiceCidr>('servicecidrs', { resource: SERVICE_CIDRS }),
    look<Node>('nodes', { resource: NODES }),
    look<DaemonSet>('daemonsets in kube-system', { resource: DAEMON_SETS, namespace: 'kube-system' }),
    findDns(look),
  ]);
  const service = api?.[0]?.spec;
  const ports = [...(service?.ports ?? []), ...(slices ?? []).flatMap(({ ports: own = [] }) => own)].map(({ port }) => port ?? 0);
  const addresses = (nodes ?? [])
    .flatMap(({ status }) => status?.addresses ?? [])
    .filter(({ type, address }) => type === 'InternalIP' && address !== '');
  const network = {
    cni: pluginOf(groups, daemons ?? []),
    podCidrs: bounded(
      'pod ranges',
      (nodes ?? []).flatMap(({ spec }) => spec?.podCIDRs ?? []),
    ),
    serviceCidrs: bounded(
      'service ranges',
      (cidrs ?? []).flatMap(({ spec }) => spec?.cidrs ?? []),
    ),
    nodeCidrs: bounded(
      'node addresses',
      addresses.map(({ address }) => asRange(address)),
    ),
    ...(service && {
      apiServer: {
        serviceIp: service.clusterIP ?? '',
        endpoints: bounded('endpoints of the API server', (slices ?? []).flatMap(endpointAddresses)),
        ports: distinctPorts(ports),
      },
    }),
    ...(dns && { dns: { ...dns, nodeLocalIp: nodeLocalAddress(daemons ?? []) } }),
    ipFamilies: [...(service?.ipFamilies ?? [])],
  };
  return create(ClusterNetworkSchema, { ...network, unknown: unknown.sort() });
}

async function findDns(look: Look) {
  for (const place of DNS_SERVICES) {
    const [service] = (await look<Service>(`services in ${place.namespace}`, { resource: SERVICES, ...place })) ?? [];
    if (!service?.spec?.selector) continue;
    const ports = (service.spec.ports ?? []).map(({ port, targetPort }) => (typeof targetPort === 'number' ? targetPort : port));
    // kube-dns also serves metrics
    const questions = ports.filter((port) => port === 53 || port === 5353);
    return { namespace: place.namespace, selector: { ...service.spec.selector }, ports: distinctPorts(questions) };
  }
  return undefined;
}

function pluginOf(groups: ReadonlySet<string>, daemons: readonly DaemonSet[]): string {
  const served = PLUGIN_GROUPS.find(([group]) => groups.has(group))?.[1];
  return served ?? (daemons.some(({ metadata }) => metadata.name === AWS_NODE) ? 'aws' : '');
}

/** The link-local one of the addresses the cache listens at (`-localip`); empty without it. */
function nodeLocalAddress(daemons: readonly DaemonSet[]): string {
  const daemon = daemons.find(({ metadata }) => metadata.name === NODE_LOCAL_DNS);
  const args = (daemon?.spec?.template?.spec?.containers ?? []).flatMap(({ args: own = [] }) => own);
  return args.flatMap((arg) => arg.split(/[\s,=]/)).find((part) => /^(169\.254\.|fe80:|fd00:)/.test(part)) ?? '';
}

function endpointAddresses({ endpoints = [] }: EndpointSlice): readonly string[] {
  return endpoints.flatMap(({ addresses = [] }) => addresses);
}

function asRange(address: string): string {
  return `${address}/${address.includes(':') ? 128 : 32}`;
}

function distinctPorts(ports: readonly number[]): number[] {
  return [...new Set(ports.filter((port) => port > 0))].sort((a, b) => a - b).slice(0, MAX_PORTS);
}
