import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { startHttp1Proxy } from '../http-proxy.ts';
import { openTestDatabase } from '../postgres.ts';
import { temporaryDirectory } from '../processes.ts';
import { configMap, healthyAt, type Rig, startRig, until } from './rig.ts';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
});

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const live = async (namespace: string, name: string) =>
  (await rig.kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/${name}`)).status;

describe('intervals', () => {
  // N-087: measured over an idle while; a poll is held for the interval, so this is also the space between two
  it('let an idle agent poll once in each polling interval', async () => {
    const polls = await Promise.all(
      [1, 3].map(async (seconds) => {
        const way = await startHttp1Proxy({ target: rig.broker.url });
        const agent = await rig.register();
        const started = await rig.start(agent, {
          brokerUrl: way.url,
          env: { BROKKR__AGENT__TRANSPORT: 'poll', BROKKR__AGENT__POLLING_INTERVAL: `${seconds}s` },
        });
        await started.line(({ msg }) => msg === 'session opened');
        await pause(500);
        const before = way.count('POST', '/Poll');
        await pause(6200);
        const count = way.count('POST', '/Poll') - before;
        await started.stop();
        await way[Symbol.asyncDispose]();
        return count;
      }),
    );
    expect(polls[0]).toBeGreaterThanOrEqual(4);
    expect(polls[0]).toBeLessThanOrEqual(8);
    expect(polls[1]).toBeGreaterThanOrEqual(1);
    expect(polls[1]).toBeLessThanOrEqual(3);
  });

  // N-089
  it('let the agent report the health of everything once in each health interval', async () => {
    const db = await openTestDatabase(rig.databaseUrl);
    const agent = await rig.register();
    await rig.start(agent, { env: { BROKKR__AGENT__DEPLOYMENT_HEALTH_INTERVAL: '1s' } });
    const namespace = await rig.kube.namespace('interval');
    const stack = await rig.publish('interval', configMap(namespace, 'a'), agent.label);
    await rig.status(stack.id, healthyAt(1));
    const seen = new Set<string>();
    const end = performance.now() + 5000;
    while (performance.now() < end) {
      const rows = await db.query<{ at: string }>('select checked_at::text as at from deployment_health where agent_id = $1', [
        agent.id,
      ]);
      for (const { at } of rows) seen.add(at);
      await pause(50);
    }
    expect(seen.size).toBeGreaterThanOrEqual(4);
    expect(seen.size).toBeLessThanOrEqual(8);
  });
});

describe('rights', () => {
  // N-085
  it('of one namespace are enough for what belongs there, and what does not is refused by name', async () => {
    const agent = await rig.register();
    const { namespace } = agent;
    const rules = [{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] }];
    const { kubeconfigPath } = await rig.kube.identity('namespaced', { namespace, rules });
    await rig.start(agent, { kubeconfigPath, env: { BROKKR__AGENT__WATCH_NAMESPACE: namespace } });
    const mine = await rig.publish('mine', configMap(namespace, 'mine'), agent.label);
    await rig.status(mine.id, healthyAt(1));
    expect(await live(namespace, 'mine')).toBe(200);
    const elsewhere = await rig.kube.namespace('elsewhere');
    const other = await rig.publish('other', configMap(elsewhere, 'other'), agent.label);
    const refused = await rig.status(other.id, ({ phase }) => phase === 'failed' || phase === 'invalid');
    expect(JSON.stringify(refused)).toMatch(/other.*cannot patch resource .*configmaps/);
    expect(await live(elsewhere, 'other')).toBe(404);
  });
});

describe('a file of rules', () => {
  // C-011
  it('is obeyed, read again when it changes, and while it is invalid told by /readyz and nothing new is applied', async () => {
    const rulesFile = join(await temporaryDirectory(), 'rules.yaml');
    await writeFile(rulesFile, 'kinds:\n  forbiden: [Secret]\n');
    const agent = await rig.register();
    const started = await rig.start(agent, { env: { BROKKR__AGENT__RULES_FILE: rulesFile } });
    const address = String((await started.line(({ msg }) => msg === 'health port is open')).address);
    const port = address.slice(address.lastIndexOf(':') + 1);
    const readiness = async () => {
      const answer = await fetch(`http://127.0.0.1:${port}/readyz`);
      return `${answer.status} ${(await answer.text()).trim()}`;
    };
    const problem = `the rules of the environment are invalid: ${rulesFile}: line 2, column 3: /kinds/forbiden is unknown`;
    await until(readiness, (text) => text === `503 ${problem}`);
    const stack = await rig.publish('ruled', configMap(agent.namespace, 'ruled'), agent.label);
    const failed = await rig.status(stack.id, ({ phase }) => phase === 'failed');
    expect(failed.message).toBe(`${problem}; nothing new is applied`);
    await writeFile(rulesFile, 'kinds:\n  forbidden: [ConfigMap]\n');
    await until(readiness, (text) => text === '200 ok');
    const refused = await rig.status(stack.id, ({ phase }) => phase === 'refused' || phase === 'invalid');
    expect(refused.objects).toMatchObject([{ kind: 'ConfigMap', name: 'ruled', reason: 'forbidden_kind' }]);
    expect(await live(agent.namespace, 'ruled')).toBe(404);
    await writeFile(rulesFile, 'kinds:\n  forbidden: [Secret]\n');
    await rig.status(stack.id, healthyAt(1));
  });
});

describe('three agents', () => {
  // C-002, C-029
  it('each apply what is theirs and report for themselves', async () => {
    const agents = await Promise.all([rig.register(), rig.register(), rig.register()]);
    await Promise.all(agents.map((agent) => rig.start(agent)));
    for (const [index, agent] of agents.entries()) {
      const namespace = await rig.kube.namespace('three');
      const stack = await rig.publish(`three-${index}`, configMap(namespace, 'a'), agent.label);
      await rig.status(stack.id, healthyAt(1));
      expect(await live(namespace, 'a')).toBe(200);
      const events = (await rig.events(agent.id)).filter(({ generation }) => generation !== null);
      expect(events.map(({ deployment_object_id: id }) => id)).toEqual([stack.objectId]);
    }
  });
});
