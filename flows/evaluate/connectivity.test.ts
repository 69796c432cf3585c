import { describe, expect, it } from 'vitest';
import type { ValueObject } from '#lib/object.ts';
import {
  randomAdminPolicies,
  randomPods,
  randomPolicies,
  SAMPLE_ADDRESSES,
  SAMPLE_PORTS,
} from '../../test/flows/random-cluster.ts';
import { createRandom } from '../../test/soak/random.ts';
import { PROTOCOLS } from '../model/model.ts';
import { parseAddress, parseCidr } from '../sets/addresses.ts';
import { type Connection, connections } from './connectivity.ts';
import { type Endpoint, endpointLabel } from './endpoint.ts';
import { createEvaluator, type Evaluator } from './evaluator.ts';
import { readCluster } from './read-cluster.ts';

const SEEDS = Array.from({ length: 25 }, (_, index) => index + 1);

function evaluatorOf(objects: readonly ValueObject[]): Evaluator {
  const { cluster, problems } = readCluster(objects);
  expect(problems).toEqual([]);
  return createEvaluator(cluster, { ipBlockMode: 'any-ip' });
}

/** Whether an entry's end, a name or a range, is this end. */
function isEnd(text: string, end: Endpoint): boolean {
  if (end.kind === 'pod') return text === endpointLabel(end);
  const address = end.addresses[0] ?? -1n;
  const [first = '', last = first] = text.split('-');
  const { first: from, size } = parseCidr(text) ?? { first: parseAddress(first) ?? 2n ** 130n, size: -1 };
  if (size < 0) return address >= from && address <= (parseAddress(last) ?? -1n);
  return address >= from && address < from + (1n << BigInt((text.includes(':') ? 128 : 32) - size));
}

function hasText(ports: string, port: number): boolean {
  return ports.split(',').some((part) => {
    const [first = 0, last = first] = part.split('-').map(Number);
    return port >= first && port <= last;
  });
}

describe('connections', () => {
  it.each(SEEDS)('list exactly what single verdicts say (seed %i)', (seed) => {
    const random = createRandom(seed);
    const admin = random.chance(0.4) ? randomAdminPolicies(random) : [];
    const pods = randomPods(random).map((object) => (random.chance(0.2) ? { ...object, status: {} } : object));
    const evaluator = evaluatorOf([...pods, ...admin, ...randomPolicies(random, 5)]);
    const { cluster } = evaluator;
    const byEnds = [...connections(evaluator)];
    const addresses = SAMPLE_ADDRESSES.map((ip) => evaluator.endpoint({ ip }));
    const ends: Endpoint[] = [...cluster.pods.map((pod, index) => ({ kind: 'pod', pod, index }) as const), ...addresses];
    for (const source of ends) {
      for (const destination of ends) {
        if (source === destination || (source.kind === 'addresses' && destination.kind === 'addresses')) continue;
        const entries = byEnds.filter(({ src, dst }) => isEnd(src, source) && isEnd(dst, destination));
        for (const protocol of PROTOCOLS) {
          for (const port of SAMPLE_PORTS) {
            const found = entries.filter((entry) => entry.protocol === protocol && hasText(entry.ports, port));
            const { verdict, cniDependent } = evaluator.verdict({ source, destination, protocol, port });
            const expected = verdict === 'denied' ? [] : [verdict === 'undecidable' ? verdict : cniDependent ? 'cni' : 'sure'];
            const listed = found.map((entry) => (entry.undecidable ? 'undecidable' : entry.cniDependent ? 'cni' : 'sure'));
            // an entry that holds in one mode and is undecidable in the other counts as dependent, a denied one is not listed
            if (listed.join() !== expected.join())
              expect.fail(
                `${endpointLabel(source)} to ${endpointLabel(destination)} ${protocol} ${port}: ${listed} for ${expected}`,
              );
          }
        }
      }
    }
  });

  it('join addresses into few ranges and tell a workload to itself', () => {
    const found = [
      ...connections(
        evaluatorOf([
          {
            apiVersion: 'apps/v1',
            kind: 'Deployment',
            metadata: { name: 'web', namespace: 'shop' },
            spec: { template: { metadata: { labels: { app: 'web' } }, spec: { containers: [{ name: 'main' }] } } },
          },
          {
            apiVersion: 'networking.k8s.io/v1',
            kind: 'NetworkPolicy',
            metadata: { name: 'web', namespace: 'shop' },
            spec: {
              podSelector: {},
              policyTypes: ['Ingress', 'Egress'],
              ingress: [{ from: [{ podSelector: { matchLabels: { app: 'web' } } }], ports: [{ port: 7000, endPort: 7010 }] }],
              egress: [
                { to: [{ ipBlock: { cidr: '0.0.0.0/0', except: ['10.0.0.0/8'] } }], ports: [{ port: 443 }] },
                { to: [{ podSelector: {} }] },
              ],
            },
          },
        ]),
      ),
    ];
    const web = 'shop/web';
    expect(found).toEqual<Connection[]>([
      { src: web, dst: web, protocol: 'TCP', ports: '7000-7010' },
      { src: web, dst: '0.0.0.0-9.255.255.255', protocol: 'TCP', ports: '443' },
      { src: web, dst: '11.0.0.0-255.255.255.255', protocol: 'TCP', ports: '443' },
    ]);
  });

  it('tell pods with the same labels apart by namespace and by ports with names, and let alike ones reach each other', () => {
    const pod = (name: string, namespace: string, port: number) => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace, labels: { app: 'web' } },
      spec: { containers: [{ name: 'main', ports: [{ name: 'http', containerPort: port }] }] },
    });
    const policy = {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'web', namespace: 'shop' },
      spec: { podSelector: {}, policyTypes: ['Ingress'], ingress: [{ from: [{ podSelector: {} }], ports: [{ port: 'http' }] }] },
    };
    const pods = [pod('a', 'shop', 80), pod('b', 'shop', 80), pod('c', 'shop', 81), pod('d', 'other', 80)];
    const found = [...connections(evaluatorOf([...pods, policy]))].filter(
      ({ dst, src }) => dst.startsWith('shop/') && src.includes('/'),
    );
    const lines = found.map(({ src, dst, protocol, ports }) => `${src} ${dst} ${protocol} ${ports}`);
    expect(lines).toEqual([
      'shop/a shop/b TCP 80',
      'shop/a shop/c TCP 81',
      'shop/b shop/a TCP 80',
      'shop/b shop/c TCP 81',
      'shop/c shop/a TCP 80',
      'shop/c shop/b TCP 80',
    ]);
  });
});
