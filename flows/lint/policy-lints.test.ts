import { describe, expect, it } from 'vitest';
import { createEvaluator, ipBlockModeOf } from '#flows/evaluate/evaluator.ts';
import { readCluster } from '#flows/evaluate/read-cluster.ts';
import { resolveFacts } from '#flows/model/facts.ts';
import type { Facts } from '#flows/model/model.ts';
import type { Value } from '#lib/object.ts';
import { type AcceptedLint, lintPolicies, POLICY_LINTS, type PolicyFinding, type PolicyLint } from './policy-lints.ts';

const PRIVATE = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', '169.254.0.0/16'];
const BOTH = ['Ingress', 'Egress'];
const WEB = { podSelector: { matchLabels: { app: 'web' } } };
const DNS = {
  to: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } } }],
  ports: [
    { protocol: 'UDP', port: 53 },
    { protocol: 'TCP', port: 53 },
  ],
};

const pod = (name: string, port: number, namespace = 'shop') => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace, labels: { app: name } },
  spec: { containers: [{ name: 'main', ports: [{ name: 'main', containerPort: port }] }] },
});

/** A Service whose port 443 is port 8443 of the pods of web. */
const service = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'web', namespace: 'shop' },
  spec: { selector: { app: 'web' }, ports: [{ port: 443, targetPort: 'main' }] },
};

/** Around every example: web listens on 8443, db on 5432, nothing isolates anything. */
const AROUND = [pod('web', 8443), pod('db', 5432), pod('kube-dns', 53, 'kube-system'), service];

const policy = (name: string, spec: object) => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name, namespace: 'shop' },
  spec,
});

const ingress = (rule: object, app = 'web') =>
  policy('p', { podSelector: { matchLabels: { app } }, policyTypes: ['Ingress'], ingress: [rule] });
const egress = (...rules: object[]) => policy('p', { ...WEB, policyTypes: ['Egress'], egress: rules });
const toBlock = (cidr: string, except: readonly string[], ports: object[] = []) =>
  egress({ to: [{ ipBlock: { cidr, except } }], ports });

function lint(objects: readonly object[], facts: Partial<Facts> = {}, accepted: readonly AcceptedLint[] = []): PolicyFinding[] {
  const { cluster, problems } = readCluster([...AROUND, ...objects] as Value[]);
  expect(problems).toEqual([]);
  const all = { ...resolveFacts(), ...facts };
  return lintPolicies(createEvaluator(cluster, { ipBlockMode: ipBlockModeOf(all.cni) }), all, accepted);
}

interface Example {
  readonly wrong: readonly object[];
  readonly right: readonly object[];
  readonly facts?: Partial<Facts>;
  readonly subject: string;
  readonly path: string;
}

const RULE = 'NetworkPolicy shop/p';

const EXAMPLES: Readonly<Record<PolicyLint, Example>> = {
  'OR-SPLIT': {
    wrong: [ingress({ from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'shop' } } }, WEB] })],
    right: [ingress({ from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'shop' } }, ...WEB }] })],
    subject: `${RULE} ingress[0]`,
    path: '/spec/ingress/0/from/0',
  },
  'OPEN-SOURCE': {
    wrong: [ingress({ ports: [{ port: 8443 }] })],
    right: [ingress({ from: [WEB], ports: [{ port: 8443 }] })],
    subject: `${RULE} ingress[0]`,
    path: '/spec/ingress/0',
  },
  'HALF-OPEN': {
    wrong: [
      egress(DNS, { to: [{ podSelector: { matchLabels: { app: 'db' } } }], ports: [{ port: 5432 }] }),
      policy('db', { podSelector: { matchLabels: { app: 'db' } }, policyTypes: ['Ingress'] }),
    ],
    right: [
      egress(DNS, { to: [{ podSelector: { matchLabels: { app: 'db' } } }], ports: [{ port: 5432 }] }),
      policy('db', {
        podSelector: { matchLabels: { app: 'db' } },
        policyTypes: ['Ingress'],
        ingress: [{ from: [WEB], ports: [{ port: 5432 }] }],
      }),
    ],
    subject: `${RULE} egress[1]`,
    path: '/spec/egress/1/to/0',
  },
  'DNS-UDP-ONLY': {
    wrong: [egress({ to: DNS.to, ports: [{ protocol: 'UDP', port: 53 }] })],
    right: [egress(DNS)],
    subject: `${RULE} egress[0]`,
    path: '/spec/egress/0/ports',
  },
  'DNS-MISSING': {
    wrong: [egress({ to: [{ podSelector: { matchLabels: { app: 'db' } } }], ports: [{ port: 5432 }] })],
    right: [egress(DNS, { to: [{ podSelector: { matchLabels: { app: 'db' } } }], ports: [{ port: 5432 }] })],
    subject: 'shop/web',
    path: '',
  },
  'APISERVER-BY-PODS': {
    wrong: [egress(DNS, { to: DNS.to, ports: [{ port: 443 }] })],
    right: [egress(DNS, { to: [{ ipBlock: { cidr: '10.96.0.1/32' } }], ports: [{ port: 443 }] })],
    subject: `${RULE} egress[1]`,
    path: '/spec/egress/1/to/0',
  },
  'APISERVER-CIDR-CILIUM': {
    wrong: [toBlock('10.96.0.1/32', [], [{ port: 443 }])],
    right: [toBlock('93.184.216.0/24', [], [{ port: 443 }])],
    facts: { cni: 'cilium' },
    subject: `${RULE} egress[0]`,
    path: '/spec/egress/0/to/0',
  },
  'PRIVATE-LEAK': {
    wrong: [toBlock('0.0.0.0/0', PRIVATE.slice(0, 3))],
    right: [toBlock('0.0.0.0/0', PRIVATE)],
    subject: `${RULE} egress[0]`,
    path: '/spec/egress/0/to/0',
  },
  'POD-CIDR-LEAK': {
    wrong: [toBlock('0.0.0.0/0', PRIVATE)],
    right: [toBlock('0.0.0.0/0', [...PRIVATE, '11.0.0.0/16'])],
    facts: { podCIDRs: ['11.0.0.0/16'] },
    subject: `${RULE} egress[0]`,
    path: '/spec/egress/0/to/0',
  },
  'BROAD-CIDR': {
    wrong: [toBlock('0.0.0.0/0', [])],
    right: [toBlock('93.184.216.0/24', [])],
    subject: `${RULE} egress[0]`,
    path: '/spec/egress/0/to/0',
  },
  'DEAD-SELECTOR': {
    wrong: [ingress({ from: [{ podSelector: { matchLabels: { app: 'wbe' } } }] })],
    right: [ingress({ from: [WEB] })],
    subject: `${RULE} ingress[0]`,
    path: '/spec/ingress/0/from/0',
  },
  'NS-LABEL': {
    wrong: [ingress({ from: [{ namespaceSelector: { matchLabels: { name: 'shop' } } }] })],
    right: [ingress({ from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'shop' } } }] })],
    subject: `${RULE} ingress[0]`,
    path: '/spec/ingress/0/from/0',
  },
  'NO-POLICYTYPES': {
    wrong: [policy('p', { ...WEB, ingress: [{ from: [WEB] }] })],
    right: [policy('p', { ...WEB, policyTypes: BOTH, ingress: [{ from: [WEB] }] })],
    subject: RULE,
    path: '/spec',
  },
  'SERVICE-PORT': {
    wrong: [ingress({ from: [WEB], ports: [{ port: 443 }] })],
    right: [ingress({ from: [WEB], ports: [{ port: 8443 }] })],
    subject: `${RULE} ingress[0]`,
    path: '/spec/ingress/0/ports/0',
  },
  'WORKLOAD-WITHOUT-FLOW': {
    wrong: [policy('p', { podSelector: { matchLabels: { app: 'db' } }, policyTypes: BOTH })],
    right: [policy('p', { podSelector: { matchLabels: { app: 'db' } }, policyTypes: BOTH, ingress: [{ from: [WEB] }] })],
    subject: 'shop/db',
    path: '',
  },
};

describe('lints over policies', () => {
  it.each(POLICY_LINTS)('%s finds the wrong example and lets the right one be', (id) => {
    const { wrong, right, facts, subject, path } = EXAMPLES[id];
    const of = (objects: readonly object[]) => lint(objects, facts).filter((finding) => finding.lint === id);
    expect(of(wrong).map((finding) => ({ subject: finding.subject, path: finding.place.path }))).toEqual([{ subject, path }]);
    expect(of(right)).toEqual([]);
  });

  it('find nothing where nothing is wrong', () => {
    const right = [
      policy('deny', { podSelector: {}, policyTypes: BOTH }),
      policy('web', {
        ...WEB,
        policyTypes: BOTH,
        ingress: [
          { from: [{ namespaceSelector: {}, podSelector: { matchLabels: { app: 'kube-dns' } } }], ports: [{ port: 'main' }] },
        ],
        egress: [DNS, { to: [{ podSelector: { matchLabels: { app: 'db' } } }], ports: [{ port: 5432 }] }],
      }),
      policy('db', {
        podSelector: { matchLabels: { app: 'db' } },
        policyTypes: BOTH,
        ingress: [{ from: [WEB], ports: [{ port: 5432 }] }],
      }),
    ];
    expect(lint(right)).toEqual([]);
  });

  it('say why a finding is accepted, for a rule, a policy or everything', () => {
    const wrong = EXAMPLES['OPEN-SOURCE'].wrong;
    for (const subject of [`${RULE} ingress[0]`, RULE, '']) {
      const [finding] = lint(wrong, {}, [{ lint: 'OPEN-SOURCE', subject, reason: 'a webhook' }]);
      expect(finding).toMatchObject({ lint: 'OPEN-SOURCE', accepted: 'a webhook' });
    }
    for (const other of [
      { lint: 'OR-SPLIT', subject: '' },
      { lint: 'OPEN-SOURCE', subject: 'NetworkPolicy shop/p2' },
    ]) {
      const [finding] = lint(wrong, {}, [{ ...other, reason: 'another' }]);
      expect(finding).toMatchObject({ lint: 'OPEN-SOURCE', accepted: undefined });
    }
  });

  it('look for DNS over TCP in every policy that acts on a pod', () => {
    const udp = egress({ to: DNS.to, ports: [{ protocol: 'UDP', port: 53 }] });
    const tcp = policy('more', { podSelector: {}, policyTypes: ['Egress'], egress: [{ to: DNS.to, ports: [{ port: 53 }] }] });
    expect(lint([udp, tcp]).map((finding) => finding.lint)).not.toContain('DNS-UDP-ONLY');
  });
});
