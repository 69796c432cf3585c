import { describe, expect, it } from 'vitest';
import type { KubeObject } from '../kube/objects.ts';
import { podSelector, topReason } from './pod-reasons.ts';

const metadata = { name: 'a', uid: 'u', resourceVersion: '1' };
const pod = (status: object): KubeObject => ({ metadata, status });
const waiting = (reason: string, message?: string) =>
  pod({ phase: 'Pending', containerStatuses: [{ state: { running: {} } }, { state: { waiting: { reason, message } } }] });
const READY = pod({ phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] });

describe('the top reason of pods', () => {
  it.each<[string, KubeObject[], string | undefined, string]>([
    ['none', [], undefined, ''],
    ['all ready or done', [READY, pod({ phase: 'Succeeded' })], undefined, ''],
    [
      'an image that cannot be had',
      [READY, waiting('ImagePullBackOff', 'Back-off')],
      'ImagePullBackOff',
      'ImagePullBackOff in 1 of 2 pods: Back-off',
    ],
    [
      'that of most',
      [waiting('ErrImagePull'), waiting('CrashLoopBackOff'), waiting('CrashLoopBackOff')],
      'CrashLoopBackOff',
      'CrashLoopBackOff in 2 of 3 pods',
    ],
    [
      'not what every pod begins with',
      [waiting('ContainerCreating'), waiting('ContainerCreating'), waiting('ErrImagePull')],
      'ErrImagePull',
      'ErrImagePull in 1 of 3 pods',
    ],
    [
      'an init container',
      [pod({ initContainerStatuses: [{ state: { waiting: { reason: 'CrashLoopBackOff' } } }] })],
      'CrashLoopBackOff',
      'CrashLoopBackOff in 1 of 1 pods',
    ],
    [
      'memory, though it restarts',
      [
        pod({
          containerStatuses: [
            { state: { waiting: { reason: 'CrashLoopBackOff' } }, lastState: { terminated: { reason: 'OOMKilled' } } },
          ],
        }),
      ],
      'OOMKilled',
      'OOMKilled in 1 of 1 pods: a container had more memory than its limit',
    ],
    [
      'an exit',
      [pod({ containerStatuses: [{ state: { terminated: { reason: 'Error', exitCode: 3 } } }] })],
      'Error',
      'Error in 1 of 1 pods',
    ],
    [
      'no node',
      [
        pod({
          phase: 'Pending',
          conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: '0/3 nodes' }],
        }),
      ],
      'Unschedulable',
      'Unschedulable in 1 of 1 pods: 0/3 nodes',
    ],
    [
      'evicted',
      [pod({ phase: 'Failed', reason: 'Evicted', message: 'low on memory' })],
      'Evicted',
      'Evicted in 1 of 1 pods: low on memory',
    ],
    ['nothing yet', [pod({ phase: 'Pending' })], 'Pending', 'Pending in 1 of 1 pods'],
    [
      'long words, cut',
      [waiting('ErrImagePull', 'x'.repeat(500))],
      'ErrImagePull',
      `ErrImagePull in 1 of 1 pods: ${'x'.repeat(227)}`,
    ],
  ])('is %s', (_name, pods, reason, message) => {
    expect(topReason(pods)).toEqual(reason === undefined ? undefined : { reason, message });
  });
});

describe('the selector of the pods of a workload', () => {
  it.each([
    [{ matchLabels: { a: 'b', c: 'd' } }, 'a=b,c=d'],
    [
      {
        matchExpressions: [
          { key: 'a', operator: 'In', values: ['x', 'y'] },
          { key: 'b', operator: 'NotIn', values: ['z'] },
        ],
      },
      'a in (x,y),b notin (z)',
    ],
    [
      {
        matchLabels: { a: 'b' },
        matchExpressions: [
          { key: 'c', operator: 'Exists' },
          { key: 'd', operator: 'DoesNotExist' },
        ],
      },
      'a=b,c,!d',
    ],
    [{ app: 'web' }, 'app=web'],
    [undefined, undefined],
  ])('%j is %s', (selector, text) => {
    expect(podSelector({ metadata, spec: { selector } })).toBe(text);
  });
});
