import { describe, expect, it } from 'vitest';
import { type GraphItem, type Node, wavesOf } from './graph.ts';
import { runStep } from './graph-run.ts';
import { rankOf } from './order.ts';

const item = (kind: string, name: string, { needs = [] as readonly string[], wave = 0 } = {}): GraphItem => {
  const [group = '', short = ''] = kind.split('/');
  return { group, kind: short, version: 'v1', namespace: '', name, needs, wave };
};
const names = (items: readonly GraphItem[]) =>
  wavesOf(items).map(({ wave, steps }) => [wave, steps.map((nodes) => nodes.map(({ item: { name } }) => name))]);

/** Numbers in [0, 1) that are the same in every run (mulberry32, public domain). */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const KINDS = [
  '/Namespace',
  '/ConfigMap',
  '/Secret',
  'apps/Deployment',
  'example.org/Thing',
  'autoscaling/HorizontalPodAutoscaler',
];
const LAST = 'admissionregistration.k8s.io/ValidatingWebhookConfiguration';

/** Items that refer to one another at random, also in circles, to themselves and to nothing. */
function randomItems(random: () => number): GraphItem[] {
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
  const kinds = Array.from({ length: 40 }, () => pick([...KINDS, LAST]));
  const keys = kinds.map((kind, index) => `${kind}//${index}`);
  return kinds.map((kind, index) => {
    const needs = Array.from({ length: Math.floor(random() * 4) }, () => pick([...keys, '/ConfigMap//elsewhere']));
    return item(kind, String(index), { needs, wave: Math.floor(random() * 3) });
  });
}

/** Runs all waves as an apply does, ending the work in an order of its own; returns the names in the order of their starts. */
async function run(items: readonly GraphItem[], random: () => number, width: number) {
  const started: string[] = [];
  const ended = new Set<string>();
  const running = new Map<string, () => void>();
  let most = 0;
  for (const { steps } of wavesOf(items)) {
    for (const nodes of steps) {
      const done = runStep(
        nodes,
        () => width,
        async (node) => {
          expect(node.needs.filter(({ key }) => !ended.has(key))).toEqual([]);
          started.push(node.key);
          await new Promise<void>((resolve) => running.set(node.key, resolve));
          ended.add(node.key);
        },
      );
      let open = true;
      const end = done.finally(() => {
        open = false;
      });
      while (open) {
        most = Math.max(most, running.size);
        const keys = [...running.keys()];
        const key = keys[Math.floor(random() * keys.length)];
        if (key !== undefined) running.get(key)?.();
        running.delete(key ?? '');
        await new Promise(setImmediate);
      }
      await end;
    }
  }
  return { started, most };
}

describe('the graph of a stack', () => {
  it('is one step for objects without relations, in the order of kinds', () => {
    expect(names([item('apps/Deployment', 'web'), item('/Secret', 'key'), item('/Namespace', 'shop')])).toEqual([
      [0, [['shop', 'key', 'web']]],
    ]);
  });

  it('puts what intercepts requests into a step of its own, at the end of its wave', () => {
    expect(names([item(LAST, 'hook'), item('example.org/Thing', 'thing'), item('/Secret', 'later', { wave: 1 })])).toEqual([
      [0, [['thing'], ['hook']]],
      [1, [['later']]],
    ]);
  });

  it('takes an object along to the wave of what it needs', () => {
    const web = item('apps/Deployment', 'web', { needs: ['/ConfigMap//settings'] });
    const scaler = item('autoscaling/HorizontalPodAutoscaler', 'scaler', { needs: ['apps/Deployment//web'] });
    expect(names([scaler, web, item('/ConfigMap', 'settings', { wave: 2 }), item('/Secret', 'key')])).toEqual([
      [0, [['key']]],
      [2, [['settings', 'web', 'scaler']]],
    ]);
  });

  it('has no circles whatever refers to what, loses nothing, and keeps every edge', async () => {
    for (let seed = 1; seed <= 50; seed++) {
      const random = numbers(seed);
      const items = randomItems(random);
      const { started, most } = await run(items, random, 4);
      expect(started.toSorted()).toEqual(items.map(({ group, kind, name }) => `${group}/${kind}//${name}`).toSorted());
      expect(most).toBeLessThanOrEqual(4);
      const place = new Map(started.map((key, index) => [key, index]));
      for (const { group, kind, name, needs } of items) {
        for (const need of needs) {
          const [other = '', short = ''] = need.split('/');
          if (rankOf({ group: other, kind: short }) >= rankOf({ group, kind }) || !place.has(need)) continue;
          expect(place.get(need), `seed ${seed}: ${need} before ${name}`).toBeLessThan(
            place.get(`${group}/${kind}//${name}`) ?? -1,
          );
        }
      }
    }
  });

  it('orders 10,000 objects with 32,000 edges in well below a second of work', () => {
    const items = Array.from({ length: 10_000 }, (_, index) =>
      index < 2000
        ? item('/ConfigMap', String(index))
        : item('apps/Deployment', String(index), { needs: [0, 1, 2, 3].map((n) => `/ConfigMap//${(index * 7 + n) % 2000}`) }),
    );
    const before = process.cpuUsage();
    expect(wavesOf(items)[0]?.steps[0]).toHaveLength(10_000);
    expect(process.cpuUsage(before).user / 1000).toBeLessThan(500); // others on the machine do not count
  });
});

describe('the run of a step', () => {
  const step = (items: readonly GraphItem[]) => (wavesOf(items)[0]?.steps[0] ?? []) as readonly Node<GraphItem>[];

  it('starts nothing more after a rejection, and rejects once the rest has ended', async () => {
    const started: string[] = [];
    let ended = false;
    const done = runStep(
      step(['a', 'b', 'c'].map((name) => item('/Secret', name))),
      () => 2,
      async ({ item: { name } }) => {
        started.push(name);
        await Promise.resolve();
        if (name === 'a') throw new Error('broken');
        await new Promise(setImmediate);
        ended = true;
      },
    );
    await expect(done).rejects.toThrow('broken');
    expect(started).toEqual(['a', 'b']);
    expect(ended).toBe(true);
  });

  it('gives the place of a node that only waits to the next one', async () => {
    const started: string[] = [];
    const go = Promise.withResolvers<void>();
    await runStep(
      step([
        item('/Namespace', 'slow'),
        item('/Secret', 'quick'),
        item('apps/Deployment', 'held', { needs: ['/Namespace//slow'] }),
      ]),
      () => 1,
      async ({ item: { name } }, leave) => {
        started.push(name);
        if (name === 'quick') go.resolve();
        if (name !== 'slow') return;
        leave();
        await go.promise;
      },
    );
    expect(started).toEqual(['slow', 'quick', 'held']);
  });
});
