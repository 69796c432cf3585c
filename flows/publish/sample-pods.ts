import type { Endpoint, LabelSelector, Model } from '#flows/model/model.ts';
import type { ValueObject } from '#lib/object.ts';

/** A pod that stands for all that an endpoint selects, or for what no endpoint does. */
export interface SamplePod {
  /** The object, as `readCluster` takes it: a workload, so that it reaches another replica of itself. */
  readonly object: ValueObject;
  readonly namespace: string;
  readonly name: string;
  /** Undefined for pods that no endpoint selects. */
  readonly endpoint: Endpoint | undefined;
}

/** A namespace that no flow set names. */
const ELSEWHERE = 'any-other-namespace';
const OTHER = 'any-other-pod';

/**
 * Pods for every endpoint of a model, one that no endpoint selects in each of its namespaces, and one in another namespace: what policies
 * of the model are looked at with when the pods of the cluster are not known. DNS is the pod that the facts select.
 */
export function samplePods(model: Model): readonly SamplePod[] {
  const samples = [...model.endpoints.values()].flatMap((endpoint) => samplesOf(model, endpoint));
  const namespaces = new Set([...samples.map(({ namespace }) => namespace), ...zoneNamespaces(model), ELSEWHERE]);
  return [...samples, ...[...namespaces].map((namespace) => sample(namespace, OTHER, {}, undefined))];
}

function zoneNamespaces({ zones }: Model): readonly string[] {
  return [...zones.values()].flatMap(({ namespace }) => namespace ?? []);
}

function samplesOf({ zones, facts }: Model, endpoint: Endpoint): SamplePod[] {
  const { peer, zone, name } = endpoint;
  switch (peer.kind) {
    case 'pods': {
      const namespace = zones.get(zone)?.namespace;
      return namespace === undefined ? [] : [sample(namespace, name, labelsOf(peer.selector), endpoint)];
    }
    case 'dns':
      return [sample(facts.dns.namespace, name, labelsOf(facts.dns.selector), endpoint)];
    default:
      return [];
  }
}

function sample(
  namespace: string,
  name: string,
  labels: Readonly<Record<string, string>>,
  endpoint: Endpoint | undefined,
): SamplePod {
  const ports = Object.entries(endpoint?.namedPorts ?? {}).map(([port, { protocol, port: containerPort }]) => {
    return { name: port, protocol, containerPort };
  });
  const template = { metadata: { labels: { ...labels } }, spec: { containers: [{ name: 'main', ports }] } };
  const object = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name, namespace }, spec: { template } };
  return { object, namespace, name, endpoint };
}

/** Labels that satisfy a selector, as far as single labels can. */
function labelsOf({ matchLabels = {}, matchExpressions = [] }: LabelSelector): Readonly<Record<string, string>> {
  const chosen = matchExpressions.flatMap(({ key, operator, values = [] }) => {
    if (operator === 'In') return [[key, values[0] ?? ''] as const];
    return operator === 'Exists' ? [[key, ''] as const] : [];
  });
  return { ...Object.fromEntries(chosen), ...matchLabels };
}
