import { describe, expect, it } from 'vitest';
import type { ObjectKey, ValueObject } from './object.ts';
import { objectNeeds } from './object-needs.ts';

const needs = (kind: string, object: ValueObject, namespace = 'shop', definitions = new Map<string, string>()) => {
  const [group = '', short = ''] = kind.split('/');
  const key: ObjectKey = { group, kind: short, version: 'v1', namespace, name: 'it' };
  return [...objectNeeds(key, object, definitions)].sort();
};

const POD: ValueObject = {
  serviceAccountName: 'account',
  priorityClassName: 'urgent',
  runtimeClassName: 'sandbox',
  imagePullSecrets: [{ name: 'pull' }],
  initContainers: [{ envFrom: [{ secretRef: { name: 'env-secret' } }, { configMapRef: { name: 'env-map' } }] }],
  containers: [
    {
      env: [
        { name: 'PLAIN', value: 'x' },
        { name: 'A', valueFrom: { secretKeyRef: { name: 'key-secret', key: 'k' } } },
        { name: 'B', valueFrom: { configMapKeyRef: { name: 'key-map', key: 'k' } } },
        { name: 'C', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
      ],
    },
  ],
  volumes: [
    { persistentVolumeClaim: { claimName: 'claim' } },
    { secret: { secretName: 'volume-secret' } },
    { configMap: { name: 'volume-map' } },
    { emptyDir: {} },
    { ephemeral: { volumeClaimTemplate: { spec: { storageClassName: 'fast' } } } },
    { projected: { sources: [{ secret: { name: 'projected-secret' } }, { configMap: { name: 'projected-map' } }, {}] } },
  ],
};
const POD_NEEDS = [
  '/ConfigMap/shop/env-map',
  '/ConfigMap/shop/key-map',
  '/ConfigMap/shop/projected-map',
  '/ConfigMap/shop/volume-map',
  '/Namespace//shop',
  '/PersistentVolumeClaim/shop/claim',
  '/Secret/shop/env-secret',
  '/Secret/shop/key-secret',
  '/Secret/shop/projected-secret',
  '/Secret/shop/pull',
  '/Secret/shop/volume-secret',
  '/ServiceAccount/shop/account',
  'node.k8s.io/RuntimeClass//sandbox',
  'scheduling.k8s.io/PriorityClass//urgent',
  'storage.k8s.io/StorageClass//fast',
];

describe('what an object needs', () => {
  it.each(['apps/Deployment', 'apps/StatefulSet', 'apps/DaemonSet', 'apps/ReplicaSet', 'batch/Job', '/ReplicationController'])(
    'is for a %s all its pods refer to',
    (kind) => {
      expect(needs(kind, { spec: { template: { spec: POD } } })).toEqual(POD_NEEDS);
    },
  );

  it('is for a pod and for a job on schedule the same', () => {
    expect(needs('/Pod', { spec: POD })).toEqual(POD_NEEDS);
    expect(needs('batch/CronJob', { spec: { jobTemplate: { spec: { template: { spec: POD } } } } })).toEqual(POD_NEEDS);
  });

  it.each([
    ['rbac.authorization.k8s.io/RoleBinding', { roleRef: { kind: 'Role', name: 'r' } }, 'rbac.authorization.k8s.io/Role/shop/r'],
    [
      'rbac.authorization.k8s.io/RoleBinding',
      { roleRef: { kind: 'ClusterRole', name: 'r' } },
      'rbac.authorization.k8s.io/ClusterRole//r',
    ],
    ['/PersistentVolumeClaim', { spec: { storageClassName: 'fast' } }, 'storage.k8s.io/StorageClass//fast'],
    ['/PersistentVolumeClaim', { spec: { volumeName: 'disk' } }, '/PersistentVolume//disk'],
    [
      'apps/StatefulSet',
      { spec: { volumeClaimTemplates: [{ spec: { storageClassName: 'fast' } }] } },
      'storage.k8s.io/StorageClass//fast',
    ],
    ['networking.k8s.io/Ingress', { spec: { ingressClassName: 'edge' } }, 'networking.k8s.io/IngressClass//edge'],
    [
      'autoscaling/HorizontalPodAutoscaler',
      { spec: { scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'web' } } },
      'apps/Deployment/shop/web',
    ],
  ] satisfies [string, ValueObject, string][])('is for a %s with %j: %s', (kind, object, need) => {
    expect(needs(kind, object)).toEqual(['/Namespace//shop', need].sort());
  });

  it('is for what intercepts requests the service behind it, in its namespace', () => {
    const service = { name: 'hook', namespace: 'infra' };
    const webhooks = [{ clientConfig: { service } }, { clientConfig: { url: 'https://elsewhere' } }];
    expect(needs('admissionregistration.k8s.io/MutatingWebhookConfiguration', { webhooks }, '')).toEqual(['/Service/infra/hook']);
    expect(needs('apiregistration.k8s.io/APIService', { spec: { service } }, '')).toEqual(['/Service/infra/hook']);
  });

  it('is for a custom resource the definition of its kind, no other of the group', () => {
    const definitions = new Map([
      ['example.org/Thing', 'apiextensions.k8s.io/CustomResourceDefinition//things.example.org'],
      ['example.org/Other', 'apiextensions.k8s.io/CustomResourceDefinition//others.example.org'],
    ]);
    expect(needs('example.org/Thing', {}, '', definitions)).toEqual([definitions.get('example.org/Thing')]);
  });

  it('is nothing where fields have no sensible value', () => {
    expect(
      needs(
        'apps/Deployment',
        { spec: { template: { spec: { volumes: 'none', containers: [null], serviceAccountName: 1 } } } },
        '',
      ),
    ).toEqual([]);
    expect(needs('apps/Deployment', {}, '')).toEqual([]);
  });
});
