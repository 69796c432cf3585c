import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { StackTarget } from '../../agent/stack/target.ts';
import { freePort } from '../../hack/kube/ports.ts';
import { openTestBroker, type TestBroker } from '../agent-engine.ts';
import { startTcpProxy } from '../fault-proxy.ts';
import { startOwnKube, useKube } from '../kube.ts';

const configMap = (name: string, value = 'a') =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}}\ndata: {key: ${value}}\n---\n`;
const secret = (name: string) => `apiVersion: v1\nkind: Secret\nmetadata: {name: ${name}}\ndata: {key: YQ==}\n---\n`;

let broker: TestBroker;
const open = (namespace: string) => {
  broker = openTestBroker(namespace);
};
beforeEach(() => {
  broker = undefined as unknown as TestBroker;
});
afterEach(() => broker?.[Symbol.asyncDispose]());
const drifts = (target: StackTarget) => broker.eventsOf(target).filter(({ eventType }) => eventType === 'DRIFT');

describe('T34', () => {
  it('T34 a resource version too old after a compaction: one list, deletes noticed, nothing applied again that did not change', {
    timeout: 180_000,
  }, async () => {
    const etcd = await freePort();
    await using server = await startOwnKube({ ports: { etcd } });
    const namespace = await server.namespace('t34');
    const identity = await server.identity('t34', { clusterAdmin: true, namespace });
    open(namespace);
    await using proxy = await startTcpProxy({ target: { host: '127.0.0.1', port: Number(new URL(server.url).port) } });
    const url = `https://${proxy.host}:${proxy.port}`;
    await using agent = await broker.start({ url, caData: server.caData, token: identity.token }, { namespace });
    const names = Array.from({ length: 50 }, (_, index) => `map-${index}`);
    const target = await broker.publish(names.map((name) => configMap(name)).join(''));
    agent.reconciler.offer(target);
    await broker.applied(target);
    const path = (name: string) => `/api/v1/namespaces/${namespace}/configmaps/${name}`;
    await server.request('DELETE', path('map-0')); // corrected: so the watch is up
    await broker.until('corrected', () => drifts(target).length === 1);

    proxy.cut();
    for (const name of ['map-1', 'map-2']) expect((await server.request('DELETE', path(name))).status).toBe(200);
    const headers = { 'content-type': 'application/merge-patch+json' };
    await server.request('PATCH', path('map-3'), { data: { key: 'theirs' } }, headers);
    const { body } = await server.request('GET', path('map-3'));
    const compaction = { method: 'POST', body: JSON.stringify({ revision: body.metadata.resourceVersion, physical: true }) };
    expect((await fetch(`http://127.0.0.1:${etcd}/v3/kv/compaction`, compaction)).status).toBe(200);
    await server.controlPlane.restartApiServer(AbortSignal.timeout(120_000)); // its cache of past events goes, too
    const mark = await server.auditMark();
    await proxy.heal();

    const mended = () =>
      drifts(target)
        .slice(1)
        .flatMap(({ objects }) => objects.map(({ name, reason }) => `${name} ${reason}`));
    await broker.until('corrected', () => mended().length === 3, 60_000);
    expect(mended().sort()).toEqual(['map-1 deleted', 'map-2 deleted', 'map-3 changed']);
    const calls = (await server.auditEvents({ user: identity.user, since: mark })).filter(
      ({ objectRef }) => objectRef?.resource === 'configmaps' && !objectRef.name?.startsWith('brokkr-'),
    );
    const of = (verb: string) => calls.filter((call) => call.verb === verb);
    expect(of('list')).toHaveLength(1);
    const touched = new Set([...of('get'), ...of('patch')].map(({ objectRef }) => objectRef?.name));
    expect([...touched].sort()).toEqual(['map-1', 'map-2', 'map-3']);
  });
});

describe('a kind that may not be watched', () => {
  it('is named in the status, and seen within a minute after the right was given', { timeout: 120_000 }, async () => {
    const server = await useKube();
    const namespace = await server.namespace('unseen');
    const some = { apiGroups: [''], resources: ['configmaps', 'namespaces'], verbs: ['*'] };
    const blind = { apiGroups: [''], resources: ['secrets'], verbs: ['get', 'create', 'patch', 'delete'] };
    const identity = await server.identity('unseen', { namespace, rules: [some, blind] });
    open(namespace);
    await using agent = await broker.start({ url: server.url, caData: server.caData, token: identity.token }, { namespace });
    const target = await broker.publish(configMap('seen') + secret('hidden'));
    agent.reconciler.offer(target);
    const message = () => broker.statuses.get(target.stackId)?.message ?? '';
    await broker.until('said what it cannot see', () => message().includes(`cannot see secrets in ${namespace}`));
    await broker.applied(target);
    expect(message()).toContain('cannot list resource');
    expect(agent.reconciler.unseen).toHaveLength(1);
    const headers = { 'content-type': 'application/merge-patch+json' };
    const path = (plural: string, name: string) => `/api/v1/namespaces/${namespace}/${plural}/${name}`;
    await server.request('PATCH', path('secrets', 'hidden'), { data: { key: 'Yg==' } }, headers);
    await server.request('PATCH', path('configmaps', 'seen'), { data: { key: 'b' } }, headers);
    await broker.until('what can be seen is corrected', () => drifts(target).length === 1);

    const grant = { apiGroups: [''], resources: ['secrets'], verbs: ['list', 'watch'] };
    const rbac = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}`;
    await server.request('POST', `${rbac}/roles`, { metadata: { name: 'grant' }, rules: [grant] });
    const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'grant' };
    const binding = { metadata: { name: 'grant' }, roleRef, subjects: [identity.subject] };
    expect((await server.request('POST', `${rbac}/rolebindings`, binding)).status).toBe(201);
    await broker.until('the rest is corrected', () => drifts(target).length === 2, 60_000);
    expect(drifts(target)[1]?.objects).toMatchObject([{ kind: 'Secret', name: 'hidden', path: '.data.key' }]);
    await broker.until('nothing is said any more', () => message() === '');
    expect(agent.reconciler.unseen).toEqual([]);
  });
});
