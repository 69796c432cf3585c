import type { ValueObject } from '../../lib/object.ts';
import type { Random } from '../soak/random.ts';

/** Small worlds, so that random selectors, ports and blocks often meet. */
const NAMESPACES = ['red', 'green', 'blue'];
const KEYS = ['app', 'tier', 'env'];
const VALUES = ['a', 'b'];
const NAMES = ['http', 'dns', 'ghost'];
const PROTOCOLS = ['TCP', 'UDP', 'SCTP'];
const CIDRS = ['0.0.0.0/0', '10.0.0.0/8', '10.0.0.0/30', '192.168.0.0/16', '8.8.0.0/16', 'fd00::/8', '::/0'];
const EXCEPTS: Readonly<Record<string, readonly string[]>> = {
  '0.0.0.0/0': ['10.0.0.0/8', '8.8.8.8/32', '10.0.0.4/30'],
  '10.0.0.0/8': ['10.0.0.0/30', '10.0.0.5/32'],
  '::/0': ['fd00::/8'],
};

/** Ports around which everything in a random cluster happens. */
export const SAMPLE_PORTS = [1, 52, 53, 54, 79, 80, 81, 89, 90, 91, 65_535];

/** Addresses outside of a random cluster. */
export const SAMPLE_ADDRESSES = ['8.8.8.8', '8.8.4.4', '10.0.0.250', '1.1.1.1', 'fd00::250', '2001:db8::1'];

/** Namespaces with random labels and pods with random labels, ports and addresses. */
export function randomPods(random: Random): ValueObject[] {
  const namespaces = NAMESPACES.map((name) => ({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name, labels: randomLabels(random) },
  }));
  const pods = Array.from({ length: 6 }, (_, index) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `pod-${index}`, namespace: random.pick(NAMESPACES), labels: randomLabels(random) },
    spec: {
      ...(random.chance(0.1) ? { hostNetwork: true } : {}),
      containers: [
        {
          name: 'main',
          ports: NAMES.slice(0, random.below(3)).map((name) => ({
            name,
            containerPort: random.pick([53, 80]),
            protocol: random.pick(PROTOCOLS),
          })),
        },
      ],
    },
    status: { podIPs: [{ ip: `10.0.0.${index + 1}` }, ...(random.chance(0.3) ? [{ ip: `fd00::${index + 1}` }] : [])] },
  }));
  return [...namespaces, ...pods];
}

/** NetworkPolicies over such pods. */
export function randomPolicies(random: Random, count: number): ValueObject[] {
  return Array.from({ length: count }, (_, index) => randomPolicy(random, `policy-${index}`));
}

/** One NetworkPolicy over such pods. */
export function randomPolicy(random: Random, name: string): ValueObject {
  const rules = (field: 'from' | 'to') =>
    Array.from({ length: random.below(3) }, () => ({
      ...(random.chance(0.9) ? { [field]: Array.from({ length: random.below(4) }, () => randomPeer(random)) } : {}),
      ...(random.chance(0.7) ? { ports: Array.from({ length: random.below(3) }, () => randomPort(random)) } : {}),
    }));
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, namespace: random.pick(NAMESPACES) },
    spec: {
      podSelector: randomSelector(random),
      ...(random.chance(0.8) ? { policyTypes: random.pick([['Ingress'], ['Egress'], ['Ingress', 'Egress']]) } : {}),
      ...(random.chance(0.8) ? { ingress: rules('from') } : {}),
      ...(random.chance(0.8) ? { egress: rules('to') } : {}),
    },
  };
}

/** AdminNetworkPolicies of different priorities, and sometimes a BaselineAdminNetworkPolicy. */
export function randomAdminPolicies(random: Random): ValueObject[] {
  const policy = (kind: string, name: string, actions: readonly string[], more: ValueObject): ValueObject => {
    const rules = (field: 'from' | 'to') =>
      Array.from({ length: random.below(4) }, () => ({
        action: random.pick(actions),
        [field]: Array.from({ length: 1 + random.below(2) }, () => randomAdminPeer(random, field)),
        ...(random.chance(0.7) ? { ports: [randomAdminPort(random)] } : {}),
      }));
    const spec = { subject: randomAdminPeer(random, 'from'), ingress: rules('from'), egress: rules('to'), ...more };
    return { apiVersion: 'policy.networking.k8s.io/v1alpha1', kind, metadata: { name }, spec };
  };
  const admin = Array.from({ length: 1 + random.below(3) }, (_, index) =>
    policy('AdminNetworkPolicy', `admin-${index}`, ['Allow', 'Deny', 'Pass'], { priority: 10 * index + random.below(10) }),
  );
  return random.chance(0.5) ? [...admin, policy('BaselineAdminNetworkPolicy', 'default', ['Allow', 'Deny'], {})] : admin;
}

function randomAdminPeer(random: Random, field: 'from' | 'to'): ValueObject {
  if (field === 'to' && random.chance(0.3)) return { networks: [random.pick(CIDRS)] };
  if (field === 'to' && random.chance(0.1)) return { nodes: {} };
  if (random.chance(0.5)) return { namespaces: randomSelector(random) };
  return { pods: { namespaceSelector: randomSelector(random), podSelector: randomSelector(random) } };
}

function randomAdminPort(random: Random): ValueObject {
  const protocol = random.pick(PROTOCOLS);
  if (random.chance(0.3)) return { namedPort: random.pick(NAMES) };
  return random.chance(0.5)
    ? { portNumber: { protocol, port: random.pick([53, 80, 90]) } }
    : { portRange: { protocol, start: 53, end: 90 } };
}

function randomLabels(random: Random): ValueObject {
  return Object.fromEntries(KEYS.filter(() => random.chance(0.6)).map((key) => [key, random.pick(VALUES)]));
}

function randomSelector(random: Random): ValueObject {
  if (random.chance(0.4)) return {};
  if (random.chance(0.5)) return { matchLabels: { [random.pick(KEYS)]: random.pick(VALUES) } };
  const operator = random.pick(['In', 'NotIn', 'Exists', 'DoesNotExist']);
  const values = operator.endsWith('In') ? { values: random.chance(0.5) ? VALUES : [random.pick(VALUES)] } : {};
  return { matchExpressions: [{ key: random.pick(KEYS), operator, ...values }] };
}

function randomPeer(random: Random): ValueObject {
  if (random.chance(0.35)) {
    const cidr = random.pick(CIDRS);
    const except = (EXCEPTS[cidr] ?? []).filter(() => random.chance(0.5));
    return { ipBlock: { cidr, ...(except.length > 0 ? { except } : {}) } };
  }
  const kind = random.below(3);
  return {
    ...(kind !== 0 ? { podSelector: randomSelector(random) } : {}),
    ...(kind !== 1 ? { namespaceSelector: randomSelector(random) } : {}),
  };
}

function randomPort(random: Random): ValueObject {
  const protocol = random.chance(0.7) ? { protocol: random.pick(PROTOCOLS) } : {};
  if (random.chance(0.2)) return protocol;
  if (random.chance(0.3)) return { ...protocol, port: random.pick(NAMES) };
  return random.chance(0.3) ? { ...protocol, port: 80, endPort: 90 } : { ...protocol, port: random.pick([53, 80, 90]) };
}
