import { type LabelSelector, PROTOCOLS, type Protocol } from '#flows/model/model.ts';
import { parseCidr } from '#flows/sets/addresses.ts';
import type { Value } from '#lib/object.ts';
import { checkSelector, SELECTOR_SHAPE } from './label-selector.ts';
import { checkMetadata, METADATA_SHAPE } from './metadata.ts';
import { isPort, isPortName } from './network-policy.ts';
import { decode, type ReportField, type Shape } from './shape.ts';

/** Kinds of `policy.networking.k8s.io/v1alpha1`. */
export type AdminKind = 'AdminNetworkPolicy' | 'BaselineAdminNetworkPolicy';

/** `spec` of an AdminNetworkPolicy or BaselineAdminNetworkPolicy. */
export interface AdminPolicySpec {
  readonly subject: AdminPeer;
  /** Lower numbers first; 0 for a BaselineAdminNetworkPolicy. */
  readonly priority: number;
  readonly ingress: readonly AdminRule[];
  readonly egress: readonly AdminRule[];
}

/** A rule; the first that matches decides. `from` and `to` are both `peers` here. */
export interface AdminRule {
  readonly name: string;
  readonly action: 'Allow' | 'Deny' | 'Pass';
  readonly peers: readonly AdminPeer[];
  /** Undefined: all ports of all protocols. */
  readonly ports: readonly AdminPort[] | undefined;
}

/** A peer, or the subject of a policy; exactly one field is there. */
export interface AdminPeer {
  readonly namespaces?: LabelSelector;
  readonly pods?: { readonly namespaceSelector: LabelSelector; readonly podSelector: LabelSelector };
  readonly nodes?: LabelSelector;
  readonly networks?: readonly string[];
}

/** Ports of a rule; exactly one field is there. */
export interface AdminPort {
  readonly portNumber?: { readonly protocol: Protocol; readonly port: number };
  readonly portRange?: { readonly protocol: Protocol; readonly start: number; readonly end: number };
  readonly namedPort?: string;
}

/** `maxItems` of the lists of rules, peers and ports in the definitions of v1alpha1. */
const MAX_ITEMS = 100;
/** Largest `networks` list and largest priority in the definitions of v1alpha1. */
const MAX_NETWORKS = 25;
const MAX_PRIORITY = 1_000;

const NAMESPACED_PODS: Shape = { fields: { namespaceSelector: SELECTOR_SHAPE, podSelector: SELECTOR_SHAPE } };
const SUBJECT: Shape = { fields: { namespaces: SELECTOR_SHAPE, pods: NAMESPACED_PODS } };
const EGRESS_PEER: Shape = {
  fields: { namespaces: SELECTOR_SHAPE, pods: NAMESPACED_PODS, nodes: SELECTOR_SHAPE, networks: { listOf: 'text' } },
};
const PORTS: Shape = {
  listOf: {
    fields: {
      portNumber: { fields: { protocol: 'text', port: 'int32' } },
      portRange: { fields: { protocol: 'text', start: 'int32', end: 'int32' } },
      namedPort: 'text',
    },
  },
};

const specShape = (more: Readonly<Record<string, Shape>>): Shape => ({
  fields: {
    subject: SUBJECT,
    ingress: { listOf: { fields: { name: 'text', action: 'text', from: { listOf: SUBJECT }, ports: PORTS } } },
    egress: { listOf: { fields: { name: 'text', action: 'text', to: { listOf: EGRESS_PEER }, ports: PORTS } } },
    ...more,
  },
});

interface DecodedRule {
  readonly name?: string;
  readonly action?: AdminRule['action'];
  readonly from?: readonly AdminPeer[];
  readonly to?: readonly AdminPeer[];
  readonly ports?: readonly AdminPort[];
}

interface DecodedSpec {
  readonly subject?: AdminPeer;
  readonly priority?: number;
  readonly ingress?: readonly DecodedRule[];
  readonly egress?: readonly DecodedRule[];
}

/** Reads a policy of the admin tiers by the schema of its definition. Reports what does not fit; undefined then. */
export function readAdminPolicy(kind: AdminKind, value: Value, report: ReportField): AdminPolicySpec | undefined {
  let failed = false;
  const track: ReportField = (path, message) => {
    failed = true;
    report(path, message);
  };
  const isBaseline = kind === 'BaselineAdminNetworkPolicy';
  const spec = specShape(isBaseline ? {} : { priority: 'int32' });
  const shape: Shape = { fields: { apiVersion: 'text', kind: 'text', metadata: METADATA_SHAPE, spec, status: 'anything' } };
  const decoded = decode(value, shape, '', track) as { metadata?: Record<string, unknown>; spec?: DecodedSpec };
  if (failed) return undefined;
  const { subject = {}, priority, ingress = [], egress = [] } = decoded.spec ?? {};
  checkMetadata(decoded.metadata, track);
  if (isBaseline && decoded.metadata?.name !== 'default')
    track('/metadata/name', 'the one BaselineAdminNetworkPolicy is named default');
  if (!isBaseline && (priority === undefined || priority < 0 || priority > MAX_PRIORITY))
    track('/spec/priority', `must be between 0 and ${MAX_PRIORITY}`);
  checkPeer(subject, '/spec/subject', track);
  const actions = isBaseline ? ['Allow', 'Deny'] : ['Allow', 'Deny', 'Pass'];
  for (const [field, rules] of [
    ['ingress', ingress],
    ['egress', egress],
  ] as const) {
    if (rules.length > MAX_ITEMS) track(`/spec/${field}`, `has ${rules.length} rules, the limit is ${MAX_ITEMS}`);
    for (const [index, rule] of rules.entries()) checkRule(rule, actions, `/spec/${field}/${index}`, field, track);
  }
  if (failed) return undefined;
  return { subject, priority: priority ?? 0, ingress: ingress.map(toRule), egress: egress.map(toRule) };
}

function toRule({ name = '', action = 'Deny', from, to, ports }: DecodedRule): AdminRule {
  return { name, action, peers: from ?? to ?? [], ports };
}

function checkRule(rule: DecodedRule, actions: readonly string[], path: string, field: string, report: ReportField): void {
  if (!actions.includes(rule.action ?? '')) report(`${path}/action`, `must be ${actions.join(', ')}`);
  const peersField = field === 'ingress' ? 'from' : 'to';
  const peers = rule.from ?? rule.to ?? [];
  if (peers.length < 1 || peers.length > MAX_ITEMS) report(`${path}/${peersField}`, `must have 1 to ${MAX_ITEMS} items`);
  for (const [index, peer] of peers.entries()) checkPeer(peer, `${path}/${peersField}/${index}`, report);
  if ((rule.ports?.length ?? 0) > MAX_ITEMS) report(`${path}/ports`, `has more than ${MAX_ITEMS} items`);
  for (const [index, port] of (rule.ports ?? []).entries()) checkPort(port, `${path}/ports/${index}`, report);
}

function checkPeer(peer: AdminPeer, path: string, report: ReportField): void {
  if (Object.keys(peer).length !== 1) report(path, 'must have exactly one field');
  if (peer.namespaces) checkSelector(peer.namespaces, `${path}/namespaces`, report);
  if (peer.nodes) checkSelector(peer.nodes, `${path}/nodes`, report);
  if (peer.pods) {
    for (const field of ['namespaceSelector', 'podSelector'] as const) {
      if (peer.pods[field] === undefined) report(`${path}/pods/${field}`, 'is required');
      else checkSelector(peer.pods[field], `${path}/pods/${field}`, report);
    }
  }
  const { networks } = peer;
  if (networks && (networks.length < 1 || networks.length > MAX_NETWORKS))
    report(`${path}/networks`, `must have 1 to ${MAX_NETWORKS} items`);
  for (const [index, cidr] of (networks ?? []).entries())
    if (!parseCidr(cidr)) report(`${path}/networks/${index}`, 'must be a CIDR such as 10.0.0.0/8');
}

function checkPort(port: AdminPort, path: string, report: ReportField): void {
  if (Object.keys(port).length !== 1) report(path, 'must have exactly one of portNumber, portRange and namedPort');
  const { portNumber, portRange, namedPort } = port;
  for (const [field, of] of [
    ['portNumber', portNumber],
    ['portRange', portRange],
  ] as const) {
    if (of && !PROTOCOLS.includes(of.protocol)) report(`${path}/${field}/protocol`, `must be ${PROTOCOLS.join(', ')}`);
  }
  if (portNumber && !isPort(portNumber.port)) report(`${path}/portNumber/port`, 'must be between 1 and 65535');
  if (portRange && !(isPort(portRange.start) && isPort(portRange.end) && portRange.start <= portRange.end))
    report(`${path}/portRange`, 'start and end must be between 1 and 65535, start not above end');
  if (namedPort !== undefined && !isPortName(namedPort)) report(`${path}/namedPort`, 'must be the name of a port');
}
