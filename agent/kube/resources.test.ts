import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#lib/clock.ts';
import { startKubeProxy } from '../../test/http-proxy.ts';
import { type OwnKube, startOwnKube } from '../../test/kube.ts';
import { CONFIG_MAPS, openTestKube } from '../../test/kube-client.ts';
import type { TestIdentity } from '../../test/kube-identity.ts';
import type { Kube } from './kube.ts';
import type { Mapping } from './resources.ts';

const { signal } = new AbortController();
let server: OwnKube;
let kube: Kube;
let identity: TestIdentity;

beforeAll(async () => {
  server = await startOwnKube();
  identity = await server.identity('resources', { clusterAdmin: true });
  kube = openTestKube({ ...server, token: identity.token });
});
afterAll(async () => {
  await kube?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

function crd(group: string, plural: string, kind: string) {
  const schema = { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${group}` },
    spec: { group, scope: 'Cluster', names: { plural, kind }, versions: [{ name: 'v1', served: true, storage: true, schema }] },
  };
}

async function until(ask: () => Promise<Mapping>, kind: Mapping['kind']): Promise<Mapping> {
  using deadline = systemClock.deadline(20_000, signal);
  for (;;) {
    const mapping = await ask();
    if (mapping.kind === kind) return mapping;
    await systemClock.sleep(50, deadline.signal);
  }
}

describe('resources', () => {
  it('finds built-in kinds by version and by preference', async () => {
    expect(await kube.resources.resourceFor('', 'v1', 'ConfigMap', signal)).toMatchObject({
      kind: 'found',
      resource: { plural: 'configmaps', namespaced: true, verbs: expect.arrayContaining(['patch', 'watch']) },
    });
    expect(await kube.resources.preferred('apps', 'Deployment', signal)).toMatchObject({
      resource: { version: 'v1', plural: 'deployments' },
    });
    expect(await kube.resources.preferred('', 'Namespace', signal)).toMatchObject({ resource: { namespaced: false } });
  });

  it('says absent for a group, a version and a kind that is not served', async () => {
    expect(await kube.resources.resourceFor('none.example.com', 'v1', 'Thing', signal)).toEqual({ kind: 'absent' });
    expect(await kube.resources.resourceFor('apps', 'v2', 'Deployment', signal)).toEqual({ kind: 'absent' });
    expect(await kube.resources.preferred('apps', 'Thing', signal)).toEqual({ kind: 'absent' });
  });

  it('asks the server nothing for what it knows, and little for what it does not', async () => {
    await kube.resources.preferred('apps', 'Deployment', signal);
    const mark = { user: identity.user, since: await server.auditMark() };
    for (let round = 0; round < 20; round += 1) await kube.resources.preferred('apps', 'Deployment', signal);
    expect(await server.auditEvents(mark)).toEqual([]);
    await Promise.all(Array.from({ length: 20 }, () => kube.resources.preferred('apps', 'Thing', signal)));
    expect((await server.auditEvents(mark)).length).toBeLessThanOrEqual(2);
  });

  it('sees a CRD come and go', async () => {
    const ask = () => kube.resources.preferred('see.example.com', 'Thing', signal);
    expect(await ask()).toEqual({ kind: 'absent' });
    const path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
    expect((await server.request('POST', path, crd('see.example.com', 'things', 'Thing'))).status).toBe(201);
    expect(await until(ask, 'found')).toMatchObject({ resource: { plural: 'things', namespaced: false, version: 'v1' } });
    await server.request('DELETE', `${path}/things.see.example.com`);
    await until(() => {
      kube.resources.invalidate();
      return ask();
    }, 'absent');
  });

  it('reads a server without aggregated discovery, a group-version when it is asked for', async () => {
    await using proxy = await startKubeProxy({
      target: server.url,
      ca: server.caData,
      onRequest: ({ headers }) => {
        headers.accept = 'application/json';
        return undefined;
      },
    });
    await using old = openTestKube({ url: proxy.url, token: server.identities.ops.token });
    expect(await old.resources.resourceFor('', 'v1', 'ConfigMap', signal)).toEqual({
      kind: 'found',
      resource: { ...CONFIG_MAPS, verbs: expect.arrayContaining([...CONFIG_MAPS.verbs]) },
    });
    expect(await old.resources.preferred('apps', 'Deployment', signal)).toMatchObject({ resource: { plural: 'deployments' } });
    expect(proxy.requests.map(({ path }) => path).toSorted()).toEqual(['/api', '/api/v1', '/apis', '/apis/apps/v1']);
    const [everything, sameByOld] = await Promise.all([kube.resources.all(signal), old.resources.all(signal)]);
    const names = (resources: typeof everything.resources) =>
      resources.map(({ group, version, kind }) => `${group}/${version} ${kind}`).toSorted();
    expect(names(sameByOld.resources)).toEqual(names(everything.resources));
  });

  it('knows nothing of the group whose API server is down, and everything of the others', async () => {
    const group = 'down.example.com';
    const spec = {
      group,
      version: 'v1',
      groupPriorityMinimum: 100,
      versionPriority: 100,
      insecureSkipTLSVerify: true,
      service: { name: 'none', namespace: 'default' },
    };
    const body = { apiVersion: 'apiregistration.k8s.io/v1', kind: 'APIService', metadata: { name: `v1.${group}` }, spec };
    expect((await server.request('POST', '/apis/apiregistration.k8s.io/v1/apiservices', body)).status).toBe(201);
    await until(() => {
      kube.resources.invalidate();
      return kube.resources.preferred(group, 'Thing', signal);
    }, 'unknown');
    expect(await kube.resources.preferred('apps', 'Deployment', signal)).toMatchObject({ kind: 'found' });
    expect(await kube.resources.preferred('apps', 'Thing', signal)).toEqual({ kind: 'absent' });
    expect((await kube.resources.all(signal)).unknown).toEqual([`${group}/v1`]);
  });
});
