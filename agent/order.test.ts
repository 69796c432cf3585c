import { describe, expect, it } from 'vitest';
import { inOrder, inReverse } from './order.ts';

const object = (name: string, wave = 0) => {
  const [group = '', kind = ''] = name.split('/');
  return { group, kind, wave };
};
const names = (batches: readonly { readonly items: readonly { readonly group: string; readonly kind: string }[] }[]) =>
  batches.map(({ items }) => items.map(({ group, kind }) => `${group}/${kind}`));

describe('the order of a stack', () => {
  const kinds = [
    'admissionregistration.k8s.io/ValidatingWebhookConfiguration',
    'example.org/Thing',
    'apps/Deployment',
    '/Service',
    '/Secret',
    '/ServiceAccount',
    'rbac.authorization.k8s.io/ClusterRole',
    'apiextensions.k8s.io/CustomResourceDefinition',
    '/Namespace',
  ];
  const sorted = [
    ['apiextensions.k8s.io/CustomResourceDefinition', '/Namespace'],
    ['rbac.authorization.k8s.io/ClusterRole', '/ServiceAccount', '/Secret', '/Service'],
    ['apps/Deployment', 'example.org/Thing'],
    ['admissionregistration.k8s.io/ValidatingWebhookConfiguration'],
  ];

  it('is definitions and namespaces, what workloads need, workloads and the rest, webhooks', () => {
    expect(names(inOrder(kinds.map((kind) => object(kind))))).toEqual(sorted);
  });

  it('is reversed for deletion', () => {
    const reversed = sorted.toReversed().map((batch) => batch.toReversed());
    expect(names(inReverse(kinds.map((kind) => object(kind))))).toEqual(reversed);
  });

  it('puts waves before kinds', () => {
    expect(names(inOrder([object('/Namespace', 1), object('apps/Deployment', -1), object('/Secret')]))).toEqual([
      ['apps/Deployment'],
      ['/Secret'],
      ['/Namespace'],
    ]);
  });
});
