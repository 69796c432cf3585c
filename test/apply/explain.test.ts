import { create, toJsonString } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ConflictPolicy, Health } from '#proto/brokkr/v1/content_pb.js';
import { ExplanationSchema, type ObjectExplanation, ObjectFilterSchema, Wanted } from '#proto/brokkr/v1/explain_pb.js';
import type { StackTarget } from '../../agent/stack/target.ts';
import type { TestAgent } from '../agent-engine.ts';
import { configMap, deployment, type ObjectRig, openObjectRig, yaml } from './object-rig.ts';

let rig: ObjectRig;

beforeAll(async () => {
  rig = await openObjectRig('explain');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

async function ask(agent: TestAgent, { stackId }: StackTarget, filter: object = {}, page = { limit: 0, after: '' }) {
  const query = { $typeName: 'brokkr.v1.ExplainQuery' as const, stackId, filter: create(ObjectFilterSchema, filter), ...page };
  return await agent.reconciler.explain(query, new AbortController().signal);
}

async function explain(agent: TestAgent, target: StackTarget, name: string, kind = ''): Promise<ObjectExplanation> {
  const { objects } = await ask(agent, target, { name, kind });
  expect(objects).toHaveLength(1);
  return objects[0] as ObjectExplanation;
}

/** Explains again and again until the object has this state. */
async function untilState(agent: TestAgent, target: StackTarget, name: string, state: string): Promise<ObjectExplanation> {
  await expect.poll(async () => (await explain(agent, target, name)).status?.state, { timeout: 20_000 }).toBe(state);
  return await explain(agent, target, name);
}

function pvc(name: string): string {
  const spec = { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Mi' } }, storageClassName: 'none' };
  return `${JSON.stringify({ apiVersion: 'v1', kind: 'PersistentVolumeClaim', metadata: { name }, spec })}\n`;
}

const policies = (object: ObjectExplanation) =>
  Object.fromEntries(object.detail?.policies.map(({ name, value, source }) => [name, `${value} (${source})`]) ?? []);

describe('an explanation', () => {
  it('says of an object as it should be: since when, by which write, who owns what, which policies hold', async () => {
    await using agent = await rig.start();
    const before = Date.now() - 2000; // managedFields tell seconds
    const target = await rig.sync(agent, configMap('fine', { key: 'a' }, { annotations: { 'brokkr.io/conflicts': 'yield' } }), {
      options: { recreate: 2, driftRules: [{ kind: 'ConfigMap', mode: 1 }] },
    });
    const fine = await explain(agent, target, 'fine', 'configmaps');
    const live = await rig.get(rig.path('configmaps', 'fine'));
    expect(fine).toMatchObject({
      status: { kind: 'ConfigMap', namespace: rig.namespace, name: 'fine', state: 'in_sync', message: '' },
      ...{ version: 'v1', wanted: Wanted.YES, generation: 1n, health: Health.HEALTHY },
      ...{ uid: live.metadata.uid, resourceVersion: live.metadata.resourceVersion },
      detail: {
        summary: 'it is as wanted',
        live: { uid: live.metadata.uid, resourceVersion: live.metadata.resourceVersion },
        ...{ readError: '', differences: [], differencesUnknown: '' },
        writers: [{ operation: 'Apply', who: 'self', fields: expect.arrayContaining(['.data.key']) }],
      },
    });
    expect(fine.retryAt).toBeUndefined();
    expect(fine.detail?.live?.deletedAt).toBeUndefined();
    expect(fine.wantedDigest).toMatch(/^[0-9a-f]{32}$/);
    expect(fine.appliedDigest).toBe(fine.wantedDigest);
    expect(timestampMs(fine.status?.since ?? (undefined as never))).toBeGreaterThan(before);
    expect(policies(fine)).toEqual({
      drift: 'correct (drift_rules 1)',
      conflicts: 'yield (annotation brokkr.io/conflicts)',
      adoption: 'adopt (default)',
      recreate: 'immutable (option recreate)',
      prune: 'delete (default)',
      propagation: 'Background (default)',
    });
  });

  it('lists what a stack wants and has, page by page, and asks the server nothing for it', async () => {
    await using agent = await rig.start();
    const metadata = { labels: { app: 'list-c' }, annotations: { 'brokkr.test/outcome': 'unready' } }; // its health stays what it is
    const unready = deployment('list-c', { template: { metadata, spec: { containers: [{ name: 'c', image: 'i' }] } } });
    const target = await rig.sync(agent, yaml(configMap('list-a'), configMap('list-b'), unready));
    const mark = await rig.server.auditMark();
    const first = await ask(agent, target, {}, { limit: 2, after: '' });
    expect(first.objects.map(({ status, detail }) => [status?.name, status?.state, detail])).toEqual([
      ['list-a', 'in_sync', undefined],
      ['list-b', 'in_sync', undefined],
    ]);
    const second = await ask(agent, target, {}, { limit: 2, after: first.next });
    expect(second).toMatchObject({
      objects: [{ status: { kind: 'Deployment', name: 'list-c' }, health: Health.DEGRADED }],
      next: '',
    });
    expect(second.objects[0]?.healthReason).not.toBe('');
    const ofKind = await ask(agent, target, { kind: 'DEPLOYMENT', group: 'apps' });
    expect(ofKind.objects.map(({ status }) => status?.name)).toEqual(['list-c']);
    expect((await ask(agent, target, { kind: 'deployment', group: '.' })).objects).toEqual([]);
    expect(await rig.calls(mark, 'configmaps')).toEqual([]);
    expect(await rig.calls(mark, 'deployments')).toEqual([]);
  });

  it('names manager, field and both values of a conflict, and when it is tried again', async () => {
    await using agent = await rig.start();
    const first = await rig.sync(agent, configMap('fought', { key: 'a' }));
    agent.reconciler.suspend('test');
    const theirs = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'fought' }, data: { key: 'theirs' } };
    await rig.applyAs('another', rig.path('configmaps', 'fought'), theirs);
    const second = await rig.broker.publish(configMap('fought', { key: 'b' }), {
      ...{ after: first, options: { conflicts: ConflictPolicy.FAIL } },
    });
    agent.reconciler.offer(second);
    agent.reconciler.resume();
    await rig.ended(second);
    const fought = await explain(agent, second, 'fought');
    expect(fought).toMatchObject({
      status: { state: 'conflict', reason: 'manager', managers: ['another'] },
      ...{ wanted: Wanted.YES, generation: 2n },
      detail: {
        differences: [{ path: '.data.key', difference: 'changed', wanted: '"b"', live: '"theirs"' }],
        writers: expect.arrayContaining([
          expect.objectContaining({ manager: 'another', who: 'controller', fields: ['.data.key'] }),
        ]),
      },
    });
    expect(fought.detail?.summary).toMatch(/^1 field differs: .*another/);
    expect(policies(fought).conflicts).toBe('fail (option conflicts)');
    expect(timestampMs(fought.retryAt ?? (undefined as never))).toBeGreaterThan(Date.now());
    const since = fought.status?.since;
    expect(since).toBeDefined();
    const third = { ...second, generation: 3n };
    agent.reconciler.offer(third);
    await rig.ended(third);
    expect((await explain(agent, third, 'fought')).status?.since, 'it is so since the first attempt').toEqual(since);
  });

  it('tells why an object is rejected, and of the others that they wait for that', async () => {
    await using agent = await rig.start();
    const fixed = (value: string) =>
      `${JSON.stringify({ ...JSON.parse(configMap('fixed', { key: value })), immutable: true })}\n`;
    const first = await rig.sync(agent, yaml(fixed('a'), configMap('beside')));
    const second = await rig.sync(agent, yaml(fixed('b'), configMap('beside', { key: 'b' })), { after: first });
    expect(await explain(agent, second, 'fixed')).toMatchObject({
      status: { state: 'rejected', reason: 'immutable' },
      detail: {
        summary: expect.stringMatching(/^1 field differs: .*cannot be changed/),
        differences: [{ path: '.data.key', wanted: '"b"', live: '"a"' }],
      },
    });
    const beside = await explain(agent, second, 'beside');
    expect(beside).toMatchObject({
      status: { state: 'pending', reason: 'generation_refused', message: expect.stringContaining('cannot be changed') },
      detail: { differences: [{ path: '.data.key', wanted: '"b"', live: '"a"' }] },
    });
    expect(beside.appliedDigest).not.toBe(beside.wantedDigest);
  });

  it('says that the cluster does not know a kind', async () => {
    await using agent = await rig.start();
    const target = await rig.sync(agent, 'apiVersion: strange.example/v1\nkind: Strange\nmetadata: {name: odd}\n');
    expect(await explain(agent, target, 'odd')).toMatchObject({
      status: { state: 'rejected', reason: 'unknown_kind' },
      ...{ wanted: Wanted.YES, uid: '' },
      detail: {
        readError: 'the cluster does not know the kind Strange',
        differencesUnknown: 'the live object could not be read',
      },
    });
  });

  it('names the guard that keeps an object, or that would', async () => {
    await using agent = await rig.start();
    const first = await rig.sync(agent, yaml(pvc('precious'), configMap('plain')));
    expect(policies(await explain(agent, first, 'precious')).prune).toBe(
      'kept: deleting a PersistentVolumeClaim needs approve_deletes (guard approval)',
    );
    const second = await rig.sync(agent, configMap('plain'), { after: first });
    expect(await explain(agent, second, 'precious')).toMatchObject({
      status: { state: 'kept', reason: 'approval' },
      ...{ wanted: Wanted.NO, wantedDigest: '' },
      detail: { summary: expect.stringMatching(/^kept: .*approve_deletes/), differencesUnknown: 'it is not wanted' },
    });
  });

  it('lists an object that finalizers hold with its age', async () => {
    await using agent = await rig.start();
    const name = 'stuck';
    const first = await rig.sync(agent, yaml(configMap(name, {}, { finalizers: ['test.example/hold'] }), configMap('stays')));
    const second = await rig.sync(agent, configMap('stays'), { after: first });
    const stuck = await untilState(agent, second, name, 'terminating');
    expect(stuck).toMatchObject({
      wanted: Wanted.NO,
      detail: { live: { finalizers: ['test.example/hold'] }, summary: expect.stringContaining('held by test.example/hold') },
    });
    expect(stuck.status?.since).toBeDefined();
    expect(stuck.detail?.live?.deletedAt).toBeDefined();
    await rig.patchAs('test', rig.path('configmaps', name), { metadata: { finalizers: null } });
  });

  it('tells of drift that is left as it is who changed what, and since when', async () => {
    await using agent = await rig.start();
    const text = configMap('loose', { key: 'a', other: 'a' }, { annotations: { 'brokkr.io/drift': 'detect' } });
    const target = await rig.sync(agent, text);
    await rig.patchAs('kubectl-edit', rig.path('configmaps', 'loose'), { data: { key: 'edited' } });
    const loose = await untilState(agent, target, 'loose', 'drift_reported');
    expect(loose).toMatchObject({
      status: { managers: ['kubectl-edit'] },
      detail: {
        summary: expect.stringMatching(/^1 field differs: kubectl-edit/),
        differences: [{ path: '.data.key', difference: 'changed', wanted: '"a"', live: '"edited"' }],
        writers: expect.arrayContaining([expect.objectContaining({ manager: 'kubectl-edit', who: 'person' })]),
      },
    });
    expect(loose.status?.since).toBeDefined();
    expect(policies(loose).drift).toBe('detect (annotation brokkr.io/drift)');
  });

  it('names the changed keys of a Secret and no value, wanted or live', async () => {
    await using agent = await rig.start();
    const secret = {
      ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'hidden' } },
      ...{ data: { token: btoa('wanted-value') }, stringData: { plain: 'wanted-text' } },
    };
    const target = await rig.sync(agent, `${JSON.stringify(secret)}\n`);
    expect(await explain(agent, target, 'hidden')).toMatchObject({ status: { state: 'in_sync' }, detail: { differences: [] } });
    agent.reconciler.suspend('the test looks');
    await rig.patchAs('kubectl-edit', rig.path('secrets', 'hidden'), { data: { token: btoa('live-value') } });
    const mark = await rig.server.auditMark();
    const hidden = await untilState(agent, target, 'hidden', 'suspect');
    expect(hidden.detail).toMatchObject({
      summary: expect.stringMatching(/^1 field differs/),
      differences: [{ path: '.data.token', difference: 'changed' }],
      live: { uid: hidden.uid },
    });
    expect(hidden.detail?.differences[0]?.wanted ?? hidden.detail?.differences[0]?.live).toBeUndefined();
    expect(hidden.detail?.writers.map(({ manager }) => manager)).toContain('kubectl-edit');
    const said = toJsonString(ExplanationSchema, await ask(agent, target, { name: 'hidden' }));
    for (const value of ['wanted-value', 'wanted-text', 'live-value']) {
      expect(said).not.toContain(value);
      expect(said).not.toContain(btoa(value));
    }
    expect((await rig.calls(mark, 'secrets')).map(({ verb }) => verb)).toContain('get');
  });

  it('says when an object is gone, and when the content cannot be had, and explains the rest', async () => {
    await using agent = await rig.start();
    const target = await rig.sync(agent, configMap('lost'));
    agent.reconciler.suspend('the test looks');
    rig.broker.forgetContent();
    expect(await explain(agent, target, 'lost')).toMatchObject({
      status: { state: 'in_sync' },
      detail: {
        summary: 'it is as it was applied',
        differencesUnknown: 'the content cannot be had: the broker cannot be reached',
        live: { uid: expect.any(String) },
        writers: [{ who: 'self' }],
      },
    });
    await rig.server.request('DELETE', rig.path('configmaps', 'lost'));
    const lost = await untilState(agent, target, 'lost', 'suspect');
    expect(lost.detail?.live).toBeUndefined();
    expect(lost.detail?.summary).toMatch(/^it does not exist though it is wanted/);
  });

  it('of a stack that leaves says so, and of one that was never here that nothing is known', async () => {
    await using agent = await rig.start();
    const target = await rig.sync(agent, pvc('leaving'));
    agent.reconciler.withdraw(rig.broker.tombstone(target, { approved: false }));
    const leaving = await untilState(agent, target, 'leaving', 'kept');
    expect(leaving).toMatchObject({
      wanted: Wanted.STACK_LEAVES,
      detail: { differencesUnknown: 'nothing is wanted: the stack leaves the agent' },
    });
    await expect(ask(agent, { ...target, stackId: crypto.randomUUID() })).rejects.toThrow('has nothing of this stack');
  });

  it('is part of the answer when the agent may not read the object', async () => {
    await using agent = await rig.start();
    const target = await rig.sync(agent, configMap('forbidden'));
    const identity = await rig.server.identity('blind', {
      namespace: rig.namespace,
      rules: [{ apiGroups: [''], resources: ['configmaps'], verbs: ['list', 'watch'] }],
    });
    const blind = await rig.broker.start(
      { url: rig.server.url, caData: rig.server.caData, token: identity.token },
      { namespace: rig.namespace },
    );
    await using _ = blind;
    blind.reconciler.offer(target);
    expect(await explain(blind, target, 'forbidden')).toMatchObject({
      status: { state: 'in_sync' },
      detail: { readError: expect.stringContaining('forbidden'), differencesUnknown: 'the live object could not be read' },
    });
  });
});
