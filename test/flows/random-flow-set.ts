import { resolveFacts } from '#flows/model/facts.ts';
import type { Facts } from '#flows/model/model.ts';
import type { Value } from '#lib/object.ts';
import type { Random } from '../soak/random.ts';

const NAMESPACES = ['alpha', 'beta', 'gamma', 'open'];
const APPS = ['web', 'api', 'db'];
/** What containers of each app listen on, by name. */
const PORTS: Readonly<Record<string, { readonly port: number; readonly protocol: 'TCP' | 'UDP' }>> = {
  http: { port: 8080, protocol: 'TCP' },
  game: { port: 9000, protocol: 'UDP' },
};

/** Facts of a cluster of some kind, without its network plugin. */
export function randomFacts(random: Random): Facts {
  const bothFamilies = random.chance(0.4);
  return resolveFacts({
    source: 'declared',
    facts: {
      podCIDRs: ['10.244.0.0/16', ...(bothFamilies ? ['fd00:1::/64'] : [])],
      serviceCIDRs: ['10.96.0.0/12'],
      nodeCIDRs: random.chance(0.5) ? ['10.0.0.0/16'] : [],
      apiServer: {
        serviceIP: random.chance(0.5) ? '10.96.0.1' : '',
        endpoints: random.pick([['10.0.0.10'], ['203.0.113.10', '203.0.113.11'], ['192.0.2.0/30']]),
        ports: random.pick([[443], [443, 6443]]),
      },
      dns: { ports: random.pick([[53], [53, 5353]]), nodeLocalIP: random.chance(0.3) ? '169.254.20.10' : '' },
      ipFamilies: bothFamilies ? ['IPv4', 'IPv6'] : ['IPv4'],
    },
  });
}

/** Two replicas of each app in each namespace, one of DNS, and one without labels. */
export function clusterPods(): Value[] {
  const pods: Value[] = [];
  const add = (namespace: string, name: string, labels: Record<string, string>) =>
    pods.push({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace, labels },
      spec: {
        containers: [
          {
            name: 'c',
            ports: Object.entries(PORTS).map(([port, of]) => ({ name: port, containerPort: of.port, protocol: of.protocol })),
          },
        ],
      },
      status: { podIPs: [{ ip: `10.244.1.${pods.length + 1}` }] },
    });
  for (const namespace of NAMESPACES) {
    for (const app of APPS)
      for (const replica of [0, 1]) add(namespace, `${app}-${replica}`, { app, tier: app === 'web' ? 'front' : 'back' });
    add(namespace, 'bare', {});
  }
  add('kube-system', 'dns', { 'k8s-app': 'kube-dns' });
  return pods;
}

/** Addresses at both sides of the borders of what flow sets below name. */
export const ADDRESSES = [
  ...[
    '8.8.8.8',
    '9.255.255.255',
    '10.0.0.10',
    '10.0.255.255',
    '10.1.0.0',
    '10.96.0.1',
    '10.244.9.9',
    '100.64.0.9',
    '169.254.20.10',
  ],
  ...['169.254.169.254', '192.0.2.2', '192.0.2.4', '192.168.1.1', '198.51.100.7', '203.0.113.10', '203.0.113.12'],
  ...['2001:db8::1', 'fd00:1::9', '2606:4700::1'],
];

/** Ports at both sides of the borders of what flow sets below name. */
export const CELL_PORTS = [
  ...[1, 53, 80, 443, 5353, 6443, 8079, 8080, 8090, 8091, 9000, 65_535].map((port) => ['TCP', port] as const),
  ...[53, 8080, 9000].map((port) => ['UDP', port] as const),
  ['SCTP', 8080] as const,
];

/** The text of a flow set in which every kind of endpoint, port and overlay can come up. JSON is YAML. */
export function randomFlowSet(random: Random): string {
  const zones = NAMESPACES.slice(0, 3).map((namespace) => ({
    name: namespace,
    namespace,
    isolate: random.pick([['ingress', 'egress'], ['ingress', 'egress'], ['ingress'], ['egress'], []]),
  }));
  const pods = Array.from({ length: 2 + random.below(4) }, (_, index) => [`pods${index}`, randomPods(random)] as const);
  const others = Array.from({ length: 1 + random.below(4) }, (_, index) => [`other${index}`, randomOther(random)] as const);
  const endpoints = Object.fromEntries([...pods, ...others, ['api', { builtin: 'kube-api' }], ['dns', { builtin: 'dns' }]]);
  const inside = pods.map(([name]) => name);
  const named = pods.filter(([, pod]) => 'namedPorts' in pod).map(([name]) => name);
  const names = [...inside, ...others.map(([name]) => name)];
  const flows = Array.from({ length: 1 + random.below(8) }, (_, index) =>
    randomFlow(random, `flow-${index}`, { inside, names, named }),
  );
  return JSON.stringify({
    apiVersion: 'net.brokkr.dev/v1',
    kind: 'FlowSet',
    metadata: { name: 'random' },
    spec: { profiles: ['staging', 'development'], defaults: { dns: random.chance(0.5) }, zones, endpoints, flows },
  });
}

function randomPods(random: Random): object {
  const app = random.pick(APPS);
  const selector = random.pick<object>([
    { app },
    { app },
    { matchExpressions: [{ key: 'app', operator: 'In', values: [app, random.pick(APPS)] }] },
    { matchLabels: { tier: 'back' }, matchExpressions: [{ key: 'app', operator: 'NotIn', values: [app] }] },
    { matchExpressions: [{ key: 'app', operator: 'DoesNotExist' }] },
    {},
  ]);
  const named = 'app' in selector;
  return {
    zone: random.pick(NAMESPACES.slice(0, 3)),
    pods: selector,
    ...(named && { namedPorts: PORTS }),
    ...(named &&
      random.chance(0.5) && {
        services: [{ name: 's', ports: [{ port: 80, targetPort: random.pick<string | number>(['http', 8080]) }] }],
      }),
    ...(random.chance(0.2) && { profiles: { development: { pods: { app: random.pick(APPS) }, dns: false } } }),
  };
}

function randomOther(random: Random): object {
  return random.pick<() => object>([
    () => ({ any: true }),
    () => ({
      namespaces: { 'kubernetes.io/metadata.name': random.pick(NAMESPACES) },
      ...(random.chance(0.5) && { pods: { app: random.pick(APPS) } }),
    }),
    () => ({ namespaces: { matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: ['open'] }] } }),
    () => ({
      cidr: '0.0.0.0/0',
      except: random.pick<string | string[]>(['private', ['cluster', '8.8.8.0/24'], ['10.0.0.0/8', '10.244.0.0/16']]),
    }),
    () => ({ cidr: ['0.0.0.0/0', '::/0'], except: ['private'] }),
    () => ({
      cidr: random.pick<string | string[]>([
        'pods',
        'nodes',
        '10.0.0.0/16',
        ['203.0.113.0/29', '2001:db8::/32'],
        '10.244.1.0/28',
      ]),
    }),
    () => ({ names: ['*.example.com', 'example.com'], cidr: '198.51.100.0/24' }),
    () => ({ cidr: '198.51.100.0/24', profiles: { development: { any: true } } }),
  ])();
}

function randomFlow(
  random: Random,
  id: string,
  { inside, names, named }: Record<'inside' | 'names' | 'named', readonly string[]>,
): object {
  const ports = random.pick<() => object>([
    () => ({ ports: random.pick([80, 443, 8080]) }),
    () => ({ ports: ['8080-8090', 53] }),
    () => ({ ports: 'all' }),
    () => ({ ports: 'all', protocol: 'UDP' }),
    () => ({ ports: [9000, 8080], protocol: ['UDP', 'SCTP'] }),
  ])();
  const [pod, any] = [random.pick(inside), random.pick(names)];
  const ends = random.chance(0.5) ? { from: pod, to: any } : { from: any, to: pod };
  const profiles = random.chance(0.2) ? { profiles: ['development'] } : {};
  const via = random.chance(0.15) ? { via: [{ endpoint: random.pick(inside), port: 8080 }] } : {};
  const what = random.below(10);
  if (what === 0) return { id, from: pod, to: 'api' };
  if (what === 1) return { id, from: 'api', to: pod, kind: 'webhook', ports: 9000 };
  if (what === 2) return { id, from: [...inside], to: 'dns' };
  const target = random.pick([...named, '']);
  if (what === 3 && target !== '')
    return { id, from: any, to: target, ports: random.pick(['http', 'game']), protocol: ['TCP', 'UDP'] };
  return { id, ...ends, ...ports, ...profiles, ...via };
}
