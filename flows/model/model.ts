/** Transport protocols that NetworkPolicy v1 knows. */
export const PROTOCOLS = ['TCP', 'UDP', 'SCTP'] as const;
export type Protocol = (typeof PROTOCOLS)[number];

/** Directions a zone may deny by default. */
export type Direction = 'ingress' | 'egress';

/** What a flow is for; decides how it is compiled (`metrics`, `webhook`) and in which table it is listed. */
export const FLOW_KINDS = ['system', 'application', 'metrics', 'webhook', 'dns', 'control'] as const;
export type FlowKind = (typeof FLOW_KINDS)[number];

/** A selector as in the Kubernetes API (`metav1.LabelSelector`); both empty selects everything. */
export interface LabelSelector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist';
    readonly values?: readonly string[];
  }[];
}

/**
 * Ports of a flow: target ports (what the container listens on), inclusive, or the name of a container port of the destination. `all`
 * means every port of the protocol.
 */
export type PortSpec =
  | { readonly kind: 'range'; readonly first: number; readonly last: number }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'all' };

/** A part of a cluster, or a place outside. The namespace is the unit of default deny. */
export interface Zone {
  readonly name: string;
  readonly title: string;
  /** Undefined for places without a namespace: the Internet, an office, a host. */
  readonly namespace: string | undefined;
  /** The cluster it is in, in flow sets over several clusters; '' where there is one only, or for places outside. */
  readonly cluster: string;
  /** Directions denied by default. Nothing is compiled for a zone that isolates nothing. */
  readonly isolate: readonly Direction[];
  readonly trust: 'trusted' | 'untrusted';
  /** For layered drawings, such as `external`, `ingress`, `pods`, `services`; '' without. */
  readonly layer: string;
  /** Where it is declared: `flows.yaml:8:7`. */
  readonly place: string;
}

/** Who an endpoint is in the network. */
export type Peer =
  /** Pods of the endpoint's zone. */
  | { readonly kind: 'pods'; readonly selector: LabelSelector }
  /** Every pod of the namespaces that a selector names, or of those pods. Belongs to no zone. */
  | { readonly kind: 'namespaces'; readonly namespaces: LabelSelector; readonly pods: LabelSelector }
  /** Address ranges, with all that is excluded (named sets and cluster facts are resolved already). */
  | { readonly kind: 'addresses'; readonly cidrs: readonly string[]; readonly except: readonly string[] }
  /** Any source or destination, inside or outside. */
  | { readonly kind: 'any' }
  /** The API server, at the addresses and ports of the facts. */
  | { readonly kind: 'kube-api' }
  /** DNS, at the pods, ports and node-local address of the facts. */
  | { readonly kind: 'dns' }
  /** Names outside, for platforms that can match them (CiliumNetworkPolicy); `addresses` for those that cannot. */
  | { readonly kind: 'names'; readonly names: readonly string[]; readonly cidrs: readonly string[] };

/** A port of a Service in front of an endpoint. Policies act behind it, on the target port. */
export interface ServicePort {
  readonly service: string;
  readonly type: 'ClusterIP' | 'NodePort' | 'LoadBalancer' | 'ExternalName';
  readonly protocol: Protocol;
  readonly port: number;
  readonly targetPort: number | string;
}

/** A named peer of flows. */
export interface Endpoint {
  readonly name: string;
  /** As written in documents: `K8s API`. */
  readonly title: string;
  /** Its title where a document words it differently, by table name (`multicluster`, `host-broker`), or `diagram`. */
  readonly titles: Readonly<Record<string, string>>;
  readonly description: string;
  /** Name of its zone; '' for peers without one. Where it is drawn, for peers that are not pods of the zone. */
  readonly zone: string;
  readonly peer: Peer;
  /** Shape in drawings. */
  readonly element: 'person' | 'system' | 'external' | 'database';
  /** Whether DNS egress is added when its zone isolates egress. */
  readonly dns: boolean;
  /** Container ports by name, where declared; named ports are resolved with them. */
  readonly namedPorts: Readonly<Record<string, { readonly protocol: Protocol; readonly port: number }>>;
  readonly servicePorts: readonly ServicePort[];
  /** Port on a developer's or operator's host that is mapped to it, for `HOST-PORT-CONFLICT`. */
  readonly hostPorts: readonly { readonly host: number; readonly container: number }[];
  /** How it is named outside Kubernetes: security group, network tag, application security group, addresses of its hosts. */
  readonly firewall: FirewallIdentity;
  /** Whether it is Brokkr's own agent, whose way to the broker, the API server and DNS a set may not close; '' for all others. */
  readonly self: 'agent' | '';
  /** Facts that its peer is made of, by path: `apiServer.ports`, `podCIDRs`. */
  readonly facts: readonly string[];
  /** Profiles of the compile whose overlay has changed it. */
  readonly overlays: readonly string[];
  /** Where it is declared: `flows.yaml:14:5`. */
  readonly place: string;
}

/** Identities of an endpoint on platforms with firewalls of their own. */
export interface FirewallIdentity {
  /** Hosts' addresses; used where a platform cannot name groups. */
  readonly cidrs: readonly string[];
  readonly awsSecurityGroup: string | undefined;
  readonly gcpTag: string | undefined;
  readonly azureApplicationSecurityGroup: string | undefined;
}

/**
 * One declared conversation: `from` opens connections to `to`. A declaration that names several sources or destinations gives one flow for
 * each pair, all with its id.
 */
export interface Flow {
  readonly id: string;
  readonly from: string;
  readonly to: string;
  /** Never empty; all of them where the ports are `all` and no protocol is stated. */
  readonly protocols: readonly Protocol[];
  readonly ports: readonly PortSpec[];
  /** As in documents: HTTPS, gRPC, TCP. */
  readonly application: string;
  readonly required: boolean;
  /** Switches an optional flow on; '' when it is always on. */
  readonly feature: string;
  /** As stated, or derived from the zones. Words of the documents: inbound, outbound, internal, local. */
  readonly direction: 'inbound' | 'outbound' | 'internal' | 'local';
  readonly northSouth: boolean;
  readonly kind: FlowKind;
  readonly purpose: string;
  /** Its purpose where a table words it differently, by table name. */
  readonly purposes: Readonly<Record<string, string>>;
  /** Short verb phrase for arrows; '' means the purpose. */
  readonly label: string;
  readonly tls: string;
  readonly auth: string;
  readonly owner: string;
  readonly ticket: string;
  /** Date (YYYY-MM-DD) after which the flow is dropped; '' for ever. */
  readonly expires: string;
  /** Profiles it is declared for; empty for all. */
  readonly profiles: readonly string[];
  /**
   * Endpoints the connection passes on its way, with the port and application protocol of each hop to them. The last may be the
   * destination itself, where the last hop is spoken differently from the whole.
   */
  readonly via: readonly {
    readonly endpoint: string;
    readonly port: number;
    readonly application: string;
    readonly label: string;
  }[];
  /** Assumed rather than drawn (V-023): compiled, and listed apart. */
  readonly implicit: boolean;
  /** Tables the flow is listed in, such as `east-west`; free words. */
  readonly tables: readonly string[];
  /** Lints that are accepted for it, with the reason. */
  readonly accepted: readonly { readonly lint: string; readonly reason: string }[];
  /** Where it is declared, for messages: `flows.yaml:31:7`. */
  readonly place: string;
}

/** What a column of a table shows of a flow. */
export const TABLE_FIELDS = [
  'id',
  'from',
  'from.cluster',
  'to',
  'to.cluster',
  'ports',
  'protocols',
  'application',
  'direction',
  'required',
  'purpose',
] as const;
export type TableField = (typeof TABLE_FIELDS)[number];

/** A listing of flows in documents: those that name it in their `tables`. */
export interface FlowTable {
  readonly name: string;
  readonly title: string;
  readonly columns: readonly { readonly title: string; readonly field: TableField }[];
  /** Rows are sorted by its text; undefined: in the order of the flows. */
  readonly sortBy: TableField | undefined;
}

/** A flow of the set that this model does not have. */
export interface DroppedFlow {
  readonly flow: Flow;
  readonly why: 'profile' | 'feature' | 'expired';
}

/** What a compile has to know about a cluster, and from where it knows it. */
export interface Facts {
  readonly cni: 'generic' | 'calico' | 'cilium' | 'aws' | 'ovn';
  readonly podCIDRs: readonly string[];
  readonly serviceCIDRs: readonly string[];
  readonly nodeCIDRs: readonly string[];
  readonly apiServer: {
    readonly serviceIP: string;
    /** Addresses or CIDRs behind the Service. */
    readonly endpoints: readonly string[];
    readonly ports: readonly number[];
  };
  readonly dns: {
    readonly namespace: string;
    readonly selector: LabelSelector;
    readonly ports: readonly number[];
    readonly nodeLocalIP: string;
  };
  readonly metadataIPs: readonly string[];
  readonly ipFamilies: readonly ('IPv4' | 'IPv6')[];
  /** By the path of the fact (`apiServer.ports`). */
  readonly sources: Readonly<Record<string, 'declared' | 'discovered' | 'assumed'>>;
}

/** A flow set for one profile, one set of features, one day and one cluster's facts. Nothing in it is left to be looked up. */
export interface Model {
  readonly name: string;
  /** For documents; '' means the name. */
  readonly title: string;
  /** The profiles it was made for, the base first and overlays after it; empty for a set without profiles. */
  readonly profiles: readonly string[];
  readonly singleton: boolean;
  readonly facts: Facts;
  readonly zones: ReadonlyMap<string, Zone>;
  readonly endpoints: ReadonlyMap<string, Endpoint>;
  /** Active flows in the order of the file; those added for DNS and for the agent itself come last. */
  readonly flows: readonly Flow[];
  readonly dropped: readonly DroppedFlow[];
  /** In the order of the file. */
  readonly tables: readonly FlowTable[];
  /** Lints accepted for the whole set, with reasons. */
  readonly accepted: readonly { readonly lint: string; readonly subject: string; readonly reason: string }[];
  /** Proxies and other parts that documents list and no flow names (V-040). */
  readonly inventory: readonly InventoryItem[];
}

/** A row of a table of parts. */
export interface InventoryItem {
  readonly usage: string;
  readonly product: string;
  readonly pod: string;
  readonly namespace: string;
  readonly description: string;
}
