import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SeenHealth } from '../../agent/health/seen.ts';
import { HealthWatch, type WatchedStack } from '../../agent/health/watch.ts';
import { createLog } from '../../lib/log.ts';
import { createYamlPool, type YamlPool } from '../../lib/yaml-pool.ts';
import { FakeClock } from '../fake-clock.ts';
import { type OwnKube, startOwnKube } from '../kube.ts';
import { openTestKube } from '../kube-client.ts';
import type { TestIdentity } from '../kube-identity.ts';

/** A server without controllers: nobody but the test writes the status of a pod. */
let server: OwnKube;
let identity: TestIdentity;
let namespace: string;
let yaml: YamlPool;

beforeAll(async () => {
  server = await startOwnKube();
  namespace = await server.namespace('health');
  identity = await server.identity('health', { clusterAdmin: true, namespace });
  yaml = createYamlPool({ maxThreads: 1 });
});
afterAll(async () => {
  await yaml?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

describe('T46 a workload that is not ready', () => {
  /** A watch with a clock of the test's and a stack of one object, which is shown to it. */
  function watch(kind: { readonly group: string; readonly kind: string }, app: string, options?: WatchedStack['options']) {
    const clock = new FakeClock();
    const seen = new SeenHealth();
    const stack: WatchedStack = { stackId: 's', seen, options, finished: () => undefined };
    const kube = openTestKube({ url: server.url, caData: server.caData, token: identity.token });
    const health = new HealthWatch({ kube, yaml, clock, log: createLog('test', { level: 'fatal' }) }, () => undefined);
    const stop = new AbortController();
    const done = health.run(stop.signal);
    const metadata = { name: 'web', namespace, uid: 'u', resourceVersion: '1', generation: 1 };
    const described = { ...kind, version: 'v1', plural: 'ignored', namespaced: true };
    return {
      clock,
      state: () => seen.states.get('key'),
      show: (status: object) =>
        health.see(stack, described, 'key', {
          metadata,
          spec: { replicas: 2, selector: { matchLabels: { app } } },
          status,
        }),
      async [Symbol.asyncDispose]() {
        stop.abort(new Error('test over'));
        await done;
        await kube[Symbol.asyncDispose]();
      },
    };
  }

  it('T46 for 30 s is explained by its pods, asked for again after a minute, then less and less often', async () => {
    const accounts = `/api/v1/namespaces/${namespace}/serviceaccounts`;
    await server.request('POST', accounts, { metadata: { name: 'default' } });
    for (const name of ['pods-1', 'pods-2']) {
      const pod = { metadata: { name, labels: { app: 'pods' } }, spec: { containers: [{ name: 'a', image: 'a' }] } };
      expect(await server.request('POST', `/api/v1/namespaces/${namespace}/pods`, pod)).toMatchObject({ status: 201 });
      const status = {
        phase: 'Pending',
        containerStatuses: [
          {
            name: 'a',
            image: 'a',
            imageID: '',
            ready: false,
            restartCount: 0,
            state: { waiting: { reason: 'ImagePullBackOff', message: 'Back-off pulling image' } },
          },
        ],
      };
      const headers = { 'content-type': 'application/merge-patch+json' };
      const path = `/api/v1/namespaces/${namespace}/pods/${name}/status`;
      expect(await server.request('PATCH', path, { status }, headers)).toMatchObject({ status: 200 });
    }
    await using watched = watch({ group: 'apps', kind: 'Deployment' }, 'pods');
    const mark = await server.auditMark();
    const lists = async () =>
      (await server.auditEvents({ user: identity.user, since: mark, resource: 'pods', verbs: ['list'] })).length;
    watched.show({ observedGeneration: 1, replicas: 2, updatedReplicas: 2, availableReplicas: 0 });
    expect(watched.state()).toMatchObject({ state: 'progressing', reason: 'LessAvailable' });
    await watched.clock.advance(29_000);
    expect(await lists()).toBe(0);
    await watched.clock.advance(1000);
    await expect.poll(() => watched.state()?.reason, { timeout: 20_000 }).toBe('ImagePullBackOff');
    expect(watched.state()?.message).toBe(
      '0 of 2 replicas are available; ImagePullBackOff in 2 of 2 pods: Back-off pulling image',
    );
    watched.show({ observedGeneration: 1, replicas: 2, updatedReplicas: 2, availableReplicas: 1 });
    expect(watched.state()?.message).toMatch(/^1 of 2 .*ImagePullBackOff/);
    await watched.clock.advance(59_000);
    expect(await lists()).toBe(1);
    await watched.clock.advance(1000);
    await expect.poll(lists, { timeout: 20_000 }).toBe(2);
    await watched.clock.advance(119_000);
    expect(await lists()).toBe(2);
    watched.show({ observedGeneration: 1, replicas: 0, updatedReplicas: 0, availableReplicas: 0 });
    await watched.clock.advance(3_600_000);
    expect(await lists()).toBe(2); // there are no pods to ask for
    watched.show({ observedGeneration: 1, replicas: 2, updatedReplicas: 2, availableReplicas: 2 });
    expect(watched.state()).toMatchObject({ state: 'ready', reason: 'Available' });
    await watched.clock.advance(120_000);
    expect(await lists()).toBe(2);
  });

  it('T46 for 5 minutes without progress is failing, by our own clock, and not when its controller has a deadline of its own', async () => {
    await using set = watch({ group: 'apps', kind: 'DaemonSet' }, 'none');
    const pods = (ready: number) => ({
      observedGeneration: 1,
      desiredNumberScheduled: 3,
      updatedNumberScheduled: 3,
      numberAvailable: ready,
      numberReady: ready,
    });
    set.show(pods(0));
    await set.clock.advance(299_000);
    expect(set.state()).toMatchObject({ state: 'progressing' });
    set.show(pods(1));
    await set.clock.advance(299_000);
    expect(set.state()).toMatchObject({ state: 'progressing' });
    await set.clock.advance(1000);
    await expect.poll(() => set.state()?.state).toBe('failing');
    expect(set.state()).toMatchObject({ reason: 'NoProgress', message: 'no progress for 300 s: 1 of 3 pods are available' });
    set.show(pods(2));
    expect(set.state()).toMatchObject({ state: 'progressing' });
    await using own = watch({ group: 'apps', kind: 'Deployment' }, 'none', { healthRules: [], failureDeadlineSeconds: 10 });
    own.show({ observedGeneration: 1, replicas: 2, updatedReplicas: 1 });
    await own.clock.advance(600_000);
    expect(own.state()).toMatchObject({ state: 'progressing' });
  });
});
