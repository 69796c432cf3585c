import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StackTarget } from '../../agent/stack/target.ts';
import { Phase } from '../../proto/gen/brokkr/v1/content_pb.js';
import { type EngineRig, openEngineRig } from '../engine-rig.ts';
import { configMap, engineCalls, isInventory, pod, told, writeStatus, yaml } from './graph-rig.ts';

let rig: EngineRig;
beforeAll(async () => {
  rig = await openEngineRig('waves');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const path = (plural: string, name: string) => `/api/v1/namespaces/${rig.namespace}/${plural}/${name}`;
const exists = async (plural: string, name: string) => (await rig.server.request('GET', path(plural, name))).status === 200;
const messageOf = ({ stackId }: StackTarget) => rig.broker.statuses.get(stackId)?.message ?? '';
const waiting = (target: StackTarget, name: string) =>
  rig.broker.until(`waiting for ${name}`, () => messageOf(target).includes(`waits for Pod ${rig.namespace}/${name}`));
const becomeReady = (name: string) =>
  writeStatus(rig, path('pods', name), { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] });
const applyingAt = (target: StackTarget) => rig.broker.statuses.get(target.stackId);

describe('waves', () => {
  it('go one after the other, earlier numbers first, whatever their kinds', async () => {
    const { broker, server } = rig;
    await using agent = await rig.start();
    const target = await broker.publish(
      yaml(configMap('third', { wave: 5 }), configMap('second'), pod('first', { wave: -1 }), configMap('also-second')),
    );
    const mark = await server.auditMark();
    agent.reconciler.offer(target);
    await broker.applied(target);
    const writes = (await engineCalls(rig, mark)).filter((call) => call.verb === 'patch' && !isInventory(call));
    const names = writes.map(({ objectRef }) => objectRef?.name);
    expect([names[0], names.slice(1, 3).toSorted(), names[3]]).toEqual(['first', ['also-second', 'second'], 'third']);
  });

  it('stop at the first one that fails', async () => {
    const { broker } = rig;
    await using agent = await rig.start();
    const broken = `apiVersion: v1\nkind: Secret\nmetadata: {name: broken-wave}\ntype: kubernetes.io/tls\nstringData: {a: b}\n`;
    const target = await broker.publish(yaml(configMap('after-failure', { wave: 1 }), broken, configMap('same-wave')));
    agent.reconciler.offer(target);
    await broker.until('failed', () => applyingAt(target)?.phase === Phase.FAILED);
    expect(told(rig, target).toSorted()).toEqual([
      'blocked blocked ConfigMap after-failure',
      'rejected invalid Secret broken-wave',
    ]);
    expect(applyingAt(target)?.objects.find(({ name }) => name === 'after-failure')?.message).toBe('wave 0 has failed');
    expect([await exists('configmaps', 'same-wave'), await exists('configmaps', 'after-failure')]).toEqual([true, false]);
  });

  it('do not wait for health unless the options say so', async () => {
    const { broker } = rig;
    await using agent = await rig.start();
    const target = await broker.publish(yaml(pod('never-ready'), configMap('at-once', { wave: 1 })));
    agent.reconciler.offer(target);
    await broker.applied(target);
    expect(await exists('configmaps', 'at-once')).toBe(true);
  });
});

describe('waves that wait for health', () => {
  const options = { gateWaves: true };

  it('begin once all of the earlier ones is ready, and the status says what they wait for', async () => {
    const { broker } = rig;
    await using agent = await rig.start();
    const target = await broker.publish(
      yaml(
        pod('gate-a'),
        pod('gate-b'),
        configMap('no-rules'),
        configMap('gated', { wave: 1 }),
        configMap('gated-2', { wave: 2 }),
      ),
      { options },
    );
    agent.reconciler.offer(target);
    await waiting(target, 'gate-a');
    expect(messageOf(target)).toContain('wave 1 waits for');
    expect(messageOf(target)).toContain('(and 1 more)');
    expect(applyingAt(target)?.phase).toBe(Phase.APPLYING);
    expect(told(rig, target).map((line) => line.split(' ').at(-1))).toEqual(['gate-a', 'gate-b']);
    await becomeReady('gate-a');
    await waiting(target, 'gate-b');
    expect(await exists('configmaps', 'gated')).toBe(false);
    await becomeReady('gate-b');
    await broker.applied(target);
    expect(await exists('configmaps', 'gated-2')).toBe(true);
    expect(broker.eventsOf(target)).toMatchObject([{ success: true, counts: { created: 5 } }]);

    // A later version waits for what did not change in it, too, and does not take an old state for the new one.
    await writeStatus(rig, path('pods', 'gate-a'), { conditions: [{ type: 'Ready', status: 'False' }] });
    await broker.until('unready', () => applyingAt(target)?.objects.some(({ name }) => name === 'gate-a') === true);
    const next = await broker.publish(
      yaml(
        pod('gate-a'),
        pod('gate-b'),
        configMap('no-rules'),
        configMap('gated', { wave: 1 }, 'b'),
        configMap('gated-2', { wave: 2 }),
      ),
      { options, after: target },
    );
    agent.reconciler.offer(next);
    await waiting(next, 'gate-a');
    await becomeReady('gate-a');
    await broker.applied(next);
  }, 120_000);

  it('fail, naming the object, when it is not ready in time; and begin when it is ready later', async () => {
    const { broker } = rig;
    await using agent = await rig.start();
    const target = await broker.publish(yaml(pod('late'), configMap('impatient', { wave: 1 })), {
      options: { ...options, failureDeadlineSeconds: 1 },
    });
    agent.reconciler.offer(target);
    await broker.until('failed', () => applyingAt(target)?.phase === Phase.FAILED);
    expect(told(rig, target)).toEqual([
      expect.stringMatching(/^not_ready (Pending|NoProgress) Pod late$/), // late by the same deadline, noticed before or after
      'blocked blocked ConfigMap impatient',
    ]);
    expect(applyingAt(target)?.objects[1]?.message).toContain(`wave 1 needs Pod ${rig.namespace}/late`);
    expect(broker.eventsOf(target)).toMatchObject([{ success: false, eventType: 'APPLY' }]);
    expect(await exists('configmaps', 'impatient')).toBe(false);
    await becomeReady('late');
    await broker.applied(target);
    expect(await exists('configmaps', 'impatient')).toBe(true);
  }, 120_000);

  it('go on waiting after a restart of the agent', async () => {
    const { broker } = rig;
    const target = await broker.publish(yaml(pod('survivor'), configMap('after-restart', { wave: 1 })), { options });
    {
      await using agent = await rig.start();
      agent.reconciler.offer(target);
      await waiting(target, 'survivor');
    }
    broker.statuses.delete(target.stackId);
    await using agent = await rig.start();
    agent.reconciler.offer(target);
    await waiting(target, 'survivor');
    expect(await exists('configmaps', 'after-restart')).toBe(false);
    await becomeReady('survivor');
    await broker.applied(target);
    expect(broker.eventsOf(target).map(({ success }) => success)).toEqual([true]);
  }, 120_000);

  it('let other stacks go on, however many wait', async () => {
    const { broker, server, identity, namespace } = rig;
    const token = { url: server.url, caData: server.caData, token: identity.token };
    await using agent = await broker.start(token, { namespace, concurrency: 1 });
    const waiter = await broker.publish(yaml(pod('blocker'), configMap('held', { wave: 1 })), { options });
    agent.reconciler.offer(waiter);
    await waiting(waiter, 'blocker');
    const other = await broker.publish(configMap('bystander'));
    agent.reconciler.offer(other);
    await broker.applied(other);
    expect(messageOf(waiter)).toContain('waits for');
    await becomeReady('blocker');
    await broker.applied(waiter);
  }, 120_000);
});

it('T44 a newer version while a wave waits for health: the wait is cancelled, the newer one applied, the older one reported as superseded', async () => {
  const { broker } = rig;
  await using agent = await rig.start();
  const options = { gateWaves: true };
  const first = await broker.publish(yaml(pod('sick'), configMap('kept'), configMap('never-sent', { wave: 1 })), { options });
  agent.reconciler.offer(first);
  await waiting(first, 'sick');
  const second = await broker.publish(yaml(configMap('kept', {}, 'b'), configMap('new-later', { wave: 1 })), {
    options,
    after: first,
  });
  agent.reconciler.offer(second);
  await broker.applied(second);
  expect(broker.eventsOf(first)).toMatchObject([
    { generation: 1n, success: false, message: 'superseded before it ended by generation 2' },
    { generation: 2n, success: true, counts: { created: 1, configured: 1, failed: 0 } },
  ]);
  expect(await exists('configmaps', 'never-sent')).toBe(false);
  expect(await exists('configmaps', 'new-later')).toBe(true);
  await broker.until('inventory correct', () => applyingAt(second)?.objectsTotal === 2);
  // What the cluster keeps is what another life of the agent finds.
  await using next = await rig.start();
  expect(next.held.find(({ stackId }) => stackId === second.stackId)).toMatchObject({ appliedGeneration: 2n });
  expect(next.reconciler.stacks().find(({ stackId }) => stackId === second.stackId)).toMatchObject({ objectsTotal: 2 });
}, 120_000);
