import { describe, expect, it } from 'vitest';
import type { Value, ValueObject } from '#lib/object.ts';
import { randomPods, randomPolicies, randomPolicy } from '../../test/flows/random-cluster.ts';
import { createRandom } from '../../test/soak/random.ts';
import { compareReach } from './compare.ts';
import { createEvaluator, type Evaluator } from './evaluator.ts';
import { nearestRule } from './explain.ts';
import { readCluster } from './read-cluster.ts';
import { compareWithTruth, parseTruth, TRUTH_COLUMNS } from './truth.ts';

function evaluatorOf(objects: readonly object[]): Evaluator {
  const { cluster, problems } = readCluster(objects as Value[]);
  expect(problems).toEqual([]);
  return createEvaluator(cluster, { ipBlockMode: 'any-ip' });
}

const pod = (name: string): ValueObject => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'shop', labels: { app: name } },
  spec: { containers: [{ name: 'main' }] },
});

const policy = (ingress: unknown[]) => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name: 'db', namespace: 'shop' },
  spec: { podSelector: { matchLabels: { app: 'db' } }, policyTypes: ['Ingress'], ingress },
});

const fromWeb = { podSelector: { matchLabels: { app: 'web' } } };
const PODS = [pod('web'), pod('db'), pod('job')];

describe('compareReach', () => {
  it('groups what is gained and lost, and names pods that only one set has', () => {
    const before = evaluatorOf([...PODS, policy([{ from: [fromWeb], ports: [{ port: 5432 }] }])]);
    const office = { ipBlock: { cidr: '192.0.2.0/24' } };
    const after = evaluatorOf([
      pod('web'),
      pod('db'),
      pod('new'),
      policy([{ from: [fromWeb, office], ports: [{ port: 5433, endPort: 5434 }] }]),
    ]);
    expect(compareReach(before, after)).toEqual({
      changes: [
        { change: 'gained', src: 'shop/web', dst: 'shop/db', protocol: 'TCP', ports: '5433-5434' },
        { change: 'lost', src: 'shop/web', dst: 'shop/db', protocol: 'TCP', ports: '5432' },
        { change: 'gained', src: '192.0.2.0/24', dst: 'shop/db', protocol: 'TCP', ports: '5433-5434' },
      ],
      onlyBefore: ['shop/job'],
      onlyAfter: ['shop/new'],
    });
  });

  it('says when a change is not certain', () => {
    const other = {
      apiVersion: 'cilium.io/v2',
      kind: 'CiliumNetworkPolicy',
      metadata: { name: 'c', namespace: 'shop' },
      spec: { endpointSelector: { matchLabels: { app: 'db' } }, ingress: [{}] },
    };
    const changes = compareReach(evaluatorOf(PODS), evaluatorOf([...PODS, other])).changes.filter(
      ({ src }) => src === 'shop/web',
    );
    expect(changes.map(({ change, undecidable }) => [change, undecidable])).toEqual(Array(3).fill(['lost', true]));
  });

  it.each(Array.from({ length: 20 }, (_, index) => index + 1))(
    'is empty for the same set, and turns round with its sides (seed %i)',
    (seed) => {
      const random = createRandom(seed);
      const objects = [...randomPods(random), ...randomPolicies(random, 4)];
      const [one, other] = [evaluatorOf(objects), evaluatorOf([...objects, randomPolicy(random, 'further')])];
      expect(compareReach(one, evaluatorOf(objects)).changes).toEqual([]);
      const turned = compareReach(other, one).changes.map((each) => ({
        ...each,
        change: each.change === 'lost' ? 'gained' : 'lost',
      }));
      const texts = (changes: readonly unknown[]) => changes.map((each) => JSON.stringify(each)).sort();
      expect(texts(turned)).toEqual(texts(compareReach(one, other).changes));
    },
  );
});

describe('a truth table', () => {
  it('lists cells that differ, joined over ports', () => {
    const rows = [
      'shop/web,shop/db,TCP,5432,false',
      'shop/web,shop/db,TCP,5433,false',
      'shop/web,shop/db,TCP,80,false',
      '192.0.2.1,shop/db,UDP,1,false',
      '',
    ];
    const evaluator = evaluatorOf([...PODS, policy([{ from: [fromWeb], ports: [{ port: 5432, endPort: 5433 }] }])]);
    const report = compareWithTruth(evaluator, parseTruth([TRUTH_COLUMNS, ...rows].join('\n')));
    expect(report).toMatchObject({ cells: 4, differing: 2, cniDependent: 0 });
    expect(report.differences).toMatchObject([
      { line: 2, source: 'shop/web', destination: 'shop/db', ports: '5432-5433', expected: 'denied', verdict: 'allowed' },
    ]);
  });

  it.each([
    ['source,destination', 'line 1: the columns must be'],
    [`${TRUTH_COLUMNS}\nweb,shop/db,TCP,80,true`, 'line 2: source "web" is neither namespace/pod nor an address'],
    [`${TRUTH_COLUMNS}\n\nshop/web,shop/db,ICMP,80,true`, 'line 3: protocol "ICMP" is not one of TCP, UDP, SCTP'],
    [`${TRUTH_COLUMNS}\nshop/web,shop/db,TCP,0,true`, 'line 2: port "0" is not between 1 and 65535'],
    [`${TRUTH_COLUMNS}\nshop/web,shop/db,TCP,80,yes`, 'line 2: allowed "yes" is neither true nor false'],
    [`${TRUTH_COLUMNS}\nshop/web,shop/db,TCP,80,true,`, 'line 2: more than the columns'],
    [`${TRUTH_COLUMNS}\nshop/web,shop/gone,TCP,80,true`, 'line 2: there is no pod or workload shop/gone'],
  ])('with %j is refused', (text, message) => {
    expect(() => compareWithTruth(evaluatorOf(PODS), parseTruth(text))).toThrow(message);
  });
});

describe('nearestRule', () => {
  const nearest = (rules: unknown[], port: number, from = 'web') => {
    const evaluator = evaluatorOf([...PODS, policy(rules)]);
    const [source, destination] = [from, 'db'].map((name) => evaluator.endpoint({ namespace: 'shop', pod: name }));
    if (!source || !destination) throw new Error(from);
    return nearestRule(evaluator, { source, destination, protocol: 'TCP', port }, 'ingress');
  };

  it('lacks ports before it lacks the peer', () => {
    const rules = [
      { from: [{ podSelector: { matchLabels: { app: 'job' } } }], ports: [{ port: 80 }] },
      { from: [fromWeb], ports: [{ port: 5432 }] },
    ];
    expect(nearest(rules, 80)).toMatchObject({
      label: 'NetworkPolicy shop/db ingress[1]',
      changes: ['ports would have to hold TCP 80; it has TCP 5432'],
    });
  });

  it('says which peer it would have to name', () => {
    expect(nearest([{ from: [fromWeb], ports: [{ port: 5432 }] }], 5432, 'job')?.changes).toEqual([
      'from would have to name pods app=job in namespaces kubernetes.io/metadata.name=shop; it names pods app=web in namespace shop',
    ]);
  });

  it('is a rule to write when no rule has anything of it', () => {
    expect(nearest([], 80)?.changes).toEqual([
      'would need a rule in ingress: from pods app=web in namespaces kubernetes.io/metadata.name=shop, ports TCP 80',
    ]);
  });
});
