import { PROTOCOLS, type Protocol } from '#flows/model/model.ts';
import { canonicalJson, isMapping, keyString, type ObjectKey, objectLabel, type Value } from '#lib/object.ts';
import { listItems } from '#lib/yaml-checks.ts';
import { readAdminPolicy } from './admin-policy.ts';
import type { Cluster, Namespace, Place } from './cluster.ts';
import { foreignReach } from './foreign.ts';
import type { Labels } from './label-selector.ts';
import { readNetworkPolicy } from './network-policy.ts';
import { decode, type ReportField, type Shape } from './shape.ts';
import { isWorkload, readAddresses, readPod } from './workload.ts';

/** Pods and workloads of one cluster view; the matrix over them is bounded by it. */
const MAX_PODS = 10_000;
/** Policies of all kinds in one cluster view. */
const MAX_POLICIES = 5_000;

/** Label that the API server gives every namespace. */
export const NAMESPACE_NAME_LABEL = 'kubernetes.io/metadata.name';

/** Something in the documents that cannot be used. */
export interface ClusterProblem extends Place {
  /** The object, as in `networking.k8s.io/v1 NetworkPolicy shop/db`; '' where there is none. */
  readonly object: string;
  /** Lower case, no full stop. */
  readonly message: string;
}

/** What `readCluster` returns; with problems, verdicts over the cluster would be wrong. */
export interface ClusterReading {
  readonly cluster: Cluster;
  readonly problems: readonly ClusterProblem[];
}

/**
 * Reads what matters to the network from Kubernetes documents of any kind (Lists included); other kinds are left alone. A missing
 * namespace is `default`. A workload stands for its pods, which are alike; a workload that another one of the documents controls (the
 * ReplicaSet of a Deployment) is left out. Reports documents that are no objects, fields that cannot be read, policies that the API
 * server would refuse, objects that appear twice and differ, and more than `MAX_PODS` pods or `MAX_POLICIES` policies.
 */
export function readCluster(documents: readonly Value[]): ClusterReading {
  const problems: ClusterProblem[] = [];
  const objects = objectsOf(documents, problems);
  const namespaces = readNamespaces(objects, problems);
  const known = new Set(objects.map(({ key }) => keyString(key)));
  const cluster = {
    namespaces,
    pods: [] as Cluster['pods'][number][],
    services: [] as Cluster['services'][number][],
    nodes: [] as Cluster['nodes'][number][],
    networkPolicies: [] as Cluster['networkPolicies'][number][],
    adminPolicies: [] as Cluster['adminPolicies'][number][],
    foreignPolicies: [] as Cluster['foreignPolicies'][number][],
  } satisfies Cluster;
  for (const object of objects) {
    const { key, value, place } = object;
    const { namespace, name } = key;
    const report = reporter(object, problems);
    const kind = `${key.group}/${key.kind}`;
    if (isWorkload(kind)) {
      if (key.kind !== 'Pod' && controllerOf(object, known)) continue;
      const network = readPod(kind, name, value, report);
      cluster.pods.push({ ...network, kind: key.kind, namespace: namespaceOf(namespaces, namespace), name, place });
    } else if (kind === '/Service') cluster.services.push({ namespace, name, place, ...readService(value, report) });
    else if (kind === '/Node') cluster.nodes.push({ name, ...readNode(value, report) });
    else if (kind === 'networking.k8s.io/NetworkPolicy') {
      const spec = readNetworkPolicy(value, report);
      if (spec) cluster.networkPolicies.push({ namespace, name, spec, place });
    } else if (key.group === 'policy.networking.k8s.io' && isAdminKind(key.kind)) {
      const spec = readAdminPolicy(key.kind, value, report);
      if (spec) cluster.adminPolicies.push({ kind: key.kind, name, spec, place });
    } else {
      const reach = foreignReach(key.group, key.kind, value);
      if (!reach) continue;
      const { clusterWide, ...rest } = reach;
      cluster.foreignPolicies.push({ kind: key.kind, name, place, ...rest, namespace: clusterWide ? '' : namespace });
    }
  }
  refuseExcess(cluster, problems);
  return { cluster, problems };
}

/** An object of the documents, its namespace defaulted. */
interface FoundObject {
  readonly key: ObjectKey;
  readonly value: Value;
  readonly place: Place;
}

function objectsOf(documents: readonly Value[], problems: ClusterProblem[]): FoundObject[] {
  const found = new Map<string, FoundObject>();
  for (const [document, value] of documents.entries()) {
    const items = listItems(value);
    const values = items ? items.map((item, index) => ({ item, path: `/items/${index}` })) : [{ item: value, path: '' }];
    for (const { item, path } of values) {
      const place = { document, path };
      const key = keyOf(item);
      if (typeof key === 'string') problems.push({ ...place, object: '', message: key });
      if (typeof key !== 'object') continue;
      const known = found.get(keyString(key));
      if (!known) found.set(keyString(key), { key, value: item, place });
      else if (canonicalJson(known.value) !== canonicalJson(item))
        problems.push({ ...place, object: objectLabel(key), message: 'the object appears twice, with different contents' });
    }
  }
  return [...found.values()];
}

/** Kinds without a namespace among those that are read. */
const CLUSTER_WIDE = new Set(['/Namespace', '/Node']);

/** The key of an object that is read, undefined for one of another kind, or what is wrong with it. */
function keyOf(value: Value): ObjectKey | string | undefined {
  if (!isMapping(value) || typeof value.apiVersion !== 'string' || typeof value.kind !== 'string')
    return 'is no Kubernetes object: it has no apiVersion and kind';
  const slash = value.apiVersion.indexOf('/');
  const group = slash < 0 ? '' : value.apiVersion.slice(0, slash);
  const { kind } = value;
  if (!isRead(group, kind)) return undefined;
  const { name, namespace } = isMapping(value.metadata) ? value.metadata : {};
  if (typeof name !== 'string' || name === '') return 'has no metadata.name';
  const isClusterWide = CLUSTER_WIDE.has(`${group}/${kind}`) || group === 'policy.networking.k8s.io';
  const own = typeof namespace === 'string' && namespace !== '' ? namespace : 'default';
  return { group, version: value.apiVersion.slice(slash + 1), kind, namespace: isClusterWide ? '' : own, name };
}

function isRead(group: string, kind: string): boolean {
  const name = `${group}/${kind}`;
  return CLUSTER_WIDE.has(name) || isInNamespace(name) || foreignReach(group, kind, null) !== undefined;
}

function isAdminKind(kind: string): kind is 'AdminNetworkPolicy' | 'BaselineAdminNetworkPolicy' {
  return kind === 'AdminNetworkPolicy' || kind === 'BaselineAdminNetworkPolicy';
}

function reporter({ key, place }: FoundObject, problems: ClusterProblem[]): ReportField {
  return (path, message) =>
    problems.push({ document: place.document, path: place.path + path, object: objectLabel(key), message });
}

/** Whether the controller of the object is among the documents. */
function controllerOf({ key, value }: FoundObject, known: ReadonlySet<string>): boolean {
  const metadata = isMapping(value) && isMapping(value.metadata) ? value.metadata : {};
  const owners = Array.isArray(metadata.ownerReferences) ? metadata.ownerReferences : [];
  return owners.filter(isMapping).some(({ apiVersion, kind, name, controller }) => {
    if (controller !== true || typeof kind !== 'string' || typeof name !== 'string') return false;
    const group = String(apiVersion).split('/').slice(0, -1).join('/');
    return known.has(keyString({ group, kind, namespace: key.namespace, name }));
  });
}

/** Kinds whose objects bring their namespace into being here, though nobody declares it. */
function isInNamespace(kind: string): boolean {
  return isWorkload(kind) || kind === '/Service' || kind === 'networking.k8s.io/NetworkPolicy';
}

function readNamespaces(objects: readonly FoundObject[], problems: ClusterProblem[]): Map<string, Namespace> {
  const namespaces = new Map<string, Namespace>();
  for (const object of objects) {
    const { key, value } = object;
    if (key.group !== '' || key.kind !== 'Namespace') continue;
    const labels = labelsOf(value, reporter(object, problems));
    namespaces.set(key.name, { name: key.name, labels: { ...labels, [NAMESPACE_NAME_LABEL]: key.name }, declared: true });
  }
  for (const { key } of objects) if (isInNamespace(`${key.group}/${key.kind}`)) namespaceOf(namespaces, key.namespace);
  return namespaces;
}

function namespaceOf(namespaces: Map<string, Namespace>, name: string): Namespace {
  const known = namespaces.get(name);
  if (known) return known;
  const namespace = { name, labels: { [NAMESPACE_NAME_LABEL]: name }, declared: false };
  namespaces.set(name, namespace);
  return namespace;
}

function labelsOf(value: Value, report: ReportField): Labels {
  const shape: Shape = { some: { metadata: { some: { labels: { mapOf: 'text' } } } } };
  const decoded = decode(value, shape, '', report) as { readonly metadata?: { readonly labels?: Labels } };
  return decoded.metadata?.labels ?? {};
}

const SERVICE: Shape = {
  some: {
    spec: {
      some: {
        type: 'text',
        selector: { mapOf: 'text' },
        ports: { listOf: { some: { protocol: 'text', port: 'int32', targetPort: 'int32 or text' } } },
      },
    },
  },
};

function readService(value: Value, report: ReportField): Omit<Cluster['services'][number], 'namespace' | 'name' | 'place'> {
  const decoded = decode(value, SERVICE, '', report) as {
    readonly spec?: {
      readonly type?: string;
      readonly selector?: Labels;
      readonly ports?: readonly { readonly protocol?: Protocol; readonly port?: number; readonly targetPort?: number | string }[];
    };
  };
  const { type, selector, ports = [] } = decoded.spec ?? {};
  return {
    selector: type === 'ExternalName' ? undefined : selector,
    ports: ports
      .map(({ protocol = 'TCP', port = 0, targetPort = port }) => ({
        protocol,
        port,
        targetPort: targetPort === 0 ? port : targetPort,
      }))
      .filter(({ protocol }) => PROTOCOLS.includes(protocol)),
  };
}

const NODE: Shape = { some: { status: { some: { addresses: { listOf: { some: { type: 'text', address: 'text' } } } } } } };

function readNode(value: Value, report: ReportField): { labels: Labels; addresses: Cluster['nodes'][number]['addresses'] } {
  const decoded = decode(value, NODE, '', report) as {
    readonly status?: { readonly addresses?: readonly { readonly type?: string; readonly address?: string }[] };
  };
  const texts = (decoded.status?.addresses ?? [])
    .filter(({ type }) => type === 'InternalIP' || type === 'ExternalIP')
    .map(({ address = '' }) => address);
  const addresses = readAddresses(texts, (text) => report('/status/addresses', `${JSON.stringify(text)} is no IP address`));
  return { labels: labelsOf(value, report), addresses };
}

function refuseExcess({ pods, networkPolicies, adminPolicies, foreignPolicies }: Cluster, problems: ClusterProblem[]): void {
  const policies = networkPolicies.length + adminPolicies.length + foreignPolicies.length;
  const add = (message: string) => problems.push({ document: 0, path: '', object: '', message });
  if (pods.length > MAX_PODS) add(`there are ${pods.length} pods and workloads, the limit is ${MAX_PODS}`);
  if (policies > MAX_POLICIES) add(`there are ${policies} policies, the limit is ${MAX_POLICIES}`);
}
