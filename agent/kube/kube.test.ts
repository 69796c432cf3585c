import { readFile, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { startTcpProxy } from '../../test/fault-proxy.ts';
import { type Kube as TestKube, useKube } from '../../test/kube.ts';
import { CONFIG_MAPS, openTestKube } from '../../test/kube-client.ts';
import { classify, conflicts, KubeError, missing } from './errors.ts';
import type { Kube } from './kube.ts';
import { readKubeconfig } from './kubeconfig.ts';

const { signal } = new AbortController();
let server: TestKube;
let kube: Kube;
let namespace: string;

beforeAll(async () => {
  server = await useKube();
  kube = openTestKube({ ...server, token: server.identities.ops.token });
  namespace = await server.namespace('client');
});
afterAll(() => kube?.[Symbol.asyncDispose]());

function configMap(name: string, fields: object, fieldManager = 'brokkr/one') {
  const body = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    ...fields,
    metadata: { name, namespace, ...('metadata' in fields ? (fields.metadata as object) : {}) },
  };
  return { resource: CONFIG_MAPS, namespace, name, fieldManager, body: JSON.stringify(body) };
}

async function refusal(promise: Promise<unknown>): Promise<KubeError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof KubeError)) throw new Error(`expected a refusal, got ${error}`);
  return error;
}

describe('apply', () => {
  it('creates, then changes nothing when nothing changed, and answers with metadata only', async () => {
    const first = await kube.apply(configMap('apply', { data: { secret: 'hidden' } }), signal);
    const second = await kube.apply(configMap('apply', { data: { secret: 'hidden' } }), signal);
    expect(first.created).toBe(true);
    expect(second).toEqual({ ...first, created: false });
    expect(first.metadata.managedFields?.[0]?.fieldsV1).toEqual({ 'f:data': { 'f:secret': {} } });
    expect(JSON.stringify(first)).not.toContain('hidden');
    expect(await kube.find(configMap('apply', {}), signal)).toMatchObject({ data: { secret: 'hidden' } });
    expect(await kube.findMetadata(configMap('apply', {}), signal)).toEqual(first.metadata);
  });

  it('names manager and field when another manager owns them, and takes them by force', async () => {
    await kube.apply(configMap('conflict', { data: { a: '1' } }), signal);
    const error = await refusal(kube.apply(configMap('conflict', { data: { a: '2' } }, 'brokkr/two'), signal));
    expect(classify(error)).toBe('policy');
    expect(conflicts(error)).toEqual([{ manager: 'brokkr/one', field: '.data.a' }]);
    await kube.apply({ ...configMap('conflict', { data: { a: '2' } }, 'brokkr/two'), force: true }, signal);
    expect(await kube.find(configMap('conflict', {}), signal)).toMatchObject({ data: { a: '2' } });
  });

  it('takes an unknown field, a duplicate key and an invalid object as permanent', async () => {
    const unknownField = await refusal(kube.apply(configMap('bad', { dta: {} }), signal));
    expect([unknownField.status, classify(unknownField)]).toEqual([500, 'permanent']);
    const body = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"bad"},"data":{"a":"1","a":"2"}}`;
    const duplicate = await refusal(kube.apply({ ...configMap('bad', {}), body }, signal));
    expect([duplicate.status, classify(duplicate)]).toEqual([400, 'permanent']);
    const invalid = await refusal(kube.apply(configMap('bad', { data: { 'not valid': 'x' } }), signal));
    expect([invalid.status, classify(invalid), invalid.causes[0]?.field]).toEqual([422, 'permanent', 'data[not valid]']);
  });

  it('tells apart a missing object, namespace and kind', async () => {
    expect(await kube.find(configMap('none', {}), signal)).toBeUndefined();
    expect(await kube.find({ ...configMap('none', {}), namespace: 'no-such-namespace' }, signal)).toBeUndefined();
    const elsewhere = {
      ...configMap('a', {}),
      namespace: 'no-such-namespace',
      body: '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}',
    };
    expect(missing(await refusal(kube.apply(elsewhere, signal)), 'configmaps')).toBe('namespace');
    for (const group of ['apps', 'no-such-group.example.com']) {
      const resource = { ...CONFIG_MAPS, group, plural: 'things' };
      expect(missing(await refusal(kube.find({ resource, namespace, name: 'a' }, signal)), 'things')).toBe('kind');
    }
  });

  it('refuses what is too large as such', async () => {
    for (const bytes of [1_100_000, 3_300_000]) {
      expect(classify(await refusal(kube.apply(configMap('large', { data: { a: 'x'.repeat(bytes) } }), signal)))).toBe('size');
    }
  });

  it('writes nothing on a dry run', async () => {
    expect((await kube.apply({ ...configMap('dry', {}), dryRun: true }, signal)).created).toBe(true);
    expect(await kube.findMetadata(configMap('dry', {}), signal)).toBeUndefined();
  });

  it('acts as somebody else when told to, with their rights', async () => {
    const weak = await server.identity('weak', { namespace });
    const error = await refusal(
      kube.apply({ ...configMap('as', {}), impersonate: { user: weak.user, groups: ['a', 'b'] } }, signal),
    );
    expect(classify(error)).toBe('permission');
    expect(error.message).toContain(weak.user);
  });
});

describe('remove', () => {
  it('deletes only the object that is meant', async () => {
    const { metadata } = await kube.apply(configMap('remove', { data: { a: '1' } }), signal);
    const ref = { ...configMap('remove', {}), propagation: 'Background' as const };
    const stranger = '00000000-0000-4000-8000-000000000000';
    expect(classify(await refusal(kube.remove({ ...ref, uid: stranger }, signal)))).toBe('race');
    await kube.apply(configMap('remove', { data: { a: '2' } }), signal);
    const { uid, resourceVersion } = metadata;
    expect(classify(await refusal(kube.remove({ ...ref, uid, resourceVersion }, signal)))).toBe('race');
    expect(await kube.remove({ ...ref, uid }, signal)).toBe('gone');
    expect(await kube.remove({ ...ref, uid }, signal)).toBe('absent');
  });

  it('tells when finalizers are still at work', async () => {
    const { metadata } = await kube.apply(configMap('held', { metadata: { finalizers: ['brokkr.io/test'] } }), signal);
    const ref = configMap('held', {});
    expect(await kube.remove({ ...ref, uid: metadata.uid, propagation: 'Foreground' }, signal)).toBe('terminating');
    await kube.patchJson({ ...ref, operations: [{ op: 'remove', path: '/metadata/finalizers' }] }, signal);
    expect(await kube.findMetadata(ref, signal)).toBeUndefined();
  });
});

describe('list', () => {
  it('pages through everything that is selected, as metadata or whole', async () => {
    await Promise.all(
      Array.from({ length: 7 }, (_, index) =>
        kube.apply(configMap(`list-${index}`, { metadata: { labels: { list: 'yes' } }, data: { a: '1' } }), signal),
      ),
    );
    const request = { resource: CONFIG_MAPS, namespace, labelSelector: 'list=yes', limit: 3 };
    const sizes: number[] = [];
    for await (const page of kube.list({ ...request, content: 'metadata' }, signal)) {
      sizes.push(page.items.length);
      expect(page.items.every((item) => !('data' in item))).toBe(true);
    }
    expect(sizes).toEqual([3, 3, 1]);
    for await (const page of kube.list({ ...request, content: 'full' }, signal))
      expect(page.items[0]).toMatchObject({ data: { a: '1' } });
  });
});

describe('the server', () => {
  it('tells version, readiness and the identity of the cluster', async () => {
    expect(await kube.version(signal)).toMatch(/^v1\./);
    expect(await kube.ready(signal)).toBe(true);
    const { body } = await server.request('GET', '/api/v1/namespaces/kube-system');
    expect(await kube.clusterUid(signal)).toBe(body.metadata.uid);
  });

  it('falls back to the own namespace for the identity of the cluster', async () => {
    const rules = [{ apiGroups: [''], resources: ['namespaces'], verbs: ['get'], resourceNames: ['default'] }];
    const narrow = await server.identity('narrow', { rules });
    await using client = openTestKube({ ...server, token: narrow.token });
    const { body } = await server.request('GET', '/api/v1/namespaces/default');
    expect(await client.clusterUid(signal)).toBe(body.metadata.uid);
    await using nobody = openTestKube(server);
    expect(await nobody.clusterUid(signal)).toBeUndefined();
  });

  it('is reached with the kubeconfig that names it', async () => {
    const credentials = await readKubeconfig([server.kubeconfigPath], undefined, signal);
    expect(credentials.server).toBe(server.url);
  });

  it('publishes its schemas, kept on disk by content', async () => {
    const { token, user } = await server.identity('schemas', { clusterAdmin: true }); // others ask for schemas too
    await using own = openTestKube({ ...server, token });
    const document = await own.openapi.document('apps', 'v1', signal);
    expect(JSON.parse(await readFile(document?.path ?? '', 'utf8')).components.schemas).toHaveProperty([
      'io.k8s.api.apps.v1.Deployment',
    ]);
    onTestFinished(() => rm(dirname(document?.path ?? ''), { recursive: true }));
    const asked = async () =>
      (await server.auditEvents({ user, since: 0 })).filter(({ requestURI }) => requestURI.includes('openapi')).length;
    const before = await asked();
    expect(before).toBeGreaterThan(0);
    expect(await own.openapi.document('apps', 'v1', signal)).toEqual(document);
    expect(await asked()).toBe(before);
    expect(await own.openapi.document('nothing.example.com', 'v1', signal)).toBeUndefined();
  });
});

describe('connections', () => {
  it('stay the same few over hundreds of requests, and are replaced unnoticed when they die idle', async () => {
    await using proxy = await startTcpProxy({ target: { host: '127.0.0.1', port: Number(new URL(server.url).port) } });
    await using client = openTestKube({
      ...server,
      url: `https://127.0.0.1:${proxy.port}`,
      token: server.identities.ops.token,
    });
    for (let round = 0; round < 30; round += 1) {
      await Promise.all(Array.from({ length: 10 }, () => client.findMetadata(configMap('apply', {}), signal)));
    }
    expect(proxy.counts().accepted).toBeLessThanOrEqual(32);
    proxy.dropConnections();
    await client.apply(configMap('again', {}), signal);
  });
});
