import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type Clock, systemClock } from '#lib/clock.ts';
import { startTcpProxy, type TcpProxy } from '../../test/fault-proxy.ts';
import { startKubeProxy } from '../../test/http-proxy.ts';
import { type OwnKube, startOwnKube } from '../../test/kube.ts';
import { CONFIG_MAPS, openTestKube } from '../../test/kube-client.ts';
import { KubeError } from './errors.ts';
import type { Kube } from './kube.ts';
import type { Content } from './objects.ts';
import type { ReflectorEvent } from './reflector.ts';

const { signal } = new AbortController();
let server: OwnKube;
let admin: Kube;

beforeAll(async () => {
  server = await startOwnKube();
  admin = openTestKube({ ...server, token: server.identities.admin.token });
});
afterAll(async () => {
  await admin?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

/** The machine's clock, `speed` times as fast. */
function fastClock(speed: number): Clock {
  return {
    now: () => systemClock.now(),
    monotonic: () => systemClock.monotonic() * speed,
    sleep: (ms, stop) => systemClock.sleep(ms / speed, stop),
    deadline: (ms, stop) => systemClock.deadline(ms / speed, stop),
  };
}

/** Runs a reflector of the ConfigMaps labelled `reflect=yes` and writes down what it tells. */
async function reflect(
  namespace: string,
  { url = server.url, token = server.identities.ops.token, content = 'metadata' as Content, clock = systemClock } = {},
) {
  const log: string[] = [];
  const events: ReflectorEvent[] = [];
  const changed = new Set<() => void>();
  const lists: string[] = [];
  const restarts: string[] = [];
  const reflector = {
    restarted: (_: string, reason: string) => void restarts.push(reason),
    listed: (name: string) => void lists.push(name),
  };
  const kube = openTestKube({ url, ...(url.startsWith('https:') && { caData: server.caData }), token }, { reflector }, clock);
  const stop = new AbortController();
  const onEvent = (event: ReflectorEvent) => {
    events.push(event);
    log.push(describeEvent(event));
    for (const wake of changed) wake();
  };
  const task = kube.reflector({ resource: CONFIG_MAPS, namespace, labelSelector: 'reflect=yes', content, onEvent });
  const done = task.run(stop.signal);
  onTestFinished(async () => {
    stop.abort(new Error('test over'));
    await done;
    await kube[Symbol.asyncDispose]();
  });
  const seen = async (line: string, count = 1) => {
    using deadline = systemClock.deadline(30_000, signal);
    while (log.filter((each) => each === line).length < count) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const onTimeout = () => reject(new Error(`no ${line} in ${JSON.stringify(log)}`));
      deadline.signal.addEventListener('abort', onTimeout);
      changed.add(resolve);
      await promise;
      changed.delete(resolve);
    }
  };
  return { log, events, lists, restarts, seen, task, stop, done };
}

function describeEvent(event: ReflectorEvent): string {
  switch (event.kind) {
    case 'changed':
      return `changed ${event.object.metadata.name}`;
    case 'left':
      return `left ${event.identity.name}${event.object ? '' : ' (not listed)'}`;
    default:
      return event.kind;
  }
}

function apply(namespace: string, name: string, value: string, labels: object = { reflect: 'yes' }) {
  const body = JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace, labels }, data: { value } });
  return admin.apply({ resource: CONFIG_MAPS, namespace, name, fieldManager: 'test', body }, signal);
}

const remove = (namespace: string, name: string) =>
  server.request('DELETE', `/api/v1/namespaces/${namespace}/configmaps/${name}`);

function tcpProxy(): Promise<TcpProxy> {
  return startTcpProxy({ target: { host: '127.0.0.1', port: Number(new URL(server.url).port) } });
}

describe('Reflector', () => {
  it('tells what is there, then every change, as metadata or whole', async () => {
    const namespace = await server.namespace('reflect');
    await apply(namespace, 'old', '1');
    await apply(namespace, 'other', '1', {});
    const metadata = await reflect(namespace);
    const full = await reflect(namespace, { content: 'full' });
    await metadata.seen('synced');
    await full.seen('synced');
    await apply(namespace, 'new', '1');
    await apply(namespace, 'new', '2');
    await apply(namespace, 'old', '1', {}); // loses its label: leaves the selection, is not gone
    await remove(namespace, 'new');
    for (const each of [metadata, full]) {
      await each.seen('left new');
      expect(each.log).toEqual(['changed old', 'synced', 'changed new', 'changed new', 'left old', 'left new']);
      expect(each.task.size).toBe(0);
    }
    expect(metadata.events.some((event) => event.kind === 'changed' && 'data' in event.object)).toBe(false);
    expect(full.events.at(2)).toMatchObject({ object: { data: { value: '1' } } });
  });

  it('goes on where it was after the connection was lost', async () => {
    const namespace = await server.namespace('reflect');
    await using proxy = await tcpProxy();
    const { log, seen, lists } = await reflect(namespace, { url: `https://127.0.0.1:${proxy.port}` });
    await seen('synced');
    await apply(namespace, 'a', '1');
    await seen('changed a');
    proxy.cut();
    await apply(namespace, 'b', '1');
    await remove(namespace, 'a');
    await proxy.heal();
    await seen('left a');
    expect(log).toEqual(['synced', 'changed a', 'changed b', 'left a']);
    expect(lists).toHaveLength(1);
  });

  it('lists again when the server has forgotten the versions between, and tells what has left', async () => {
    const namespace = await server.namespace('reflect');
    await using proxy = await tcpProxy();
    for (const name of ['changed', 'gone', 'same']) await apply(namespace, name, '1');
    const { log, seen, lists, restarts } = await reflect(namespace, { url: `https://127.0.0.1:${proxy.port}` });
    await seen('synced');
    proxy.cut();
    await apply(namespace, 'changed', '2');
    await remove(namespace, 'gone');
    await server.controlPlane.restartApiServer(signal); // its watch cache starts empty
    await apply(namespace, 'later', '1');
    await proxy.heal();
    await seen('synced', 2);
    expect(restarts).toContain('expired');
    expect(lists).toHaveLength(2);
    expect(log.slice(0, 4)).toEqual(['changed changed', 'changed gone', 'changed same', 'synced']);
    expect(log.slice(4).toSorted()).toEqual(['changed changed', 'changed later', 'left gone (not listed)', 'synced']);
    await apply(namespace, 'same', '2');
    await seen('changed same', 2);
  });

  it('takes silence as a lost connection', async () => {
    const namespace = await server.namespace('reflect');
    await using proxy = await tcpProxy();
    const { seen, restarts } = await reflect(namespace, { url: `https://127.0.0.1:${proxy.port}`, clock: fastClock(30) });
    await seen('synced');
    await apply(namespace, 'a', '1');
    await seen('changed a');
    proxy.stall();
    await apply(namespace, 'b', '1');
    using deadline = systemClock.deadline(20_000, signal);
    while (!restarts.includes('silent')) await systemClock.sleep(20, deadline.signal);
    await proxy.heal();
    await seen('changed b');
  });

  it('is degraded without rights, never empty, and recovers when they are granted', async () => {
    const namespace = await server.namespace('reflect');
    await apply(namespace, 'a', '1');
    const rules = [{ apiGroups: [''], resources: ['configmaps'], verbs: ['list', 'watch'] }];
    const reader = await server.identity('reader', { namespace });
    const { log, seen, events } = await reflect(namespace, { token: reader.token });
    await seen('degraded');
    expect(events[0]).toMatchObject({ error: expect.any(KubeError) });
    const rbac = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}`;
    await server.request('POST', `${rbac}/roles`, { metadata: { name: 'reader' }, rules });
    const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'reader' };
    await server.request('POST', `${rbac}/rolebindings`, { metadata: { name: 'reader' }, roleRef, subjects: [reader.subject] });
    await seen('synced');
    expect(log).toEqual(['degraded', 'changed a', 'recovered', 'synced']);
  });

  it('waits as long as the server asks', async () => {
    const namespace = await server.namespace('reflect');
    const listedAt: number[] = [];
    await using proxy = await startKubeProxy({
      target: server.url,
      ca: server.caData,
      onRequest: ({ path }) => {
        if (path.includes('watch=true')) return undefined;
        listedAt.push(systemClock.monotonic());
        return listedAt.length === 1
          ? { status: 429, headers: { 'retry-after': '1' }, body: { kind: 'Status', code: 429 } }
          : undefined;
      },
    });
    const { log, seen } = await reflect(namespace, { url: proxy.url });
    await seen('synced');
    expect((listedAt[1] ?? 0) - (listedAt[0] ?? 0)).toBeGreaterThanOrEqual(990);
    expect(log).toEqual(['synced']);
  });

  it('fails when its consumer does', async () => {
    const namespace = await server.namespace('reflect');
    const onEvent = () => {
      throw new Error('consumer is broken');
    };
    await expect(admin.reflector({ resource: CONFIG_MAPS, namespace, content: 'metadata', onEvent }).run(signal)).rejects.toThrow(
      'consumer is broken',
    );
  });
});
