import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { createKubeClient } from '../hack/kube/request.ts';
import { systemClock } from '../lib/clock.ts';
import { type Kube, startOwnKube, useKube } from './kube.ts';

const configMap = (name: string, data: Record<string, string>) => ({ metadata: { name }, data });

const deployment = (name: string, outcome?: string) => ({
  metadata: { name },
  spec: {
    replicas: 2,
    selector: { matchLabels: { app: name } },
    template: {
      metadata: { labels: { app: name }, ...(outcome === undefined ? {} : { annotations: { 'brokkr.test/outcome': outcome } }) },
      spec: { containers: [{ name: 'main', image: 'example.test/main:1' }] },
    },
  },
});

async function eventually<T>(read: () => Promise<T>, isDone: (value: T) => boolean): Promise<T> {
  using deadline = systemClock.deadline(20_000, new AbortController().signal);
  for (;;) {
    const value = await read();
    if (isDone(value)) return value;
    await systemClock.sleep(50, deadline.signal);
  }
}

describe('the shared control plane', () => {
  let kube: Kube;
  beforeAll(async () => {
    kube = await useKube();
  });

  it('is the same one for every caller of a run', async () => {
    expect((await useKube()).url).toBe(kube.url);
    expect((await kube.request('GET', '/version')).body.gitVersion).toBe('v1.36.3');
  });

  it('gives every test a namespace of its own', async () => {
    const [first, second] = await Promise.all([kube.namespace('shared'), kube.namespace('shared')]);
    expect(first).not.toBe(second);
    expect((await kube.request('GET', `/api/v1/namespaces/${first}`)).status).toBe(200);
  });

  it('lets an identity do what its rules say and nothing else', async () => {
    const namespace = await kube.namespace('rights');
    const rules = [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get', 'list'] }];
    const reader = await kube.identity('reader', { namespace, rules });
    const request = createKubeClient({ ...kube, token: reader.token });
    const { signal } = new AbortController();
    const get = async (path: string) => (await request({ method: 'GET', path }, signal)).status;
    expect(await get(`/api/v1/namespaces/${namespace}/configmaps`)).toBe(200);
    expect(await get(`/api/v1/namespaces/${namespace}/secrets`)).toBe(403);
    expect(await get('/api/v1/namespaces/default/configmaps')).toBe(403);
  });

  it('gives a cluster admin every right and an identity without rules none', async () => {
    const { signal } = new AbortController();
    const status = async (token: string) =>
      (await createKubeClient({ ...kube, token })({ method: 'GET', path: '/api/v1/nodes' }, signal)).status;
    expect(await status((await kube.identity('root', { clusterAdmin: true })).token)).toBe(200);
    expect(await status((await kube.identity('nobody')).token)).toBe(403);
    expect(await status(kube.identities.ops.token)).toBe(200);
  });

  it('counts the requests of a user', async () => {
    const namespace = await kube.namespace('audit');
    const { token, user } = await kube.identity('writer', { clusterAdmin: true });
    const request = createKubeClient({ ...kube, token });
    const { signal } = new AbortController();
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    await request({ method: 'POST', path, body: configMap('before', {}) }, signal);
    const since = await kube.auditMark();
    for (const name of ['a', 'b', 'c']) await request({ method: 'POST', path, body: configMap(name, { x: 'y' }) }, signal);
    await request({ method: 'POST', path: `${path}?dryRun=All`, body: configMap('d', {}) }, signal);
    expect(await kube.auditEvents({ user, since, verbs: ['create'], dryRun: false })).toHaveLength(3);
    expect(await kube.auditEvents({ user, since, dryRun: true })).toMatchObject([{ responseStatus: { code: 201 } }]);
    expect(await kube.auditEvents({ user, resource: 'configmaps', namespace })).toHaveLength(5);
  });

  it('brings a Deployment to Available and a Job to Complete', async () => {
    const namespace = await kube.namespace('workload');
    const deployments = `/apis/apps/v1/namespaces/${namespace}/deployments`;
    const jobs = `/apis/batch/v1/namespaces/${namespace}/jobs`;
    await kube.request('POST', deployments, deployment('web'));
    const { template } = deployment('job').spec;
    const job = { metadata: { name: 'job' }, spec: { template: { spec: { ...template.spec, restartPolicy: 'Never' } } } };
    expect((await kube.request('POST', jobs, job)).status).toBe(201);
    const status = async (path: string) => (await kube.request('GET', path)).body.status;
    await eventually(
      () => status(`${deployments}/web`),
      ({ availableReplicas }) => availableReplicas === 2,
    );
    await eventually(
      () => status(`${jobs}/job`),
      ({ succeeded }) => succeeded === 1,
    );
  });

  it.each(['unready', 'crash', 'failed', 'pending'])('keeps a Deployment from Available with the outcome %s', async (outcome) => {
    const namespace = await kube.namespace(outcome);
    await kube.request('POST', `/apis/apps/v1/namespaces/${namespace}/deployments`, deployment('web', outcome));
    const phases = async (): Promise<string[]> => {
      const pods = await kube.request('GET', `/api/v1/namespaces/${namespace}/pods`);
      return pods.body.items.map((pod: { status: { phase: string } }) => pod.status.phase);
    };
    const expected = { unready: 'Running', crash: 'Running', failed: 'Failed', pending: 'Pending' }[outcome];
    await eventually(phases, (seen) => seen.length >= 2 && seen.includes(expected ?? ''));
    const { body } = await kube.request('GET', `/apis/apps/v1/namespaces/${namespace}/deployments/web`);
    expect(body.status.availableReplicas ?? 0).toBe(0);
    await kube.request('DELETE', `/apis/apps/v1/namespaces/${namespace}/deployments/web`); // failed pods would be replaced for ever
  });

  it('runs kubectl', async () => {
    expect(await kube.kubectl('get', 'nodes', '-o', 'name')).toBe('node/kwok-0\n');
    await expect(kube.kubectl('get', 'configmap', 'absent')).rejects.toThrow('NotFound');
  });
});

describe('a control plane of a test', () => {
  it('keeps its objects and its address when the server is killed or restarted', async () => {
    await using kube = await startOwnKube();
    const { signal } = new AbortController();
    const path = '/api/v1/namespaces/default/configmaps';
    expect((await kube.request('POST', path, configMap('kept', { key: 'value' }))).status).toBe(201);
    await kube.controlPlane.killApiServer();
    await expect(kube.request('GET', `${path}/kept`)).rejects.toThrow('ECONNREFUSED');
    await kube.controlPlane.startApiServer(signal);
    expect((await kube.request('GET', `${path}/kept`)).body.data).toEqual({ key: 'value' });
    await kube.controlPlane.stopEtcd();
    await kube.controlPlane.startEtcd(signal);
    await kube.controlPlane.restartApiServer(signal);
    expect((await kube.request('GET', `${path}/kept`)).body.data).toEqual({ key: 'value' });
  });

  it('starts again on the directory of an earlier one', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'brokkr-kept-kube-'));
    try {
      const first = await startOwnKube({ dir, audit: 'off' });
      const path = '/api/v1/namespaces/default/configmaps';
      await first.request('POST', path, configMap('kept', { key: 'value' }));
      await expect(startOwnKube({ dir, audit: 'off' })).rejects.toThrow('in use by process');
      await first[Symbol.asyncDispose]();
      await using second = await startOwnKube({ dir, audit: 'off' });
      expect(second.url).toBe(first.url);
      expect((await second.request('GET', `${path}/kept`)).body.data).toEqual({ key: 'value' });
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });
});
