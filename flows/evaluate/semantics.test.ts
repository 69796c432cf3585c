import { describe, expect, it } from 'vitest';
import type { Value } from '#lib/object.ts';
import type { Protocol } from '../model/model.ts';
import { parseEndpointName } from './endpoint.ts';
import { createEvaluator, type EvaluatorOptions } from './evaluator.ts';
import { readCluster } from './read-cluster.ts';

const DENY = ['Ingress', 'Egress'];

const pod = (name: string, { ip, spec = {}, labels = { app: name } }: { ip?: string; spec?: object; labels?: object } = {}) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'shop', labels },
  spec: { containers: [{ name: 'main', ports: [{ name: 'http', containerPort: 8080 }] }], ...spec },
  status: ip === undefined ? {} : { podIP: ip },
});

const policy = (name: string, spec: object, namespace = 'shop') => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name, namespace },
  spec: { podSelector: {}, ...spec },
});

const admin = (name: string, priority: number, spec: object) => ({
  apiVersion: 'policy.networking.k8s.io/v1alpha1',
  kind: 'AdminNetworkPolicy',
  metadata: { name },
  spec: { subject: { namespaces: {} }, priority, ...spec },
});

const baseline = (spec: object) => ({
  apiVersion: 'policy.networking.k8s.io/v1alpha1',
  kind: 'BaselineAdminNetworkPolicy',
  metadata: { name: 'default' },
  spec: { subject: { namespaces: {} }, ...spec },
});

/** The verdict about `shop/web 8.8.8.8 TCP 80`, with a mark where CNIs disagree. */
function ask(objects: readonly object[], cell: string, options: Partial<EvaluatorOptions> = {}): string {
  const { cluster, problems } = readCluster(objects as Value[]);
  expect(problems).toEqual([]);
  const evaluator = createEvaluator(cluster, { ipBlockMode: 'any-ip', ...options });
  const [from = '', to = '', protocol = '', port = ''] = cell.split(' ');
  const [source, destination] = [from, to].map((text) => evaluator.endpoint(parseEndpointName(text) ?? { ip: text }));
  if (!source || !destination) throw new Error(cell);
  const judged = evaluator.verdict({ source, destination, protocol: protocol as Protocol, port: Number(port) });
  return `${judged.verdict}${judged.cniDependent ? ' by cni' : ''}`;
}

describe('verdicts', () => {
  it('let a pod reach itself, and not another replica of its workload', () => {
    const web = {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'web', namespace: 'shop' },
      spec: { template: {} },
    };
    expect(ask([pod('web'), policy('deny', { policyTypes: DENY })], 'shop/web shop/web TCP 80')).toBe('allowed');
    expect(ask([web, policy('deny', { policyTypes: DENY })], 'shop/web shop/web TCP 80')).toBe('denied');
  });

  it('open nothing for a port name that no container of the destination has', () => {
    const objects = [pod('web'), pod('db'), policy('in', { ingress: [{ ports: [{ port: 'http' }, { port: 'ghost' }] }] })];
    expect(ask(objects, 'shop/web shop/db TCP 8080')).toBe('allowed');
    expect(ask(objects, 'shop/web shop/db TCP 80')).toBe('denied');
    expect(ask(objects, 'shop/web shop/db UDP 8080')).toBe('denied');
  });

  it('take a pod on the host network for its node', () => {
    const host = pod('host', { spec: { hostNetwork: true }, ip: '192.168.0.1' });
    const fromPods = policy('in', { ingress: [{ from: [{ podSelector: {} }] }] });
    const fromNode = policy('in', { ingress: [{ from: [{ ipBlock: { cidr: '192.168.0.1/32' } }] }] });
    expect(ask([host, pod('web'), fromPods], 'shop/host shop/web TCP 80')).toBe('denied');
    expect(ask([host, pod('web'), fromNode], 'shop/host shop/web TCP 80')).toBe('allowed by cni');
    expect(ask([host, pod('web'), policy('deny', { policyTypes: DENY })], '8.8.8.8 shop/host TCP 80')).toBe('allowed');
  });

  it('mark cells on which the ways to read ipBlock disagree', () => {
    const out = policy('out', { policyTypes: ['Egress'], egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/8' } }] }] });
    const objects = [pod('web', { ip: '10.0.0.1' }), pod('db', { ip: '10.0.0.2' }), out];
    expect(ask(objects, 'shop/web shop/db TCP 80')).toBe('allowed by cni');
    expect(ask(objects, 'shop/web shop/db TCP 80', { ipBlockMode: 'external-only' })).toBe('denied by cni');
    expect(ask(objects, 'shop/web 10.0.0.9 TCP 80')).toBe('allowed');
    expect(ask(objects, 'shop/web 10.0.0.2 TCP 80')).toBe('allowed by cni'); // the address of db is db
  });

  it('are undecidable where a block holds some of the addresses that a pod may have', () => {
    const to = (cidr: string, ...except: string[]) =>
      policy('out', {
        podSelector: { matchLabels: { app: 'web' } },
        policyTypes: ['Egress'],
        egress: [{ to: [{ ipBlock: { cidr, except } }] }],
      });
    const pods = [pod('web'), pod('db')];
    expect(ask([...pods, to('10.244.7.0/24')], 'shop/web shop/db TCP 80')).toBe('undecidable by cni');
    expect(ask([...pods, to('10.1.0.0/16')], 'shop/web shop/db TCP 80')).toBe('denied');
    expect(ask([...pods, to('0.0.0.0/0')], 'shop/web shop/db TCP 80')).toBe('allowed by cni');
    expect(ask([...pods, to('0.0.0.0/0', '10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16')], 'shop/web shop/db TCP 80')).toBe(
      'denied',
    );
    const podCIDRs = ['10.1.2.0/24'];
    expect(ask([...pods, to('10.1.0.0/16')], 'shop/web shop/db TCP 80', { podCIDRs })).toBe('allowed by cni');
    const closed = policy('in', { podSelector: { matchLabels: { app: 'db' } }, policyTypes: ['Ingress'] });
    expect(ask([...pods, to('10.1.0.0/16'), closed], 'shop/web shop/db TCP 80')).toBe('denied');
  });

  it('give a namespace that is only named its automatic label', () => {
    const peer = (label: string) => ({ namespaceSelector: { matchLabels: { [label]: 'shop' } } });
    const objects = (label: string) => [pod('web'), pod('db'), policy('in', { ingress: [{ from: [peer(label)] }] })];
    expect(ask(objects('kubernetes.io/metadata.name'), 'shop/web shop/db TCP 80')).toBe('allowed');
    expect(ask(objects('name'), 'shop/web shop/db TCP 80')).toBe('denied');
  });
});

describe('the admin tiers', () => {
  const pods = [pod('web'), pod('db')];
  const cell = 'shop/web shop/db TCP 80';
  const all = [{ namespaces: {} }];
  const open = policy('open', { ingress: [{}] });
  const closed = policy('closed', { policyTypes: ['Ingress'] });
  const allow = (priority: number) => admin(`allow-${priority}`, priority, { ingress: [{ action: 'Allow', from: all }] });
  const deny = (priority: number) => admin(`deny-${priority}`, priority, { ingress: [{ action: 'Deny', from: all }] });
  const pass = (priority: number) => admin(`pass-${priority}`, priority, { ingress: [{ action: 'Pass', from: all }] });
  const last = baseline({ ingress: [{ action: 'Deny', from: all }] });

  it.each([
    ['a lower priority number first', [allow(1), deny(2)], 'allowed'],
    ['a lower priority number first, whatever the order', [allow(2), deny(1)], 'denied'],
    ['admin before NetworkPolicies: allow', [allow(1), closed], 'allowed'],
    ['admin before NetworkPolicies: deny', [deny(1), open], 'denied'],
    ['Pass leaves it to NetworkPolicies', [pass(1), deny(2), open], 'allowed'],
    ['Pass leaves it to the baseline', [pass(1), allow(2), last], 'denied'],
    ['NetworkPolicies before the baseline', [open, last], 'allowed'],
    ['the baseline where nothing isolates', [last], 'denied'],
    ['nothing', [], 'allowed'],
  ])('ask %s', (_, policies, expected) => {
    expect(ask([...pods, ...policies], cell)).toBe(expected);
  });

  it('decide by ports: number, range and name', () => {
    const ports = [
      { portNumber: { protocol: 'TCP', port: 80 } },
      { portRange: { protocol: 'UDP', start: 10, end: 20 } },
      { namedPort: 'http' },
    ];
    const objects = [...pods, admin('some', 1, { ingress: [{ action: 'Deny', from: all, ports }] })];
    const denied = ['TCP 80', 'UDP 10', 'UDP 20', 'TCP 8080'];
    for (const port of denied) expect(ask(objects, `shop/web shop/db ${port}`)).toBe('denied');
    for (const port of ['TCP 81', 'UDP 21', 'UDP 80', 'UDP 8080'])
      expect(ask(objects, `shop/web shop/db ${port}`)).toBe('allowed');
  });

  it('compare networks with addresses of pods in every mode, and nodes with Nodes', () => {
    const networks = admin('net', 1, { egress: [{ action: 'Deny', to: [{ networks: ['10.0.0.0/8'] }] }] });
    const addressed = [pod('web', { ip: '10.0.0.1' }), pod('db', { ip: '10.0.0.2' })];
    expect(ask([...addressed, networks], cell, { ipBlockMode: 'external-only' })).toBe('denied');
    const nodes = admin('nodes', 1, { egress: [{ action: 'Deny', to: [{ nodes: { matchLabels: { role: 'edge' } } }] }] });
    const node = {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name: 'n1', labels: { role: 'edge' } },
      status: { addresses: [{ type: 'InternalIP', address: '192.168.7.7' }] },
    };
    expect(ask([...pods, nodes], 'shop/web 192.168.7.7 TCP 80')).toBe('undecidable');
    expect(ask([...pods, nodes, node], 'shop/web 192.168.7.7 TCP 80')).toBe('denied');
    expect(ask([...pods, nodes, node], 'shop/web 192.168.7.8 TCP 80')).toBe('allowed');
  });
});

describe('policies of other kinds', () => {
  const cilium = (spec: object, kind = 'CiliumNetworkPolicy') => ({
    apiVersion: 'cilium.io/v2',
    kind,
    metadata: { name: 'c', namespace: 'shop' },
    spec,
  });
  const pods = [pod('web'), pod('db')];
  const web = { matchLabels: { 'k8s:app': 'web' } };

  it('make undecidable what they select, in their directions', () => {
    const objects = [...pods, cilium({ endpointSelector: web, egress: [{ toEndpoints: [{}] }] })];
    expect(ask(objects, 'shop/web shop/db TCP 80')).toBe('undecidable');
    expect(ask(objects, 'shop/db shop/web TCP 80')).toBe('allowed');
    const calico = {
      apiVersion: 'projectcalico.org/v3',
      kind: 'GlobalNetworkPolicy',
      metadata: { name: 'g' },
      spec: { selector: 'all()' },
    };
    expect(ask([...pods, calico], '8.8.8.8 shop/db TCP 80')).toBe('undecidable');
    const denied = policy('deny', { podSelector: { matchLabels: { app: 'db' } }, policyTypes: DENY });
    expect(ask([...objects, denied], 'shop/web shop/db TCP 80')).toBe('denied'); // whatever web may, db admits nothing
  });

  it('isolate when they reach outside alone, and admit no pod', () => {
    const objects = [...pods, cilium({ endpointSelector: web, egress: [{ toEntities: ['kube-apiserver'] }] })];
    expect(ask(objects, 'shop/web shop/db TCP 80')).toBe('denied');
    expect(ask(objects, 'shop/web 10.96.0.1 TCP 443')).toBe('undecidable');
    expect(ask(objects, 'shop/db shop/web TCP 80')).toBe('allowed');
  });
});

describe('readCluster', () => {
  const read = (...values: unknown[]) => readCluster(values as Value[]);

  it('reads Lists, sidecars, CronJobs, labels of Jobs, and the pods of a workload once', () => {
    const template = {
      metadata: { labels: { app: 'x' } },
      spec: {
        containers: [],
        initContainers: [
          { restartPolicy: 'Always', ports: [{ name: 'proxy', containerPort: 15_001 }] },
          { ports: [{ containerPort: 9 }] },
        ],
      },
    };
    const items = [
      { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web' }, spec: { template } },
      {
        apiVersion: 'apps/v1',
        kind: 'ReplicaSet',
        metadata: {
          name: 'web-1',
          ownerReferences: [{ apiVersion: 'apps/v1', kind: 'Deployment', name: 'web', controller: true }],
        },
        spec: { template },
      },
      { apiVersion: 'batch/v1', kind: 'CronJob', metadata: { name: 'nightly' }, spec: { jobTemplate: { spec: { template } } } },
      { apiVersion: 'batch/v1', kind: 'Job', metadata: { name: 'once' }, spec: { template } },
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'settings' } },
    ];
    const { cluster, problems } = read({ apiVersion: 'v1', kind: 'List', items });
    expect(problems).toEqual([]);
    expect(cluster.pods.map(({ kind, namespace, name }) => `${namespace.name}/${kind}/${name}`)).toEqual([
      'default/Deployment/web',
      'default/CronJob/nightly',
      'default/Job/once',
    ]);
    expect(cluster.pods[0]?.ports).toEqual([{ name: 'proxy', protocol: 'TCP', port: 15_001 }]);
    expect(cluster.pods[2]?.labels).toMatchObject({ app: 'x', 'job-name': 'once' });
    expect([...cluster.namespaces.keys()]).toEqual(['default']);
  });

  it('says where something cannot be used', () => {
    const found = (...values: unknown[]) =>
      read(...values).problems.map(({ document, path, message }) => `${document} ${path} ${message}`);
    expect(found(pod('a'), { kind: 'Pod' })).toEqual(['1  is no Kubernetes object: it has no apiVersion and kind']);
    expect(found({ apiVersion: 'v1', kind: 'Pod', metadata: { generateName: 'a-' } })).toEqual(['0  has no metadata.name']);
    expect(found({ apiVersion: 'kustomize.config.k8s.io/v1beta1', kind: 'Kustomization' }, pod('a'), pod('a'))).toEqual([]);
    expect(found(pod('a'), pod('a', { ip: '10.0.0.1' }))).toEqual(['1  the object appears twice, with different contents']);
    expect(found(pod('a', { ip: '10.0.0' }))).toEqual(['0 /status "10.0.0" is no IP address']);
    expect(found(pod('a', { labels: { app: 1 } }))).toEqual(['0 /metadata/labels/app must be text; quote it']);
    expect(found({ kind: 'List', apiVersion: 'v1', items: [policy('p', { ingress: [{ from: [{}] }] })] })).toEqual([
      '0 /items/0/spec/ingress/0/from/0 names no peer: give podSelector, namespaceSelector or ipBlock',
    ]);
    expect(found(admin('a', 1_001, { ingress: [{ action: 'Permit', from: [] }] }))).toEqual([
      '0 /spec/priority must be between 0 and 1000',
      '0 /spec/ingress/0/action must be Allow, Deny, Pass',
      '0 /spec/ingress/0/from must have 1 to 100 items',
    ]);
  });

  it('bounds the number of pods', () => {
    const pods = Array.from({ length: 10_001 }, (_, index) => pod(`pod-${index}`));
    expect(read(...pods).problems).toMatchObject([{ message: 'there are 10001 pods and workloads, the limit is 10000' }]);
  });
});
