import { describe, expect, it } from 'vitest';
import { inReverse, LAST_RANK, rankOf } from './order.ts';

const object = (name: string, wave = 0) => {
  const [group = '', kind = ''] = name.split('/');
  return { group, kind, wave };
};
const names = (batches: ReturnType<typeof inReverse<ReturnType<typeof object>>>) =>
  batches.map(({ items }) => items.map(({ group, kind }) => `${group}/${kind}`));

describe('the order of kinds', () => {
  it('puts custom resources after workloads, what scales them after both, and what intercepts requests last', () => {
    const kinds = ['/Namespace', 'apps/Deployment', 'example.org/Thing', 'autoscaling/HorizontalPodAutoscaler'];
    const ranks = kinds.map((kind) => rankOf(object(kind)));
    expect(ranks).toEqual(ranks.toSorted((a, b) => a - b));
    expect(new Set(ranks).size).toBe(kinds.length);
    expect(rankOf(object('apiregistration.k8s.io/APIService'))).toBe(LAST_RANK);
  });
});

describe('the order of deletions', () => {
  it('puts what refers to a kind before it', () => {
    const kinds = [
      '/Namespace',
      'apiextensions.k8s.io/CustomResourceDefinition',
      '/Secret',
      'example.org/Thing',
      'rbac.authorization.k8s.io/Role',
      'rbac.authorization.k8s.io/RoleBinding',
      'apps/Deployment',
      'admissionregistration.k8s.io/ValidatingWebhookConfiguration',
    ];
    expect(names(inReverse(kinds.map((kind) => object(kind))))).toEqual([
      ['admissionregistration.k8s.io/ValidatingWebhookConfiguration'],
      ['example.org/Thing'],
      ['apps/Deployment'],
      ['rbac.authorization.k8s.io/RoleBinding'],
      ['rbac.authorization.k8s.io/Role'],
      ['/Secret'],
      ['/Namespace', 'apiextensions.k8s.io/CustomResourceDefinition'],
    ]);
  });

  it('puts later waves before earlier ones', () => {
    expect(names(inReverse([object('/Namespace', 1), object('apps/Deployment', -1), object('/Secret')]))).toEqual([
      ['/Namespace'],
      ['/Secret'],
      ['apps/Deployment'],
    ]);
  });
});
