import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Phase } from '#proto/brokkr/v1/content_pb.js';
import { isWatching } from '../kube-audit.ts';
import { configMap, openRemovalRig, type RemovalRig, yaml } from './removal-rig.ts';

let rig: RemovalRig;

beforeAll(async () => {
  rig = await openRemovalRig('terminating');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

describe('T29 a finalizer holds a pruned object', () => {
  const held = configMap('t29-held', 'a', '  finalizers: [example.org/hold]\n');
  const release = () =>
    rig.server.request('PATCH', rig.path('t29-held'), [{ op: 'remove', path: '/metadata/finalizers' }], {
      'content-type': 'application/json-patch+json',
    });

  it('T29 the next version is applied in normal time, the object is listed as terminating since then, and is not asked for', async () => {
    const { broker, server } = rig;
    await using agent = await rig.start();
    const first = await rig.apply(agent, await broker.publish(yaml(configMap('t29'), held)));
    const before = Date.now();
    const second = await rig.apply(agent, await broker.publish(configMap('t29'), { after: first }));
    const told = rig.told(second, 't29-held');
    expect(told).toMatchObject({ state: 'terminating', reason: 'finalizers' });
    expect(Number(told?.since?.seconds) * 1000).toBeGreaterThan(before - 1000);
    expect(broker.eventsOf(second).at(-1)).toMatchObject({ success: true, counts: { terminating: 1 } });

    const third = await rig.apply(agent, await broker.publish(configMap('t29', 'b'), { after: second }));
    expect((await rig.live('t29')).data).toEqual({ key: 'b' });
    expect(rig.told(third, 't29-held')?.since).toEqual(told?.since);
    const mark = await server.auditMark();
    await release();
    await broker.until('gone', () => rig.told(third, 't29-held') === undefined);
    const calls = await server.auditEvents({ user: rig.identity.user, since: mark });
    const own = calls.filter((event) => !isWatching(event)).map(({ verb, objectRef }) => `${verb} ${objectRef?.name}`);
    expect(own).toEqual(['get t29-held', `patch ${own[1]?.split(' ')[1]}`]); // told by the watch, verified, and forgotten
    expect(own[1]).toMatch(/^patch brokkr-inv-/);
  });

  it('T29 wanted again meanwhile: reported, siblings applied, created anew once the old one is gone', async () => {
    const { broker } = rig;
    await using agent = await rig.start();
    const first = await rig.apply(agent, await broker.publish(yaml(configMap('t29b'), held)));
    const { uid } = (await rig.live('t29-held')).metadata;
    const second = await rig.apply(agent, await broker.publish(configMap('t29b'), { after: first }));
    const third = await broker.publish(yaml(configMap('t29b', 'b'), configMap('t29-held', 'new')), { after: second });
    agent.reconciler.offer(third);
    await broker.until('failed', () => broker.statuses.get(third.stackId)?.phase === Phase.FAILED);
    expect(broker.statuses.get(third.stackId)?.objects).toMatchObject([{ name: 't29-held', state: 'terminating' }]);
    expect((await rig.live('t29b')).data).toEqual({ key: 'b' });
    expect((await rig.live('t29-held')).data).toEqual({ key: 'a' });
    await release();
    await broker.applied(third);
    const now = await rig.live('t29-held');
    expect([now.data, now.metadata.uid === uid]).toEqual([{ key: 'new' }, false]);
  });
});
