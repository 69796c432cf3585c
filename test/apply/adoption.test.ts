import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AdoptionPolicy, Phase } from '#proto/brokkr/v1/content_pb.js';
import { startKubeProxy } from '../http-proxy.ts';
import { configMap, deployment, type Live, type ObjectRig, openObjectRig, yaml } from './object-rig.ts';

let rig: ObjectRig;

beforeAll(async () => {
  rig = await openObjectRig('adoption');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const managers = ({ metadata }: Live): string[] =>
  metadata.managedFields
    .filter(({ subresource }: { subresource?: string }) => subresource === undefined)
    .map(
      ({ manager, operation }: { manager: string; operation: string }) =>
        `${manager.replace(/[0-9a-f]{12}$/, 'ours')} ${operation}`,
    );

async function kubectlApply(text: string, ...flags: string[]): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'brokkr-adoption-'));
  try {
    await writeFile(join(dir, 'object.json'), text);
    await rig.server.kubectl('-n', rig.namespace, 'apply', ...flags, '-f', join(dir, 'object.json'));
  } finally {
    await rm(dir, { recursive: true });
  }
}

describe('an object that somebody applied before', () => {
  it.each([
    ['kubectl apply', [], 'kubectl-client-side-apply'],
    ['kubectl apply --server-side', ['--server-side'], 'kubectl'],
    ['Helm', ['--server-side', '--field-manager=helm'], 'helm'],
  ])('T14 is adopted from %s: nothing is lost, what only the old owner wanted goes', async (_, flags, manager) => {
    const name = `from-${manager}`;
    const path = rig.path('configmaps', name);
    await kubectlApply(configMap(name, { key: 'theirs', extra: 'gone' }, { labels: { old: 'gone' } }), ...flags);
    await rig.patchAs('some-controller', path, { data: { added: 'stays' } });
    const { uid } = (await rig.get(path)).metadata;
    await using agent = await rig.start();
    const target = await rig.sync(agent, configMap(name, { key: 'ours' }));
    const live = await rig.get(path);
    expect(live.data).toEqual({ key: 'ours', added: 'stays' });
    expect(live.metadata).toMatchObject({ uid, annotations: { 'brokkr.io/owner': expect.any(String) } });
    expect(Object.keys(live.metadata.annotations)).toEqual(['brokkr.io/owner']); // no last-applied-configuration
    expect(Object.keys(live.metadata.labels)).not.toContain('old');
    expect(managers(live).sort()).toEqual(['brokkr/ours Apply', 'some-controller Update']);
    expect(rig.event(target)).toMatchObject({ success: true, counts: { adopted: 1 } });
    expect(rig.told(target, name)).toMatchObject({ state: 'adopted', reason: 'taken_over', managers: [manager] });
    const mark = await rig.server.auditMark();
    const again = { ...target, generation: 2n };
    agent.reconciler.offer(again);
    await rig.broker.applied(again);
    expect(await rig.calls(mark, 'configmaps')).toEqual([]);
  });

  it('T14 is adopted without a conflict, and with the same care, when it has the values we want', async () => {
    await kubectlApply(configMap('same', { key: 'a', extra: 'gone' }));
    await using agent = await rig.start();
    const target = await rig.sync(agent, configMap('same', { key: 'a' }));
    const live = await rig.get(rig.path('configmaps', 'same'));
    expect(live.data).toEqual({ key: 'a' });
    expect(managers(live)).toEqual(['brokkr/ours Apply']);
    expect(rig.told(target, 'same')).toMatchObject({ state: 'adopted', managers: ['kubectl-client-side-apply'] });
  });

  it('T14 is adopted with the same care when it changes while it is taken over', async () => {
    const { server, identity, namespace, broker } = rig;
    await kubectlApply(configMap('busy', { key: 'theirs', extra: 'gone' }));
    const body = { kind: 'Status', status: 'Failure', code: 422, reason: 'Invalid', message: 'the test of the patch failed' };
    let takeovers = 0;
    const onRequest = ({ method, headers }: { readonly method: string; readonly headers: IncomingHttpHeaders }) => {
      const isTakeover = method === 'PATCH' && headers['content-type'] === 'application/json-patch+json';
      return isTakeover && ++takeovers === 1 ? { status: 422, body } : undefined;
    };
    await using proxy = await startKubeProxy({ target: server.url, ca: server.caData, onRequest });
    await using agent = await broker.start({ url: proxy.url, token: identity.token }, { namespace });
    const target = await rig.sync(agent, configMap('busy', { key: 'ours' }));
    expect((await rig.get(rig.path('configmaps', 'busy'))).data).toEqual({ key: 'ours' });
    expect(rig.told(target, 'busy')).toMatchObject({ state: 'adopted', reason: 'taken_over' });
    expect(takeovers).toBe(2);
  });

  it('T14 keeps what an ignore rule leaves to others, though only the old owner set it', async () => {
    await kubectlApply(deployment('ignored', { replicas: 4 }));
    const path = rig.path('deployments', 'ignored', 'apps/v1');
    await using agent = await rig.start();
    const ignore = [{ group: 'apps', kind: 'Deployment', paths: ['/spec/replicas'] }];
    await rig.sync(agent, deployment('ignored'), { options: { ignore } });
    const live = await rig.get(path);
    expect(live.spec.replicas).toBe(4);
    expect(managers(live)).toContain('brokkr/ours Apply');
    expect(managers(live)).not.toContain('kubectl-client-side-apply Update');
  });

  it('T15 is untouched when the stack does not adopt', async () => {
    await kubectlApply(configMap('denied', { key: 'theirs' }));
    const before = await rig.get(rig.path('configmaps', 'denied'));
    await using agent = await rig.start();
    const text = yaml(configMap('denied'), configMap('beside-denied'));
    const target = await rig.sync(agent, text, { options: { adoption: AdoptionPolicy.REFUSE } });
    expect(rig.phase(target)).toBe(Phase.FAILED);
    expect(rig.told(target, 'denied')).toMatchObject({
      ...{ state: 'conflict', reason: 'adoption_refused', managers: ['kubectl-client-side-apply'] },
    });
    expect(await rig.get(rig.path('configmaps', 'denied'))).toEqual(before);
    await rig.get(rig.path('configmaps', 'beside-denied'));
  });
});

describe('an object of another stack', () => {
  it('T16 stays with the stack that has it, also with equal content, and when the other one is deleted', async () => {
    await using agent = await rig.start();
    const path = rig.path('configmaps', 'contested');
    const first = await rig.sync(agent, configMap('contested'));
    const before = await rig.get(path);
    const second = await rig.sync(agent, yaml(configMap('contested'), configMap('only-second')));
    expect(rig.phase(second)).toBe(Phase.FAILED);
    const owner = before.metadata.managedFields[0].manager;
    expect(rig.told(second, 'contested')).toMatchObject({ state: 'conflict', reason: 'owner', managers: [owner] });
    expect(await rig.get(path)).toEqual(before);
    agent.reconciler.withdraw(rig.broker.tombstone(second));
    const has = (target: { readonly stackId: string }) =>
      agent.reconciler.stacks().some(({ stackId }) => stackId === target.stackId);
    await rig.broker.until('gone', () => !has(second));
    expect(await rig.get(path)).toEqual(before);
    await expect(rig.get(rig.path('configmaps', 'only-second'))).rejects.toThrow('404');
    expect(has(first)).toBe(true);
  });
});

describe('an object that a stack left behind', () => {
  it('T16 is taken over when nobody claims it any more: the label is gone, only the fields of the old stack are left', async () => {
    await using agent = await rig.start();
    const path = rig.path('configmaps', 'left-behind');
    const old = await rig.sync(agent, configMap('left-behind'));
    agent.reconciler.suspend('test');
    await rig.patchAs('somebody', path, { metadata: { labels: { 'brokkr.io/stack': null } } });
    agent.reconciler.resume();
    agent.reconciler.withdraw(rig.broker.tombstone(old));
    await rig.broker.until('gone', () => agent.reconciler.stacks().every(({ stackId }) => stackId !== old.stackId));
    const { uid } = (await rig.get(path)).metadata;
    const target = await rig.sync(agent, configMap('left-behind'));
    expect(rig.phase(target)).toBe(Phase.APPLIED);
    const { metadata } = await rig.get(path);
    expect(metadata.uid).toBe(uid);
    const stacks = metadata.managedFields.filter(({ manager }: { manager: string }) => manager.startsWith('brokkr/'));
    expect(stacks).toHaveLength(1);
  });
});

describe('an object that is not what it was', () => {
  const replace = async (name: string) => {
    const path = rig.path('configmaps', name);
    await rig.server.request('DELETE', path);
    const stranger = { metadata: { name }, data: { key: 'a stranger' } };
    expect((await rig.server.request('POST', path.slice(0, path.lastIndexOf('/')), stranger)).status).toBe(201);
    return (await rig.get(path)).metadata.uid as string;
  };

  it('T21 is created again when it was deleted by hand', async () => {
    await using agent = await rig.start();
    const target = await rig.sync(agent, configMap('deleted'));
    await rig.server.request('DELETE', rig.path('configmaps', 'deleted'));
    await rig.broker.until('corrected', () => rig.corrections(target).length === 1);
    expect(rig.corrections(target)).toMatchObject([{ success: true, counts: { created: 1 } }]);
  });

  /** An agent whose watches never tell anything. */
  const startBlind = async () => {
    const { server, identity, namespace, broker } = rig;
    const onRequest = ({ path }: { readonly path: string }) => (path.includes('watch=') ? ('hang' as const) : undefined);
    const proxy = await startKubeProxy({ target: server.url, ca: server.caData, onRequest });
    const agent = await broker.start({ url: proxy.url, token: identity.token }, { namespace });
    const close = async () => {
      await agent.stop();
      await proxy[Symbol.asyncDispose]();
    };
    return { agent, [Symbol.asyncDispose]: close };
  };

  it('T21 is created when it was deleted and a new version comes before anybody noticed', async () => {
    await using blind = await startBlind();
    const first = await rig.sync(blind.agent, configMap('unnoticed'));
    await rig.server.request('DELETE', rig.path('configmaps', 'unnoticed'));
    const second = await rig.sync(blind.agent, configMap('unnoticed', { key: 'b' }), { after: first });
    expect(rig.event(second)).toMatchObject({ success: true, counts: { created: 1 } });
    expect((await rig.get(rig.path('configmaps', 'unnoticed'))).data).toEqual({ key: 'b' });
  });

  it('T21 is adopted, and said to be, when a stranger has its name and a new version meets it', async () => {
    await using blind = await startBlind();
    const first = await rig.sync(blind.agent, configMap('met'));
    const uid = await replace('met');
    const second = await rig.sync(blind.agent, configMap('met', { key: 'b' }), { after: first });
    expect(rig.told(second, 'met')).toMatchObject({ state: 'adopted', reason: 'replaced' });
    expect(await rig.get(rig.path('configmaps', 'met'))).toMatchObject({ metadata: { uid }, data: { key: 'b' } });
  });

  it('T21 is adopted, and said to be, when the watch tells of a stranger', async () => {
    await using agent = await rig.start();
    const target = await rig.sync(agent, configMap('seen'));
    agent.reconciler.suspend('test');
    const uid = await replace('seen');
    agent.reconciler.resume();
    const told = () => rig.corrections(target).flatMap(({ objects }) => objects);
    await rig.broker.until('told', () => told().some(({ reason }) => reason === 'replaced'));
    expect(told().at(-1)).toMatchObject({ state: 'adopted', reason: 'replaced' });
    expect(await rig.get(rig.path('configmaps', 'seen'))).toMatchObject({ metadata: { uid }, data: { key: 'a' } });
  });

  it('T21 is left alone when a stranger has its name and the stack does not adopt', async () => {
    await using agent = await rig.start();
    const options = { adoption: AdoptionPolicy.REFUSE };
    const target = await rig.sync(agent, configMap('stranger'), { options });
    await replace('stranger');
    await rig.broker.until('refused', () => rig.phase(target) === Phase.FAILED);
    expect(rig.broker.eventsOf(target).at(-1)?.objects).toMatchObject([{ state: 'conflict', reason: 'adoption_refused' }]);
    expect((await rig.get(rig.path('configmaps', 'stranger'))).data).toEqual({ key: 'a stranger' });
  });

  it('T22 is applied again, not created anew, when the label of the stack was removed', async () => {
    await using agent = await rig.start();
    const target = await rig.sync(agent, configMap('unlabelled'));
    const path = rig.path('configmaps', 'unlabelled');
    const { uid, labels } = (await rig.get(path)).metadata;
    const mark = await rig.server.auditMark();
    await rig.server.kubectl('-n', rig.namespace, 'label', 'configmap', 'unlabelled', 'brokkr.io/stack-');
    await rig.broker.until('corrected', () => rig.corrections(target).length === 1);
    expect((await rig.get(path)).metadata).toMatchObject({ uid, labels });
    expect(rig.corrections(target)).toMatchObject([{ success: true, counts: { configured: 1 } }]);
    expect((await rig.calls(mark, 'configmaps', 'get')).length).toBeGreaterThan(0); // looked before it wrote
    expect(await rig.calls(mark, 'configmaps', 'delete')).toEqual([]);
  });

  it('T23 is owned again in silence when managedFields was wiped, and later versions remove what they leave out', async () => {
    await using agent = await rig.start();
    const first = await rig.sync(agent, configMap('wiped', { key: 'a', later: 'gone' }));
    const path = rig.path('configmaps', 'wiped');
    await rig.patchAs('some-controller', path, { data: { added: 'stays' } });
    const wipe = [{ op: 'replace', path: '/metadata/managedFields', value: [{}] }];
    await rig.server.request('PATCH', path, wipe, { 'content-type': 'application/json-patch+json' });
    await expect
      .poll(async () => managers(await rig.get(path)).sort())
      .toEqual(['before-first-apply Update', 'brokkr/ours Apply']);
    const live = await rig.get(path);
    expect(live.data).toEqual({ key: 'a', later: 'gone', added: 'stays' });
    expect(rig.broker.eventsOf(first)).toHaveLength(1);
    await rig.sync(agent, configMap('wiped', { key: 'b' }), { after: first });
    expect((await rig.get(path)).data).toEqual({ key: 'b', added: 'stays' });
  });
});
