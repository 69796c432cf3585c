import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StackTarget } from '../../agent/stack/target.ts';
import { isWatching } from '../kube-audit.ts';
import { configMap, names, openRemovalRig, type RemovalRig, yaml } from './removal-rig.ts';

let rig: RemovalRig;

beforeAll(async () => {
  rig = await openRemovalRig('inventory');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

/** Names of the ConfigMaps of a stack's inventory, the head first. */
async function inventoryOf(target: StackTarget): Promise<string[]> {
  const { body } = await rig.server.request('GET', `${rig.path('').slice(0, -1)}?labelSelector=brokkr.io/inventory`);
  const items = body.items as { metadata: { name: string }; data: { head?: string } }[];
  const head = items.find(({ data }) => data.head?.includes(target.stackId))?.metadata.name;
  if (head === undefined) return [];
  return items
    .map(({ metadata }) => metadata.name)
    .filter((name) => name.startsWith(head))
    .sort();
}

describe('T03 one of many objects changed', () => {
  it.each([
    ['1,000', 1000, 1],
    ['1,200 (in shards)', 1200, 5],
  ])(
    'T03 one of %s: exactly one dry-run, one apply and two writes of the inventory head, and nothing is read',
    async (_, count, maps) => {
      const { broker, server } = rig;
      await using agent = await rig.start();
      const all = names(`t03-${count}`, count);
      const text = (value: string) => yaml(...all.map((name, index) => configMap(name, index === 7 ? value : 'a')));
      const first = await broker.publish(text('a'));
      agent.reconciler.offer(first);
      await broker.until('applied', () => broker.statuses.get(first.stackId)?.appliedGeneration === 1n, 90_000);
      const parts = await inventoryOf(first);
      expect(parts).toHaveLength(maps);
      const second = await broker.publish(text('b'), { after: first });
      const mark = await server.auditMark();
      await rig.apply(agent, second);
      const calls = await server.auditEvents({ user: rig.identity.user, since: mark });
      const made = calls.filter((event) => !isWatching(event));
      expect(
        made.map(({ verb, objectRef, requestURI }) => `${verb} ${objectRef?.name}${requestURI.includes('dryRun') ? ' dry' : ''}`),
      ).toEqual([`patch t03-${count}-7 dry`, `patch ${parts[0]}`, `patch t03-${count}-7`, `patch ${parts[0]}`]);
      await server.kubectl('-n', rig.namespace, 'delete', 'configmap', '-l', 'brokkr.io/stack', '--wait=false');
    },
    120_000,
  );
});

describe('T42 two agents with one identity', () => {
  it('T42 the clash of inventory versions is detected, and nothing is deleted twice', async () => {
    const { broker, server } = rig;
    const gone = names('t42-gone', 15);
    const first = await broker.publish(yaml(configMap('t42'), ...gone.map((name) => configMap(name))));
    const second = await broker.publish(configMap('t42', 'b'), { after: first });
    const third = await broker.publish(yaml(configMap('t42', 'c'), configMap('t42-new')), { after: second });
    await using one = await rig.start();
    await rig.apply(one, first);
    await using two = await rig.start();
    const mark = await server.auditMark();
    one.reconciler.offer(second);
    two.reconciler.offer(second);
    await broker.until('applied by both', () =>
      [one, two].every(({ reconciler }) => {
        const status = reconciler.stacks().find(({ stackId }) => stackId === first.stackId);
        return status?.appliedGeneration === 2n && status.objectsTotal === 1 && status.message === '';
      }),
    );
    const refused = (await rig.mutations(mark)).filter(
      ({ objectRef, responseStatus }) => objectRef?.name?.startsWith('brokkr-inv-') && responseStatus?.code === 409,
    );
    expect(refused.length).toBeGreaterThan(0);
    const deleted = (await rig.mutations(mark)).filter(
      ({ verb, responseStatus }) => verb === 'delete' && responseStatus?.code === 200,
    );
    expect(deleted.map(({ objectRef }) => objectRef?.name).sort()).toEqual([...gone].sort());
    // Whoever goes on alone afterwards goes on from what is stored.
    await rig.apply(two, third);
    expect(await rig.present(['t42', 't42-new', ...gone])).toEqual(['t42', 't42-new']);
  });
});

describe('a lost inventory', () => {
  const role = (name: string) => `apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: ${name}}\nrules: []\n`;
  const hasRole = async (name: string) =>
    (await rig.server.request('GET', `/apis/rbac.authorization.k8s.io/v1/namespaces/${rig.namespace}/roles/${name}`)).status ===
    200;

  it('is rebuilt by label, of kinds the target does not name too; nothing is deleted before, what is not wanted afterwards', async () => {
    const { broker, server } = rig;
    const first = await broker.publish(yaml(configMap('lost'), configMap('lost-gone'), role('lost-role')));
    {
      await using agent = await rig.start();
      await rig.apply(agent, first);
    }
    const never = configMap('lost-never', 'a', '  annotations: {brokkr.io/prune: never}\n');
    const marked = await broker.publish(yaml(configMap('lost'), configMap('lost-gone'), role('lost-role'), never), {
      after: first,
    });
    {
      await using agent = await rig.start();
      await rig.apply(agent, marked);
    }
    for (const name of await inventoryOf(first)) await server.request('DELETE', rig.path(name));
    const mark = await server.auditMark();
    await using agent = await rig.start();
    const next = await broker.publish(configMap('lost', 'b'), { after: marked });
    agent.reconciler.offer(next);
    await broker.until('pruned', () => broker.eventsOf(next).at(-1)?.counts.deleted === 2);
    expect(await rig.present(['lost', 'lost-gone', 'lost-never'])).toEqual(['lost', 'lost-never']);
    expect(await hasRole('lost-role')).toBe(false);
    const made = (await rig.mutations(mark)).map(({ verb, objectRef }) => `${verb} ${objectRef?.name}`);
    const firstDelete = made.findIndex((call) => call.startsWith('delete'));
    expect(made.indexOf('patch lost')).toBeLessThan(firstDelete); // one complete apply came before
    expect(broker.eventsOf(next).slice(2)).toMatchObject([
      { eventType: 'APPLY', success: true, counts: { deleted: 0 } },
      { eventType: 'PRUNE', success: true, counts: { deleted: 2, released: 1 } },
    ]);
  });

  it('costs nothing while the inventory is there, nor when a stack begins with its first generation', async () => {
    const { broker, server } = rig;
    const mark = await server.auditMark();
    const first = await broker.publish(configMap('begins'));
    {
      await using agent = await rig.start();
      await rig.apply(agent, first);
    }
    await using agent = await rig.start();
    await rig.apply(agent, await broker.publish(configMap('begins', 'b'), { after: first }));
    const lists = await server.auditEvents({ user: rig.identity.user, since: mark, verbs: ['list'] });
    const byStack = lists.filter(({ requestURI }) => requestURI.includes('stack+in'));
    expect(byStack).toEqual([]);
  });

  it('is written again with the next change when it was deleted while the agent runs', async () => {
    const { broker, server } = rig;
    await using agent = await rig.start();
    const first = await rig.apply(agent, await broker.publish(yaml(configMap('again'), configMap('again-gone'))));
    for (const name of await inventoryOf(first)) await server.request('DELETE', rig.path(name));
    await rig.apply(agent, await broker.publish(configMap('again', 'b'), { after: first }));
    expect(await rig.present(['again', 'again-gone'])).toEqual(['again']);
    expect(await inventoryOf(first)).toHaveLength(1);
  });

  it('is found out when the stack is withdrawn, too', async () => {
    const { broker, server } = rig;
    const target = await broker.publish(yaml(configMap('unknown'), role('unknown-role')));
    {
      await using agent = await rig.start();
      await rig.apply(agent, target);
    }
    for (const name of await inventoryOf(target)) await server.request('DELETE', rig.path(name));
    await using agent = await rig.start();
    agent.reconciler.withdraw(broker.tombstone(target));
    await broker.until('left', () => !agent.reconciler.stacks().some(({ stackId }) => stackId === target.stackId));
    expect(await rig.present(['unknown'])).toEqual([]);
    expect(await hasRole('unknown-role')).toBe(false);
    expect(await inventoryOf(target)).toEqual([]);
  });
});

describe('a damaged inventory', () => {
  it.each(['head', 'entries'])(
    'counts as lost when its %s cannot be read: nothing is deleted for it, then it is whole again',
    async (part) => {
      const { broker, server } = rig;
      const all = names(`damaged-${part}`, 4);
      const first = await broker.publish(yaml(...all.map((name) => configMap(name))));
      {
        await using agent = await rig.start();
        await rig.apply(agent, first);
      }
      const [head = ''] = await inventoryOf(first);
      const patch = part === 'head' ? { data: { head: '{"format":1' } } : { binaryData: { entries: 'bm90IGd6aXA=' } };
      await server.request('PATCH', rig.path(head), patch, { 'content-type': 'application/merge-patch+json' });
      const mark = await server.auditMark();
      await using agent = await rig.start();
      const next = await broker.publish(yaml(...all.slice(0, 2).map((name) => configMap(name, 'b'))), { after: first });
      agent.reconciler.offer(next);
      await broker.until('pruned', () => broker.eventsOf(next).at(-1)?.counts.deleted === 2);
      expect(await rig.present(all)).toEqual(all.slice(0, 2));
      const made = (await rig.mutations(mark)).map(({ verb, objectRef }) => `${verb} ${objectRef?.name}`);
      const applies = all.slice(0, 2).map((name) => made.lastIndexOf(`patch ${name}`));
      expect(Math.max(...applies)).toBeLessThan(made.findIndex((call) => call.startsWith('delete')));
      {
        await using again = await rig.start();
        expect(again.reconciler.stacks().find(({ stackId }) => stackId === first.stackId)).toMatchObject({ objectsTotal: 2 });
      }
    },
  );
});
