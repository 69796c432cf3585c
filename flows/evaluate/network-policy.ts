import { type Direction, type LabelSelector, PROTOCOLS, type Protocol } from '#flows/model/model.ts';
import { type Cidr, hasAddress, parseCidr } from '#flows/sets/addresses.ts';
import type { Value } from '#lib/object.ts';
import { checkSelector, SELECTOR_SHAPE } from './label-selector.ts';
import { checkMetadata, METADATA_SHAPE } from './metadata.ts';
import { decode, type ReportField, type Shape } from './shape.ts';

/** `spec` of a `networking.k8s.io/v1` NetworkPolicy, after the API server's defaults. */
export interface NetworkPolicySpec {
  readonly podSelector: LabelSelector;
  readonly policyTypes: readonly ('Ingress' | 'Egress')[];
  /** Whether `policyTypes` was written. */
  readonly typesWritten: boolean;
  readonly ingress: readonly NetworkPolicyRule[];
  readonly egress: readonly NetworkPolicyRule[];
}

/** A rule; `from` and `to` are both `peers` here. Empty lists mean everyone and everything. */
export interface NetworkPolicyRule {
  readonly peers: readonly NetworkPolicyPeer[];
  readonly ports: readonly NetworkPolicyPort[];
}

/** One item of `from` or `to`. */
export interface NetworkPolicyPeer {
  readonly podSelector?: LabelSelector;
  readonly namespaceSelector?: LabelSelector;
  readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] };
}

/** One item of `ports`. */
export interface NetworkPolicyPort {
  readonly protocol: Protocol;
  /** Absent: all ports of the protocol. */
  readonly port?: number | string;
  readonly endPort?: number;
}

/** Name of the list of peers in a direction's rules. */
export const PEERS_FIELD: Readonly<Record<Direction, 'from' | 'to'>> = { ingress: 'from', egress: 'to' };

const PEER: Shape = {
  fields: {
    podSelector: SELECTOR_SHAPE,
    namespaceSelector: SELECTOR_SHAPE,
    ipBlock: { fields: { cidr: 'text', except: { listOf: 'text' } } },
  },
};
const PORT: Shape = { fields: { protocol: 'text', port: 'int32 or text', endPort: 'int32' } };

const POLICY: Shape = {
  fields: {
    apiVersion: 'text',
    kind: 'text',
    metadata: METADATA_SHAPE,
    spec: {
      fields: {
        podSelector: SELECTOR_SHAPE,
        policyTypes: { listOf: 'text' },
        ingress: { listOf: { fields: { from: { listOf: PEER }, ports: { listOf: PORT } } } },
        egress: { listOf: { fields: { to: { listOf: PEER }, ports: { listOf: PORT } } } },
      },
    },
  },
};

/** What comes out of the decoder. */
interface Decoded {
  readonly metadata?: Readonly<Record<string, unknown>>;
  readonly spec?: {
    readonly podSelector?: LabelSelector;
    readonly policyTypes?: readonly string[];
    readonly ingress?: readonly DecodedRule[];
    readonly egress?: readonly DecodedRule[];
  };
}

interface DecodedRule {
  readonly from?: readonly NetworkPolicyPeer[];
  readonly to?: readonly NetworkPolicyPeer[];
  readonly ports?: readonly Partial<NetworkPolicyPort>[];
}

/**
 * Reads a NetworkPolicy as the API server does with `fieldValidation=Strict`: decode, defaults, validation (kubernetes
 * `pkg/apis/networking/validation`). Reports what the server refuses; undefined then.
 */
export function readNetworkPolicy(value: Value, report: ReportField): NetworkPolicySpec | undefined {
  let failed = false;
  const track: ReportField = (path, message) => {
    failed = true;
    report(path, message);
  };
  const decoded = decode(value, POLICY, '', track) as Decoded;
  if (failed) return undefined;
  const { podSelector = {}, policyTypes = [], ingress = [], egress = [] } = decoded.spec ?? {};
  checkMetadata(decoded.metadata, track);
  checkSelector(podSelector, '/spec/podSelector', track);
  for (const [index, rule] of ingress.entries()) checkRule(rule.from, rule.ports, `/spec/ingress/${index}`, 'from', track);
  for (const [index, rule] of egress.entries()) checkRule(rule.to, rule.ports, `/spec/egress/${index}`, 'to', track);
  checkTypes(policyTypes, track);
  if (failed) return undefined;
  const written = policyTypes.map((type) => (type === 'Egress' ? 'Egress' : 'Ingress'));
  return {
    podSelector,
    policyTypes: written.length > 0 ? written : egress.length > 0 ? ['Ingress', 'Egress'] : ['Ingress'],
    typesWritten: written.length > 0,
    ingress: ingress.map(({ from, ports }) => toRule(from, ports)),
    egress: egress.map(({ to, ports }) => toRule(to, ports)),
  };
}

function toRule(peers: readonly NetworkPolicyPeer[] = [], ports: DecodedRule['ports'] = []): NetworkPolicyRule {
  return { peers, ports: ports.map((port) => ({ ...port, protocol: port.protocol ?? 'TCP' })) };
}

function checkTypes(types: readonly string[], report: ReportField): void {
  if (types.length > 2) report('/spec/policyTypes', 'more than two policy types');
  for (const [index, type] of types.entries()) {
    if (type !== 'Ingress' && type !== 'Egress') report(`/spec/policyTypes/${index}`, 'must be Ingress or Egress');
  }
}

function checkRule(
  peers: readonly NetworkPolicyPeer[] = [],
  ports: readonly Partial<NetworkPolicyPort>[] = [],
  path: string,
  field: 'from' | 'to',
  report: ReportField,
): void {
  for (const [index, port] of ports.entries()) checkPort(port, `${path}/ports/${index}`, report);
  for (const [index, peer] of peers.entries()) checkPeer(peer, `${path}/${field}/${index}`, report);
}

function checkPort({ protocol, port, endPort }: Partial<NetworkPolicyPort>, path: string, report: ReportField): void {
  if (protocol !== undefined && !PROTOCOLS.includes(protocol)) report(`${path}/protocol`, `must be ${PROTOCOLS.join(', ')}`);
  if (typeof port === 'string') {
    if (!isPortName(port)) report(`${path}/port`, 'the name of a port is at most 15 of a-z 0-9 -, one of them a letter');
    if (endPort !== undefined) report(`${path}/endPort`, 'endPort needs a port that is a number');
  } else if (port !== undefined) {
    if (!isPort(port)) report(`${path}/port`, 'must be between 1 and 65535');
    if (endPort !== undefined && !isPort(endPort)) report(`${path}/endPort`, 'must be between 1 and 65535');
    if (endPort !== undefined && endPort < port) report(`${path}/endPort`, 'must be at least port');
  } else if (endPort !== undefined) report(`${path}/endPort`, 'endPort needs a port');
}

function checkPeer({ podSelector, namespaceSelector, ipBlock }: NetworkPolicyPeer, path: string, report: ReportField): void {
  if (podSelector) checkSelector(podSelector, `${path}/podSelector`, report);
  if (namespaceSelector) checkSelector(namespaceSelector, `${path}/namespaceSelector`, report);
  if (ipBlock) checkBlock(ipBlock, `${path}/ipBlock`, report);
  if (!podSelector && !namespaceSelector && !ipBlock)
    report(path, 'names no peer: give podSelector, namespaceSelector or ipBlock');
  if (ipBlock && (podSelector || namespaceSelector)) report(path, 'ipBlock excludes podSelector and namespaceSelector');
}

function checkBlock(
  { cidr = '', except = [] }: { cidr?: string; except?: readonly string[] },
  path: string,
  report: ReportField,
) {
  const block = parseCidr(cidr);
  if (!block) return report(`${path}/cidr`, NO_CIDR);
  for (const [index, text] of except.entries()) {
    const hole = parseCidr(text);
    if (!hole) report(`${path}/except/${index}`, NO_CIDR);
    else if (!isStrictlyInside(hole, block)) report(`${path}/except/${index}`, 'must lie inside cidr and be smaller');
  }
}

const NO_CIDR = 'must be a CIDR such as 10.0.0.0/8 or 2001:db8::/32, no bits set behind the prefix, no leading zeros';

function isStrictlyInside(part: Cidr, whole: Cidr): boolean {
  return part.size > whole.size && hasAddress(whole.addresses, part.first);
}

/** Whether it is the number of a port. */
export function isPort(port: number): boolean {
  return port >= 1 && port <= 65_535;
}

/** Whether it is a name of a port (RFC 6335, 5.1, lower case). */
export function isPortName(name: string): boolean {
  return name.length <= 15 && /^[a-z0-9]+(-[a-z0-9]+)*$/.test(name) && /[a-z]/.test(name);
}
