import type { Document } from './document.ts';
import type {
  Direction,
  Endpoint,
  Flow,
  FlowKind,
  InventoryItem,
  LabelSelector,
  Protocol,
  ServicePort,
  TableField,
  Zone,
} from './model.ts';

/** A flow set as written: flowset.schema.json describes each field. Every name in it is known to exist once it is loaded. */
export interface FlowSet {
  readonly name: string;
  readonly spec: FlowSetSpec;
  /** Flows with templates expanded, each with its place. */
  readonly flows: readonly PlacedFlow[];
  /** Names of the profiles, as declared, else `production` and those that are used; empty when none is. */
  readonly profiles: readonly string[];
  /** Every feature that a flow names. */
  readonly features: readonly string[];
  readonly at: Document<unknown>['at'];
}

/** The file. */
export interface FlowSetFile {
  readonly metadata: { readonly name: string };
  readonly spec: FlowSetSpec;
}

/** Its `spec`. */
export interface FlowSetSpec {
  readonly title?: string;
  readonly singleton?: boolean;
  readonly profiles?: readonly string[];
  readonly features?: Readonly<Record<string, boolean>>;
  readonly defaults?: { readonly deny?: readonly Direction[]; readonly dns?: boolean; readonly protocol?: Protocol };
  readonly zones: readonly ZoneSpec[];
  readonly endpoints: Readonly<Record<string, EndpointSpec>>;
  readonly flows: readonly FlowSpec[];
  readonly options?: Readonly<Record<string, EndpointBody>>;
  readonly accepted?: readonly { readonly lint: string; readonly subject?: string; readonly reason: string }[];
  readonly tables?: Readonly<Record<string, TableSpec>>;
  readonly inventory?: readonly (Pick<InventoryItem, 'usage' | 'product'> & Partial<InventoryItem>)[];
}

/** A listing of flows. */
export interface TableSpec {
  readonly title?: string;
  readonly columns: Readonly<Record<string, TableField>>;
  readonly sortBy?: TableField;
}

/** A zone. */
export type ZoneSpec = Pick<Zone, 'name'> & Partial<Omit<Zone, 'name' | 'place' | 'namespace'>> & { readonly namespace?: string };

/** What overlays may replace. */
export interface EndpointBody {
  readonly pods?: SelectorSpec;
  readonly namespaces?: SelectorSpec;
  readonly cidr?: OneOrMore;
  readonly except?: OneOrMore;
  readonly any?: true;
  readonly builtin?: 'kube-api' | 'dns';
  readonly names?: readonly string[];
  readonly zone?: string;
  readonly title?: string;
  readonly titles?: Readonly<Record<string, string>>;
  readonly description?: string;
  readonly element?: Endpoint['element'];
  readonly dns?: boolean;
  readonly services?: readonly ServiceSpec[];
  readonly namedPorts?: Readonly<Record<string, { readonly port: number; readonly protocol?: Protocol }>>;
  readonly hostPorts?: Endpoint['hostPorts'];
  readonly firewall?: Partial<Endpoint['firewall']>;
  readonly self?: 'agent';
}

/** An endpoint. */
export interface EndpointSpec extends EndpointBody {
  readonly profiles?: Readonly<Record<string, EndpointBody>>;
}

/** A Service in front of an endpoint. */
export interface ServiceSpec {
  readonly name: string;
  readonly type?: ServicePort['type'];
  readonly externalName?: string;
  readonly ports?: readonly { readonly port: number; readonly targetPort?: number | string; readonly protocol?: Protocol }[];
}

/** A flow, or a template of flows. */
export interface FlowSpec extends FlowWords {
  readonly id: string;
  readonly from?: OneOrMore;
  readonly to?: OneOrMore;
  readonly ports?: PortsSpec;
  readonly protocol?: Protocol | readonly Protocol[];
  readonly required?: boolean;
  readonly feature?: string;
  readonly direction?: Flow['direction'];
  readonly kind?: FlowKind;
  readonly expires?: string;
  readonly profiles?: readonly string[];
  readonly via?: readonly {
    readonly endpoint: string;
    readonly port: number;
    readonly application?: string;
    readonly label?: string;
  }[];
  readonly implicit?: boolean;
  readonly tables?: readonly string[];
  readonly accepted?: Flow['accepted'];
  readonly template?: string;
  readonly with?: Readonly<Record<string, unknown>>;
}

/** What documents say about a flow. */
type FlowWords = Partial<Pick<Flow, 'application' | 'purpose' | 'purposes' | 'label' | 'tls' | 'auth' | 'owner' | 'ticket'>>;

/** A flow with where it stands; those of one template stand at one place. */
export interface PlacedFlow {
  readonly flow: FlowSpec & { readonly from: OneOrMore; readonly to: OneOrMore };
  /** Path in the file. */
  readonly path: readonly (string | number)[];
}

/** One text, or several. */
export type OneOrMore = string | readonly string[];

/** Ports as written. */
export type PortsSpec = number | string | readonly (number | string)[];

/** Labels that must match, or a whole LabelSelector. */
export type SelectorSpec = Readonly<Record<string, unknown>>;

/** The list of one text or several. */
export function listOf<T>(value: T | readonly T[] | undefined): readonly T[] {
  if (value === undefined) return [];
  return Array.isArray(value) ? value : [value as T];
}

/** The selector that is meant: a mapping with `matchLabels` or `matchExpressions` is one, any other holds labels. */
export function selectorOf(spec: SelectorSpec): LabelSelector {
  if ('matchLabels' in spec || 'matchExpressions' in spec) return spec as LabelSelector;
  return Object.keys(spec).length === 0 ? {} : { matchLabels: spec as Readonly<Record<string, string>> };
}
