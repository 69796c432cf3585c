import { describe, expect, it } from 'vitest';
import { hasReadiness, readiness } from './readiness.ts';

const condition = (type: string, status: string, reason = '', message = '') => ({ type, status, reason, message });
const seen = { observedGeneration: 2 };
const generation = 2;

/** Kind, what the object says, expected state and reason. */
const TABLE: readonly (readonly [string, object, string, string])[] = [
  ['apps/Deployment', {}, 'progressing', 'LessUpdated'],
  ['apps/Deployment', { status: { observedGeneration: 1 } }, 'progressing', 'NotObserved'],
  [
    'apps/Deployment',
    { spec: { replicas: 2 }, status: { ...seen, replicas: 2, updatedReplicas: 1 } },
    'progressing',
    'LessUpdated',
  ],
  [
    'apps/Deployment',
    { spec: { replicas: 1 }, status: { ...seen, replicas: 2, updatedReplicas: 1, availableReplicas: 2 } },
    'progressing',
    'ExtraPods',
  ],
  [
    'apps/Deployment',
    { spec: { replicas: 1 }, status: { ...seen, replicas: 1, updatedReplicas: 1, availableReplicas: 0 } },
    'progressing',
    'LessAvailable',
  ],
  [
    'apps/Deployment',
    { spec: { replicas: 1 }, status: { ...seen, replicas: 1, updatedReplicas: 1, availableReplicas: 1 } },
    'ready',
    'Available',
  ],
  ['apps/Deployment', { spec: { replicas: 0 }, status: seen }, 'ready', 'Available'],
  ['apps/Deployment', { spec: { paused: true }, status: seen }, 'suspended', 'Paused'],
  [
    'apps/Deployment',
    { status: { ...seen, conditions: [condition('Progressing', 'False', 'ProgressDeadlineExceeded')] } },
    'failing',
    'ProgressDeadlineExceeded',
  ],
  [
    'apps/Deployment',
    { status: { ...seen, conditions: [condition('ReplicaFailure', 'True', 'FailedCreate', 'quota')] } },
    'failing',
    'FailedCreate',
  ],
  ['apps/StatefulSet', { spec: { replicas: 2 }, status: { ...seen, readyReplicas: 1 } }, 'progressing', 'LessReady'],
  [
    'apps/StatefulSet',
    {
      spec: { replicas: 2 },
      status: { ...seen, readyReplicas: 2, updatedReplicas: 2, currentRevision: 'a', updateRevision: 'b' },
    },
    'progressing',
    'RolloutInProgress',
  ],
  [
    'apps/StatefulSet',
    {
      spec: { replicas: 2 },
      status: { ...seen, readyReplicas: 2, updatedReplicas: 2, currentRevision: 'b', updateRevision: 'b' },
    },
    'ready',
    'Ready',
  ],
  [
    'apps/StatefulSet',
    { spec: { replicas: 2, updateStrategy: { type: 'OnDelete' } }, status: { ...seen, readyReplicas: 2 } },
    'ready',
    'Ready',
  ],
  [
    'apps/DaemonSet',
    { status: { ...seen, desiredNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: 1, numberReady: 1 } },
    'progressing',
    'LessAvailable',
  ],
  [
    'apps/DaemonSet',
    { status: { ...seen, desiredNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: 2, numberReady: 2 } },
    'ready',
    'Ready',
  ],
  ['apps/ReplicaSet', { spec: { replicas: 1 }, status: { ...seen, availableReplicas: 1 } }, 'ready', 'Available'],
  ['batch/Job', {}, 'progressing', 'NotStarted'],
  ['batch/Job', { status: { startTime: 't', succeeded: 0 } }, 'progressing', 'Running'],
  ['batch/Job', { status: { conditions: [condition('Complete', 'True')] } }, 'ready', 'Complete'],
  [
    'batch/Job',
    { status: { conditions: [condition('Failed', 'True', 'BackoffLimitExceeded')] } },
    'failing',
    'BackoffLimitExceeded',
  ],
  ['batch/Job', { spec: { suspend: true } }, 'suspended', 'Suspended'],
  ['/Pod', { status: { phase: 'Running', conditions: [condition('Ready', 'True')] } }, 'ready', 'Ready'],
  ['/Pod', { status: { phase: 'Failed', reason: 'Evicted' } }, 'failing', 'Evicted'],
  [
    '/Pod',
    { status: { phase: 'Pending', containerStatuses: [{ state: { waiting: { reason: 'ImagePullBackOff' } } }] } },
    'failing',
    'ImagePullBackOff',
  ],
  [
    '/Pod',
    { status: { phase: 'Pending', conditions: [condition('PodScheduled', 'False', 'Unschedulable')] } },
    'progressing',
    'Unschedulable',
  ],
  ['/PersistentVolumeClaim', { status: { phase: 'Bound' } }, 'ready', 'Bound'],
  ['/PersistentVolumeClaim', { status: { phase: 'Lost' } }, 'failing', 'Lost'],
  ['/PersistentVolumeClaim', {}, 'progressing', 'Pending'],
  ['/Service', { spec: { type: 'ClusterIP' } }, 'ready', 'Current'],
  ['/Service', { spec: { type: 'LoadBalancer' }, status: { loadBalancer: {} } }, 'progressing', 'NoAddress'],
  [
    '/Service',
    { spec: { type: 'LoadBalancer' }, status: { loadBalancer: { ingress: [{ ip: '::1' }] } } },
    'ready',
    'AddressAssigned',
  ],
  ['/Namespace', { status: { phase: 'Active' } }, 'ready', 'Active'],
  ['/Namespace', { status: { phase: 'Terminating' } }, 'progressing', 'Terminating'],
  [
    'apiextensions.k8s.io/CustomResourceDefinition',
    { status: { conditions: [condition('Established', 'True')] } },
    'ready',
    'Established',
  ],
  [
    'apiextensions.k8s.io/CustomResourceDefinition',
    { status: { conditions: [condition('NamesAccepted', 'False', 'Conflict')] } },
    'failing',
    'Conflict',
  ],
  [
    'apiregistration.k8s.io/APIService',
    { status: { conditions: [condition('Available', 'False', 'ServiceNotFound')] } },
    'progressing',
    'ServiceNotFound',
  ],
  [
    'autoscaling/HorizontalPodAutoscaler',
    { status: { conditions: [condition('ScalingActive', 'False', 'FailedGetMetric')] } },
    'degraded',
    'FailedGetMetric',
  ],
  ['autoscaling/HorizontalPodAutoscaler', { status: { conditions: [condition('ScalingActive', 'True')] } }, 'ready', 'Current'],
  ['example.org/Thing', {}, 'ready', 'Current'],
  ['example.org/Thing', { status: { conditions: [condition('Ready', 'False', 'Waiting')] } }, 'progressing', 'Waiting'],
  ['example.org/Thing', { status: { conditions: [condition('Ready', 'Unknown', 'Lost')] } }, 'unknown', 'Lost'],
  ['example.org/Thing', { status: { conditions: [condition('Ready', 'True', 'Synced')] } }, 'ready', 'Synced'],
  ['example.org/Thing', { status: { conditions: [condition('Stalled', 'True', 'Broken')] } }, 'failing', 'Broken'],
];

describe('readiness', () => {
  it.each(TABLE)('of %s %j is %s (%s)', (name, parts, state, reason) => {
    const [group = '', kind = ''] = name.split('/');
    expect(readiness(group, kind, { metadata: { generation }, ...parts })).toMatchObject({ state, reason });
  });

  it('counts the pods of a workload', () => {
    const object = { metadata: { generation }, spec: { replicas: 3 }, status: { ...seen, readyReplicas: 1 } };
    expect(readiness('apps', 'StatefulSet', object)).toMatchObject({ podsReady: 1, podsTotal: 3 });
  });

  it('of an object that is being deleted is not there', () => {
    expect(readiness('', 'Service', { metadata: { deletionTimestamp: 'now' } })).toMatchObject({
      state: 'progressing',
      reason: 'Terminating',
    });
  });

  it('is looked at for workloads and custom resources only', () => {
    expect(hasReadiness('apps', 'Deployment')).toBe(true);
    expect(hasReadiness('example.org', 'Thing')).toBe(true);
    expect(hasReadiness('', 'ConfigMap')).toBe(false);
    expect(hasReadiness('rbac.authorization.k8s.io', 'Role')).toBe(false);
  });
});
