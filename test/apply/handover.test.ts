import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AdoptionPolicy, Phase } from '#proto/brokkr/v1/content_pb.js';
import { openTestBroker } from '../agent-engine.ts';
import { startKubeProxy } from '../http-proxy.ts';
import { configMap, openRemovalRig, type RemovalRig, yaml } from './removal-rig.ts';

let rig: RemovalRig;

beforeAll(async () => {
  rig = await openRemovalRig('handover');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

/** Deletions and creations of an object since a mark: there are none when it moves without a gap. */
async function gaps(since: number, name: string): Promise<string[]> {
  const made = (await rig.mutations(since)).filter(({ objectRef }) => objectRef?.name === name);
  return made
    .filter(({ verb, responseStatus }) => verb === 'delete' || responseStatus?.code === 201)
    .map(({ verb, responseStatus }) => `${verb} ${responseStatus?.code}`);
}

/** Publishes two stacks of which the first has an object `name`, and what comes of both when it moves. */
async function move(name: string) {
  const { broker } = rig;
  const from = await broker.publish(yaml(configMap(`${name}-one`), configMap(name, 'from')));
  const to = await broker.publish(configMap(`${name}-two`));
  return {
    from,
    to,
    without: await broker.publish(configMap(`${name}-one`), { after: from }),
    withIt: await broker.publish(yaml(configMap(`${name}-two`), configMap(name, 'to')), { after: to }),
  };
}

/** What is expected of an object that has moved. */
async function expectMoved(name: string, uid: string, to: { readonly stackId: string }): Promise<void> {
  const { metadata, data } = await rig.live(name);
  expect([metadata.uid, data]).toEqual([uid, { key: 'to' }]);
  expect(metadata.annotations['brokkr.io/owner']).toBe(`${rig.broker.agentId}/${to.stackId}`);
  const managers = metadata.managedFields.map((entry: { manager: string }) => entry.manager);
  expect(managers).toEqual([`brokkr/${metadata.labels['brokkr.io/stack']}`]);
}

describe('T17 an object moves from one stack to another', () => {
  it.each(['the one that loses it', 'the one that gets it'])('T17 when %s syncs first: UID unchanged, no gap', async (first) => {
    const { broker, server } = rig;
    await using agent = await rig.start();
    const name = first.endsWith('loses it') ? 'loser' : 'getter';
    const { from, to, without, withIt } = await move(name);
    await rig.apply(agent, from);
    await rig.apply(agent, to);
    const { uid } = (await rig.live(name)).metadata;
    const mark = await server.auditMark();
    if (name === 'loser') {
      agent.reconciler.offer(without);
      agent.reconciler.offer(withIt);
    } else {
      agent.reconciler.offer(withIt);
      await broker.until('conflict', () => rig.told(withIt, name)?.reason === 'owner'); // the other stack still has it
      agent.reconciler.offer(without);
    }
    await broker.applied(without);
    await broker.applied(withIt);
    await broker.until('forgotten', () => broker.statuses.get(from.stackId)?.objectsTotal === 1);
    await expectMoved(name, uid, to);
    expect(await gaps(mark, name)).toEqual([]);
    expect(broker.eventsOf(to).at(-1)).toMatchObject({
      success: true,
      counts: { moved: 1 },
      objects: [{ name, state: 'moved' }],
    });
    expect(broker.eventsOf(from).flatMap(({ objects }) => objects)).toContainEqual(
      expect.objectContaining({ name, state: 'moved', reason: 'handover' }),
    );
  });

  it('T17 from a stack that is withdrawn, to one that adopts nothing', async () => {
    const { broker, server } = rig;
    await using agent = await rig.start();
    const { from, to, withIt } = await move('withdrawn');
    await rig.apply(agent, from);
    const { uid } = (await rig.live('withdrawn')).metadata;
    const mark = await server.auditMark();
    const text = yaml(configMap('withdrawn-two'), configMap('withdrawn', 'to'));
    agent.reconciler.offer(await broker.publish(text, { after: withIt, options: { adoption: AdoptionPolicy.REFUSE } }));
    agent.reconciler.withdraw(broker.tombstone(from));
    await broker.until('left', () => broker.statuses.get(from.stackId)?.phase === Phase.PRUNED);
    await broker.until('applied', () => broker.statuses.get(to.stackId)?.phase === Phase.APPLIED);
    await expectMoved('withdrawn', uid, to);
    expect(await gaps(mark, 'withdrawn')).toEqual([]);
    expect(await rig.present(['withdrawn-one'])).toEqual([]);
  });

  it('T17 from a stack that is gone and left it behind, as nothing prunes it: to the next one that adopts', async () => {
    const { broker } = rig;
    await using agent = await rig.start();
    const first = await broker.publish(configMap('left-behind', 'from', '  annotations: {brokkr.io/prune: never}\n'));
    await rig.apply(agent, first);
    const { uid } = (await rig.live('left-behind')).metadata;
    agent.reconciler.withdraw(broker.tombstone(first));
    await broker.until('left', () => broker.statuses.get(first.stackId)?.phase === Phase.PRUNED);
    const refusing = await broker.publish(configMap('left-behind', 'to'), { options: { adoption: AdoptionPolicy.REFUSE } });
    agent.reconciler.offer(refusing);
    await broker.until('refused', () => rig.told(refusing, 'left-behind')?.reason === 'adoption_refused');
    const next = await broker.publish(configMap('left-behind', 'to'));
    await rig.apply(agent, next);
    await expectMoved('left-behind', uid, next);
    expect(broker.eventsOf(next).at(-1)).toMatchObject({ success: true, counts: { adopted: 1 } });
  });

  it('T17 across a crash after every write of the move', async () => {
    const { broker, server } = rig;
    for (let k = 0; ; k++) {
      const name = `crash-${k}`;
      const { from, to, without, withIt } = await move(name);
      {
        await using agent = await rig.start();
        await rig.apply(agent, from);
        await rig.apply(agent, to);
      }
      const { uid } = (await rig.live(name)).metadata;
      const mark = await server.auditMark();
      const offer = ({ reconciler }: Awaited<ReturnType<RemovalRig['start']>>) => {
        reconciler.offer(without);
        reconciler.offer(withIt);
      };
      const isOver = () =>
        [without, withIt].every(({ stackId, generation }) => {
          const status = broker.statuses.get(stackId);
          return status?.phase === Phase.APPLIED && status.appliedGeneration === generation && status.objects.length === 0;
        });
      let isKilled = false;
      {
        await using proxy = await startKubeProxy({ target: server.url, ca: server.caData });
        await using agent = await rig.start({ url: proxy.url });
        const killed = proxy.killAfter(k, ({ method }) => method !== 'GET');
        void killed.then(() => {
          isKilled = true;
        });
        offer(agent);
        await broker.until('killed or over', () => isKilled || isOver());
      }
      broker.statuses.clear();
      await using agent = await rig.start();
      offer(agent);
      await broker.until('over', isOver, 45_000);
      await expectMoved(name, uid, to);
      expect(await gaps(mark, name), `after ${k} writes`).toEqual([]);
      if (!isKilled) break;
    }
  }, 240_000);

  it('T17 not from the stack of another agent: the conflict stays', async () => {
    const { broker, server, identity, namespace } = rig;
    await using other = openTestBroker(namespace);
    const start = { url: server.url, caData: server.caData, token: identity.token };
    await using stranger = await other.start(start, { namespace });
    const theirs = await other.publish(yaml(configMap('their-one'), configMap('theirs', 'theirs')));
    stranger.reconciler.offer(theirs);
    await other.applied(theirs);
    await using agent = await rig.start();
    const ours = await broker.publish(configMap('theirs', 'ours'));
    agent.reconciler.offer(ours);
    await broker.until('conflict', () => rig.told(ours, 'theirs')?.reason === 'owner');
    expect((await rig.live('theirs')).data).toEqual({ key: 'theirs' });
  });
});
