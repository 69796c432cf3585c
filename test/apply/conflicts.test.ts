import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ConflictPolicy, Phase } from '#proto/brokkr/v1/content_pb.js';
import type { StackTarget } from '../../agent/stack/target.ts';
import type { TestAgent } from '../agent-engine.ts';
import { configMap, deployment, type ObjectRig, openObjectRig, yaml } from './object-rig.ts';

let rig: ObjectRig;

beforeAll(async () => {
  rig = await openObjectRig('conflicts');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const { UNSPECIFIED, FORCE, YIELD, FAIL } = ConflictPolicy;

/** The second generation of a ConfigMap of which `another` has taken one field after the first. */
async function contested(agent: TestAgent, name: string, settings: object, another = 'another', metadata: object = {}) {
  const first = await rig.sync(agent, configMap(name, { key: 'a', ours: 'a' }, metadata));
  agent.reconciler.suspend('test'); // so that it is no drift first
  const path = rig.path('configmaps', name);
  const theirs = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { key: 'theirs' } };
  await rig.applyAs(another, path, theirs);
  const text = yaml(configMap(name, { key: 'b', ours: 'b' }, metadata), configMap(`${name}-beside`));
  const second = await rig.broker.publish(text, { after: first, options: settings });
  agent.reconciler.offer(second);
  agent.reconciler.resume();
  return { target: await rig.ended(second), path };
}

/** Nothing is written, and no event made, when the same is offered once more. */
async function rests(agent: TestAgent, target: StackTarget, path: string): Promise<void> {
  const { metadata } = await rig.get(path);
  const events = rig.broker.eventsOf(target).length;
  const again = { ...target, generation: target.generation + 1n };
  agent.reconciler.offer(again);
  await rig.broker.applied(again);
  expect((await rig.get(path)).metadata.resourceVersion).toBe(metadata.resourceVersion);
  expect(rig.broker.eventsOf(target).slice(events)).toMatchObject([{ success: true, counts: { configured: 0 } }]);
}

describe('a field that another manager applies', () => {
  it.each([
    ['no policy', UNSPECIFIED],
    ['force', FORCE],
  ])('T12 is taken with %s, and the event names manager and field', async (_, conflicts) => {
    await using agent = await rig.start();
    const { target, path } = await contested(agent, `force-${conflicts}`, { conflicts });
    expect((await rig.get(path)).data).toEqual({ key: 'b', ours: 'b' });
    expect(rig.told(target, `force-${conflicts}`)).toMatchObject({
      ...{ state: 'configured', reason: 'forced', managers: ['another'], message: expect.stringContaining('.data.key') },
    });
    await rests(agent, target, path);
  });

  it('T12 is left to it with yield, everything else is set, and that is neither drift nor a change', async () => {
    await using agent = await rig.start();
    const { target, path } = await contested(agent, 'yield', { conflicts: YIELD });
    expect(rig.phase(target)).toBe(Phase.APPLIED);
    expect((await rig.get(path)).data).toEqual({ key: 'theirs', ours: 'b' });
    expect(rig.told(target, 'yield')).toMatchObject({
      ...{ state: 'configured', reason: 'yielded', managers: ['another'], message: expect.stringContaining('.data.key') },
    });
    await rests(agent, target, path);
    await rig.applyAs('another', path, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'yield' },
      data: { key: 'later' },
    });
    await rests(agent, { ...target, generation: target.generation + 1n }, path);
    expect((await rig.get(path)).data.key).toBe('later');
    expect(rig.corrections(target)).toEqual([]);
  });

  it('T12 leaves the whole object alone with fail, and applies the others', async () => {
    await using agent = await rig.start();
    const { target, path } = await contested(agent, 'fail', { conflicts: FAIL });
    expect(rig.phase(target)).toBe(Phase.FAILED);
    expect((await rig.get(path)).data).toEqual({ key: 'theirs', ours: 'a' });
    expect(rig.told(target, 'fail')).toMatchObject({
      ...{ state: 'conflict', reason: 'manager', managers: ['another'], path: '.data.key' },
    });
    await rig.get(rig.path('configmaps', 'fail-beside'));
  });

  it('T12 follows the mark of the object before the policy', async () => {
    await using agent = await rig.start();
    const metadata = { annotations: { 'brokkr.io/conflicts': 'yield' } };
    const { path } = await contested(agent, 'marked', { conflicts: FAIL }, 'another', metadata);
    expect((await rig.get(path)).data).toEqual({ key: 'theirs', ours: 'b' });
  });

  it('T12 is left to a manager the stack yields to by name, whatever the policy', async () => {
    await using agent = await rig.start();
    const settings = { conflicts: FORCE, yieldManagers: ['anot*'] };
    const { path } = await contested(agent, 'by-name', settings);
    expect((await rig.get(path)).data).toEqual({ key: 'theirs', ours: 'b' });
  });

  it('T12 is taken back when somebody wrote it under the name of the stack', async () => {
    await using agent = await rig.start();
    const target = await rig.sync(agent, configMap('under-our-name'));
    const path = rig.path('configmaps', 'under-our-name');
    const ours = (await rig.get(path)).metadata.managedFields[0].manager;
    await rig.patchAs(ours, path, { data: { key: 'changed' } });
    await rig.broker.until('corrected', () => rig.corrections(target).length === 1);
    expect((await rig.get(path)).data).toEqual({ key: 'a' });
    expect(rig.corrections(target)[0]?.objects).toMatchObject([{ reason: 'changed', managers: [ours] }]);
  });

  it('T12 is taken over with all that the manager owns when people apply with it', async () => {
    await using agent = await rig.start();
    const { target, path } = await contested(agent, 'kubectl', { conflicts: FAIL }, 'kubectl');
    const live = await rig.get(path);
    expect(live.data).toEqual({ key: 'b', ours: 'b' });
    expect(live.metadata.managedFields.map(({ manager }: { manager: string }) => manager)).not.toContain('kubectl');
    expect(rig.told(target, 'kubectl')).toMatchObject({ reason: 'taken_over', managers: ['kubectl'] });
  });
});

describe('replicas that a controller sets through the scale subresource', () => {
  const scale = (name: string, replicas: number) =>
    rig.patchAs('horizontal-pod-autoscaler', `${rig.path('deployments', name, 'apps/v1')}/scale`, { spec: { replicas } });

  it.each([
    ['no policy', UNSPECIFIED],
    ['yield', YIELD],
    ['fail', FAIL],
  ])('T13 stay with %s, also when the image changes', async (_, conflicts) => {
    const name = `scaled-${conflicts}`;
    await using agent = await rig.start();
    const options = { conflicts };
    const path = rig.path('deployments', name, 'apps/v1');
    const first = await rig.sync(agent, deployment(name), { options });
    const mark = await rig.server.auditMark();
    await scale(name, 5);
    await expect
      .poll(async () => (await rig.calls(mark, 'deployments', 'patch')).map(({ responseStatus }) => responseStatus?.code))
      .toEqual([409, 200]);
    expect((await rig.get(path)).spec.replicas).toBe(5);
    expect(rig.corrections(first)).toEqual([]);
    const template = { metadata: { labels: { app: name } }, spec: { containers: [{ name: 'c', image: 'new' }] } };
    await rig.sync(agent, deployment(name, { template }), { after: first, options });
    const { spec } = await rig.get(path);
    expect(spec).toMatchObject({ replicas: 5, template: { spec: { containers: [{ image: 'new' }] } } });
  });

  it('T13 are put back with force', async () => {
    await using agent = await rig.start();
    const target = await rig.sync(agent, deployment('forced'), { options: { conflicts: FORCE } });
    const path = rig.path('deployments', 'forced', 'apps/v1');
    await scale('forced', 5);
    await rig.broker.until('corrected', () => rig.corrections(target).length === 1);
    expect((await rig.get(path)).spec.replicas).toBe(2);
    expect(rig.corrections(target)[0]?.objects).toMatchObject([
      { reason: 'changed', managers: ['horizontal-pod-autoscaler'], message: expect.stringContaining('.spec.replicas') },
    ]);
  });
});

describe('a field that is to be ignored', () => {
  it('is set at first, then left to others, and that is no drift', async () => {
    await using agent = await rig.start();
    const options = { conflicts: FORCE, ignore: [{ group: 'apps', kind: 'Deployment', paths: ['/spec/replicas'] }] };
    const path = rig.path('deployments', 'ignored', 'apps/v1');
    const first = await rig.sync(agent, deployment('ignored'), { options });
    expect((await rig.get(path)).spec.replicas).toBe(2);
    const mark = await rig.server.auditMark();
    await rig.patchAs('operator', path, { spec: { replicas: 7 } });
    await expect.poll(() => rig.calls(mark, 'deployments', 'patch')).toHaveLength(1);
    expect(rig.corrections(first)).toEqual([]);
    const second = await rig.sync(agent, deployment('ignored', { minReadySeconds: 3 }), { after: first, options });
    expect(rig.event(second)).toMatchObject({ success: true, counts: { configured: 1 } });
    expect((await rig.get(path)).spec).toMatchObject({ replicas: 7, minReadySeconds: 3 });
  });

  it('is no conflict when the object is not ours yet', async () => {
    const path = rig.path('configmaps', 'not-ours-yet');
    const theirs = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'not-ours-yet' }, data: { key: 'theirs' } };
    await rig.applyAs('another', path, theirs);
    await using agent = await rig.start();
    const options = { conflicts: FAIL, ignore: [{ kind: 'ConfigMap', paths: ['/data/key'] }] };
    const target = await rig.sync(agent, configMap('not-ours-yet', { key: 'a', ours: 'a' }), { options });
    expect(rig.event(target)).toMatchObject({ success: true, counts: { adopted: 1 } });
    expect((await rig.get(path)).data).toEqual({ key: 'theirs', ours: 'a' });
  });

  it('costs no read of objects that match no rule', async () => {
    await using agent = await rig.start();
    const options = { ignore: [{ group: 'apps', kind: 'Deployment', paths: ['/spec/replicas'] }] };
    const first = await rig.sync(agent, configMap('no-rule'), { options });
    const mark = await rig.server.auditMark();
    await rig.sync(agent, configMap('no-rule', { key: 'b' }), { after: first, options });
    expect((await rig.calls(mark, 'configmaps')).map(({ verb }) => verb)).toEqual(['patch', 'patch']);
  });
});
