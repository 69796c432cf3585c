import type { Endpoint, Facts, Flow, Model, PortSpec, Zone } from '../../flows/model/model.ts';

/** What an endpoint of a test has to say; the rest is filled in. */
export type EndpointFields = Omit<Partial<Endpoint>, 'firewall'> & { readonly firewall?: Partial<Endpoint['firewall']> };
/** What a flow of a test has to say. */
export type FlowFields = Pick<Flow, 'from' | 'to'> &
  Omit<Partial<Flow>, 'ports'> & { readonly ports?: readonly (number | PortSpec)[] };

const FACTS: Facts = {
  cni: 'generic',
  podCIDRs: ['10.244.0.0/16'],
  serviceCIDRs: ['10.96.0.0/12'],
  nodeCIDRs: ['10.0.0.0/16'],
  apiServer: { serviceIP: '10.96.0.1', endpoints: ['10.0.0.2'], ports: [6443] },
  dns: { namespace: 'kube-system', selector: { matchLabels: { 'k8s-app': 'kube-dns' } }, ports: [53], nodeLocalIP: '' },
  metadataIPs: ['169.254.169.254'],
  ipFamilies: ['IPv4', 'IPv6'],
  sources: {},
};

/** A resolved model by hand, for tests of what reads models. Endpoints without a peer are pods of their zone. */
export function handMadeModel(parts: {
  readonly title?: string;
  readonly zones?: Readonly<Record<string, Partial<Zone>>>;
  readonly endpoints: Readonly<Record<string, EndpointFields>>;
  readonly flows: readonly FlowFields[];
  readonly facts?: Partial<Facts>;
  readonly tables?: Model['tables'];
}): Model {
  const zones = Object.entries(parts.zones ?? {}).map(([name, zone]) => [name, fullZone(name, zone)] as const);
  const endpoints = Object.entries(parts.endpoints).map(([name, endpoint]) => [name, fullEndpoint(name, endpoint)] as const);
  return {
    name: 'test',
    title: parts.title ?? '',
    profiles: [],
    singleton: false,
    facts: { ...FACTS, ...parts.facts },
    zones: new Map(zones),
    endpoints: new Map(endpoints),
    flows: parts.flows.map(fullFlow),
    dropped: [],
    tables: parts.tables ?? [],
    accepted: [],
    inventory: [],
  };
}

function fullZone(name: string, zone: Partial<Zone>): Zone {
  return {
    name,
    title: name,
    namespace: undefined,
    cluster: '',
    isolate: [],
    trust: 'trusted',
    layer: '',
    place: 'test.yaml:1:1',
    ...zone,
  };
}

function fullEndpoint(name: string, { firewall, ...endpoint }: EndpointFields): Endpoint {
  return {
    name,
    title: name,
    titles: {},
    description: '',
    zone: '',
    peer: { kind: 'pods', selector: { matchLabels: { app: name } } },
    element: 'system',
    dns: false,
    namedPorts: {},
    facts: [],
    servicePorts: [],
    hostPorts: [],
    self: '',
    overlays: [],
    place: 'test.yaml:1:1',
    ...endpoint,
    firewall: {
      cidrs: [],
      awsSecurityGroup: undefined,
      gcpTag: undefined,
      azureApplicationSecurityGroup: undefined,
      ...firewall,
    },
  };
}

function fullFlow({ ports = [], ...flow }: FlowFields): Flow {
  return {
    id: `${flow.from}-${flow.to}`,
    protocols: ['TCP'],
    application: '',
    required: true,
    feature: '',
    direction: 'internal',
    northSouth: false,
    kind: 'application',
    purpose: '',
    purposes: {},
    label: '',
    tls: '',
    auth: '',
    owner: '',
    ticket: '',
    expires: '',
    profiles: [],
    via: [],
    implicit: false,
    tables: [],
    accepted: [],
    place: 'test.yaml:1:1',
    ...flow,
    ports: ports.map((port) => (typeof port === 'number' ? { kind: 'range', first: port, last: port } : port)),
  };
}
