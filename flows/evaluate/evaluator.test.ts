import { describe, expect, it } from 'vitest';
import type { ValueObject } from '#lib/object.ts';
import { type NaiveEnd, naivelyAllowed } from '../../test/flows/naive-evaluator.ts';
import {
  randomAdminPolicies,
  randomPods,
  randomPolicies,
  randomPolicy,
  SAMPLE_ADDRESSES,
  SAMPLE_PORTS,
} from '../../test/flows/random-cluster.ts';
import { createRandom, type Random } from '../../test/soak/random.ts';
import { PROTOCOLS } from '../model/model.ts';
import { addressTexts } from '../sets/addresses.ts';
import { hasPort, portsText } from '../sets/connections.ts';
import type { Endpoint } from './endpoint.ts';
import { createEvaluator, type Evaluator } from './evaluator.ts';
import { readCluster } from './read-cluster.ts';
import { IP_BLOCK_MODES, type IpBlockMode } from './rules.ts';

const SEEDS = Array.from({ length: 25 }, (_, index) => index + 1);

function evaluatorOf(objects: readonly ValueObject[], ipBlockMode: IpBlockMode = 'any-ip'): Evaluator {
  const { cluster, problems } = readCluster(objects);
  expect(problems).toEqual([]);
  return createEvaluator(cluster, { ipBlockMode });
}

function endsOf({ cluster, endpoint }: Evaluator): Endpoint[] {
  const pods = cluster.pods.map((pod, index) => ({ kind: 'pod', pod, index }) as const);
  return [...pods, ...SAMPLE_ADDRESSES.map((ip) => endpoint({ ip }))];
}

/** Everything that may be opened, as text: equal texts are equal matrices. */
function matrix(evaluator: Evaluator): string[] {
  const ends = endsOf(evaluator);
  return ends.flatMap((source, from) =>
    ends.map((destination, to) => {
      const { allowed, undecidable } = evaluator.between(evaluator.ipBlockMode)(source, destination);
      const text = (id: number) => PROTOCOLS.map((protocol) => portsText(evaluator.table.get(id)[protocol])).join('/');
      return `${from}>${to} ${text(allowed)} ? ${text(undecidable)}`;
    }),
  );
}

function naiveEnd(end: Endpoint): NaiveEnd {
  if (end.kind === 'addresses') return { addresses: addressTexts(end.addresses) };
  return { ...end.pod, addresses: addressTexts(end.pod.addresses) };
}

function shuffled<T>(random: Random, items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, at: random.below(1_000_000) }))
    .sort((a, b) => a.at - b.at)
    .map(({ item }) => item);
}

/** The same policy with its rules and peers in another order. */
function reordered(random: Random, value: ValueObject): ValueObject {
  const inOrder = (each: unknown): unknown => {
    if (Array.isArray(each)) return shuffled(random, each.map(inOrder));
    if (typeof each !== 'object' || each === null) return each;
    return Object.fromEntries(Object.entries(each).map(([key, inner]) => [key, inOrder(inner)]));
  };
  return inOrder(value) as ValueObject;
}

describe('random clusters', () => {
  it.each(SEEDS)('have the verdicts of the documentation, cell by cell and as sets (seed %i)', (seed) => {
    const random = createRandom(seed);
    const policies = randomPolicies(random, 6);
    const objects = [...randomPods(random), ...policies];
    for (const mode of IP_BLOCK_MODES) {
      const evaluator = evaluatorOf(objects, mode);
      for (const source of endsOf(evaluator)) {
        for (const destination of endsOf(evaluator)) {
          if (source === destination || (source.kind === 'pod' && destination.kind === 'pod' && source.pod === destination.pod))
            continue;
          const { allowed, undecidable } = evaluator.between(mode)(source, destination);
          expect(undecidable).toBe(0);
          for (const protocol of PROTOCOLS) {
            for (const port of SAMPLE_PORTS) {
              const expected = naivelyAllowed(policies, naiveEnd(source), naiveEnd(destination), protocol, port, mode);
              const { verdict } = evaluator.verdict({ source, destination, protocol, port });
              if (
                verdict !== (expected ? 'allowed' : 'denied') ||
                hasPort(evaluator.table.get(allowed), protocol, port) !== expected
              )
                expect.fail(
                  `${JSON.stringify([naiveEnd(source), naiveEnd(destination), protocol, port])} is ${verdict}, not ${expected}`,
                );
            }
          }
        }
      }
    }
  });

  it.each(SEEDS)('agree cell by cell and as sets with admin tiers and unknown addresses (seed %i)', (seed) => {
    const random = createRandom(seed);
    const pods = randomPods(random).map((object) => (random.chance(0.5) ? { ...object, status: {} } : object));
    const evaluator = evaluatorOf([...pods, ...randomAdminPolicies(random), ...randomPolicies(random, 2)]);
    for (const source of endsOf(evaluator)) {
      for (const destination of endsOf(evaluator)) {
        const { allowed, undecidable } = evaluator.between('any-ip')(source, destination);
        for (const protocol of PROTOCOLS) {
          for (const port of SAMPLE_PORTS) {
            const { verdict, reason } = evaluator.verdict({ source, destination, protocol, port });
            const isIn = (id: number) => hasPort(evaluator.table.get(id), protocol, port);
            const bySets = isIn(allowed) ? 'allowed' : isIn(undecidable) ? 'undecidable' : 'denied';
            if (verdict !== bySets) expect.fail(`${protocol} ${port} is ${verdict} (${reason}), as sets ${bySets}`);
          }
        }
      }
    }
  });

  it.each(SEEDS)('do not depend on the order of policies, rules and peers (seed %i)', (seed) => {
    const random = createRandom(seed);
    const pods = randomPods(random);
    const policies = randomPolicies(random, 5);
    const other = shuffled(random, policies).map((policy) => reordered(random, policy));
    expect(matrix(evaluatorOf([...other, ...pods]))).toEqual(matrix(evaluatorOf([...pods, ...policies])));
  });

  it.each(SEEDS)('are as closed with default deny twice as once (seed %i)', (seed) => {
    const random = createRandom(seed);
    const objects = [...randomPods(random), ...randomPolicies(random, 3)];
    const deny = (name: string) => ({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name, namespace: 'red' },
      spec: { podSelector: {}, policyTypes: ['Ingress', 'Egress'] },
    });
    const once = matrix(evaluatorOf([...objects, deny('deny')]));
    expect(matrix(evaluatorOf([...objects, deny('deny'), deny('deny-again')]))).toEqual(once);
  });

  it.each(SEEDS)('only gain by a further policy when all is isolated, and only lose by a first one (seed %i)', (seed) => {
    const random = createRandom(seed);
    const pods = randomPods(random);
    const further = randomPolicy(random, 'further');
    const deny = ['red', 'green', 'blue'].map((namespace) => ({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'deny', namespace },
      spec: { podSelector: {}, policyTypes: ['Ingress', 'Egress'] },
    }));
    const isolated = [...pods, ...deny, ...randomPolicies(random, 3)];
    expectSubset(evaluatorOf(isolated), evaluatorOf([...isolated, further]));
    expectSubset(evaluatorOf([...pods, further]), evaluatorOf(pods));
  });
});

/** Every connection of the first is one of the second. */
function expectSubset(smaller: Evaluator, larger: Evaluator): void {
  const [ends, others] = [endsOf(smaller), endsOf(larger)];
  for (const [from, source] of ends.entries()) {
    for (const [to, destination] of ends.entries()) {
      const few = smaller.between('any-ip')(source, destination).allowed;
      const many = larger.between('any-ip')(others[from] ?? source, others[to] ?? destination).allowed;
      for (const protocol of PROTOCOLS) {
        for (const port of SAMPLE_PORTS) {
          if (hasPort(smaller.table.get(few), protocol, port) && !hasPort(larger.table.get(many), protocol, port))
            expect.fail(`${protocol} ${port} from ${from} to ${to} is lost`);
        }
      }
    }
  }
}
