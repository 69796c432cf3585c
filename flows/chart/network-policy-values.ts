import type { PartialFacts } from '#flows/model/facts.ts';
import type { EndpointBody, FlowSetFile, FlowSpec } from '#flows/model/flowset.ts';

/** A peer as the values of the charts name it: that of a NetworkPolicy. */
export interface PeerValue {
  readonly namespaceSelector?: Readonly<Record<string, unknown>>;
  readonly podSelector?: Readonly<Record<string, unknown>>;
  readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] };
}

/** The values of the broker's chart that decide who talks to it and to whom it talks. */
export interface BrokerValues {
  readonly networkPolicy: {
    /** Who reaches the API, beside agents; none means every pod of the broker's namespace. */
    readonly allowIngressFrom?: readonly PeerValue[];
    /** Who scrapes metrics; none means nobody. */
    readonly allowMetricsFrom?: readonly PeerValue[];
    /** Default true. */
    readonly allowWebhookEgress?: boolean;
  };
  /** A database outside the cluster. Its addresses have to be known: there is no rule for all of them. */
  readonly postgresql?: { readonly external?: { readonly cidr: string; readonly port?: number } };
}

/** The values of the agent's chart that decide who talks to it and to whom it talks. */
export interface AgentValues {
  readonly networkPolicy: {
    /** Addresses of the API server; without, those of the facts. */
    readonly kubernetesApiCidr?: string;
    /** Where the broker is; without, as the flow set says. */
    readonly brokerEndpoint?: PeerValue;
    readonly brokerPort?: number;
    readonly allowMetricsFrom?: readonly PeerValue[];
  };
  readonly metrics?: { readonly enabled?: boolean };
}

/**
 * The flow set of examples/brokkr under the values of the broker's chart. Throws an `Error` for a peer without any selector, which a
 * NetworkPolicy cannot have either.
 */
export function withBrokerValues(file: FlowSetFile, { networkPolicy, postgresql }: BrokerValues): FlowSetFile {
  const { allowIngressFrom = [], allowMetricsFrom = [], allowWebhookEgress = true } = networkPolicy;
  const namespace = namespaceOf(file, 'broker');
  const [ingress = { podSelector: {} }, ...others] = allowIngressFrom;
  let { spec } = replaced(file, 'ingress', peerBody(ingress, namespace));
  const further = named('ingress', others, namespace, 2);
  if (others.length > 0) {
    const flow = { id: 'further-broker', from: Object.keys(further), to: 'broker', ports: 3000, application: 'HTTP' };
    spec = { ...spec, endpoints: { ...spec.endpoints, ...further }, flows: [...spec.flows, flow] };
  }
  const features = { ...spec.features, webhooks: allowWebhookEgress };
  const result = withScrapers({ ...file, spec: { ...spec, features } }, 'broker', namespace, allowMetricsFrom);
  const external = postgresql?.external;
  if (!external) return result;
  const flows = result.spec.flows.map((flow) =>
    flow.id === 'broker-db' ? { ...withoutDirection(flow), ports: external.port ?? 5432 } : flow,
  );
  return replaced({ ...result, spec: { ...result.spec, flows } }, 'db', { cidr: external.cidr });
}

/** The flow set of examples/brokkr under the values of the agent's chart, with the facts that they state. Throws as `withBrokerValues`. */
export function withAgentValues(
  file: FlowSetFile,
  { networkPolicy, metrics }: AgentValues,
): { readonly file: FlowSetFile; readonly facts: PartialFacts } {
  const { kubernetesApiCidr, brokerEndpoint, brokerPort = 3000, allowMetricsFrom = [] } = networkPolicy;
  const namespace = namespaceOf(file, 'agent');
  const scraped = withScrapers(file, 'agent', namespace, metrics?.enabled === true ? allowMetricsFrom : []);
  const flows = scraped.spec.flows.map((flow) =>
    flow.id === 'agent-broker' ? { ...withoutDirection(flow), ports: brokerPort } : flow,
  );
  const ported = { ...scraped, spec: { ...scraped.spec, flows } };
  return {
    file: brokerEndpoint ? withBrokerAt(ported, peerBody(brokerEndpoint, namespace)) : ported,
    facts: kubernetesApiCidr === undefined ? {} : { apiServer: { serviceIP: '', endpoints: [kubernetesApiCidr] } },
  };
}

/** Points the agent's flow at a broker that this chart does not install. */
function withBrokerAt(file: FlowSetFile, body: EndpointBody): FlowSetFile {
  const endpoints = { ...file.spec.endpoints, 'remote-broker': { title: 'Broker', ...body } };
  const flows = file.spec.flows.map((flow) => (flow.id === 'agent-broker' ? { ...flow, to: 'remote-broker' } : flow));
  return { ...file, spec: { ...file.spec, endpoints, flows } };
}

/** Metrics of a component for exactly these scrapers. */
function withScrapers(file: FlowSetFile, component: string, namespace: string, peers: readonly PeerValue[]): FlowSetFile {
  const scrapers = named(`${component}-scraper`, peers, namespace, 1);
  const id = `prometheus-${component}`;
  const flows = file.spec.flows.flatMap((flow) => {
    if (flow.id !== id) return [flow];
    return peers.length === 0 ? [] : [{ ...withoutDirection(flow), from: Object.keys(scrapers) }];
  });
  return { ...file, spec: { ...file.spec, endpoints: { ...file.spec.endpoints, ...scrapers }, flows } };
}

function named(prefix: string, peers: readonly PeerValue[], namespace: string, first: number): Record<string, EndpointBody> {
  return Object.fromEntries(peers.map((peer, index) => [`${prefix}-${index + first}`, peerBody(peer, namespace)]));
}

/** Selectors as a NetworkPolicy means them: pods alone are those of the policy's own namespace. */
function peerBody({ namespaceSelector, podSelector, ipBlock }: PeerValue, namespace: string): EndpointBody {
  if (ipBlock) return { cidr: ipBlock.cidr, ...(ipBlock.except && ipBlock.except.length > 0 && { except: ipBlock.except }) };
  if (!namespaceSelector && !podSelector)
    throw new Error('a peer needs a namespaceSelector, a podSelector or an ipBlock, otherwise it would be everybody');
  return {
    namespaces: namespaceSelector ?? { 'kubernetes.io/metadata.name': namespace },
    pods: podSelector ?? {},
  };
}

/** Replaces who an endpoint is and keeps how documents call it. */
function replaced(file: FlowSetFile, name: string, body: EndpointBody): FlowSetFile {
  const { title, titles, description, element } = file.spec.endpoints[name] ?? {};
  const words = Object.entries({ title, titles, description, element }).filter(([, value]) => value !== undefined);
  const endpoints = { ...file.spec.endpoints, [name]: { ...Object.fromEntries(words), ...body } };
  return { ...file, spec: { ...file.spec, endpoints } };
}

/** A direction is stated for the peer that was; the new one has its own. */
function withoutDirection({ direction: _, ...flow }: FlowSpec): FlowSpec {
  return flow;
}

function namespaceOf({ spec }: FlowSetFile, endpoint: string): string {
  const zone = spec.zones.find(({ name }) => name === spec.endpoints[endpoint]?.zone);
  if (zone?.namespace === undefined) throw new Error(`the flow set has no namespace for ${endpoint}`);
  return zone.namespace;
}
