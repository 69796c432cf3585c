import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Phase } from '#proto/brokkr/v1/content_pb.js';
import { type ProxiedRequest, startKubeProxy } from '../http-proxy.ts';
import { configMap, openRemovalRig, type RemovalRig, yaml } from './removal-rig.ts';

let rig: RemovalRig;

beforeAll(async () => {
  rig = await openRemovalRig('crash');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const isInventory = ({ method, path }: ProxiedRequest) => method === 'PATCH' && path.includes('/brokkr-inv-');
const isApply = ({ method, path }: ProxiedRequest) =>
  method === 'PATCH' && !path.includes('/brokkr-inv-') && !path.includes('dryRun');
const isDelete = ({ method }: ProxiedRequest) => method === 'DELETE';

/** Where the agent dies while it brings version one to version two: at once after so many answers of a kind. */
const STEPS: readonly (readonly [string, number, (request: ProxiedRequest) => boolean])[] = [
  ['before intent', 0, isInventory],
  ['after intent', 1, isInventory],
  ['mid-apply', 2, isApply],
  ['after the last apply', 4, isApply],
  ['mid-prune', 2, isDelete],
  ['before finish', 4, isDelete],
  ['after finish', 2, isInventory],
];

const versions = (prefix: string) => {
  const objects = (value: string, names: string) => yaml(...[...names].map((name) => configMap(`${prefix}-${name}`, value)));
  return { one: objects('one', 'abcdefgh'), two: objects('two', 'efghij'), three: objects('three', 'cghk') };
};

/** Objects of a round with their values. */
async function present(prefix: string): Promise<Record<string, string>> {
  const { body } = await rig.server.request('GET', rig.path('').slice(0, -1));
  const items = (body.items as { metadata: { name: string }; data: { key: string } }[]).filter(({ metadata }) =>
    metadata.name.startsWith(`${prefix}-`),
  );
  return Object.fromEntries(items.map(({ metadata, data }) => [metadata.name.slice(prefix.length + 1), data.key]));
}

describe('T30 an agent dies and comes back to a different version', () => {
  it.each(STEPS)('T30 %s: every object is wanted, deleted or in the inventory', async (step, passes, isCounted) => {
    const { broker, server } = rig;
    const prefix = step.replaceAll(' ', '-');
    const { one, two, three } = versions(prefix);
    const first = await broker.publish(one);
    const second = await broker.publish(two, { after: first });
    const third = await broker.publish(three, { after: second });
    {
      await using agent = await rig.start();
      await rig.apply(agent, first);
    }
    {
      await using proxy = await startKubeProxy({ target: server.url, ca: server.caData });
      await using agent = await rig.start({ url: proxy.url });
      const killed = proxy.killAfter(passes, isCounted);
      agent.reconciler.offer(second);
      await killed;
    }
    const left = await present(prefix);
    await using agent = await rig.start();
    // Before anything is told to it, the agent knows of everything that is there.
    const known = agent.reconciler.stacks().find(({ stackId }) => stackId === first.stackId)?.objectsTotal ?? 0;
    expect(known).toBeGreaterThanOrEqual(Object.keys(left).length);
    await rig.apply(agent, third);
    expect(await present(prefix)).toEqual({ c: 'three', g: 'three', h: 'three', k: 'three' });
    expect(broker.statuses.get(first.stackId)).toMatchObject({ objectsTotal: 4, phase: Phase.APPLIED });
    const ids = broker.eventsOf(first).map(({ attemptId }) => attemptId);
    expect(new Set(ids).size).toBe(ids.length);
  });
});
