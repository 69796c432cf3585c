import { beforeAll, describe, expect, it } from 'vitest';
import { writeKubeconfig } from '../../hack/kube/kubeconfig.ts';
import { startTcpProxy } from '../fault-proxy.ts';
import { startKubeProxy } from '../http-proxy.ts';
import { startOwnKube, useKube } from '../kube.ts';
import { startOwnPostgres, testDatabase } from '../postgres.ts';
import { startBroker, temporaryDirectory } from '../processes.ts';
import { configMap, healthyAt, type Rig, rigOn, startRig, until } from './rig.ts';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
});

const found = async (namespace: string, name: string) =>
  (await rig.kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/${name}`)).status;
const maps = (namespace: string, names: readonly string[], value = '1') =>
  names.map((name) => configMap(namespace, name, value)).join('---\n');
const port = (url: string) => Number(new URL(url).port);

describe('faults', () => {
  // C-014, N-081
  it('a broker out of reach for a while: one catch-up to the newest generation only', { timeout: 120_000 }, async () => {
    await using way = await startTcpProxy({ target: { host: '127.0.0.1', port: port(rig.broker.url) } });
    const agent = await rig.register();
    await rig.start(agent, { brokerUrl: `http://127.0.0.1:${way.port}` });
    const namespace = await rig.kube.namespace('away');
    const stack = await rig.publish('away', configMap(namespace, 'a'), agent.label);
    await rig.status(stack.id, healthyAt(1));
    way.cut();
    for (const value of ['2', '3', '4', '5']) await rig.publish('away', configMap(namespace, 'a', value), agent.label);
    await way.heal();
    await rig.status(stack.id, healthyAt(5), 90_000);
    const applied = (await rig.events(agent.id))
      .filter(({ event_type: type }) => type === 'APPLY')
      .map(({ generation }) => generation);
    expect(applied).toEqual([5, 1]);
  });

  it('an API server out of reach in the middle of an apply: completed when it is back', { timeout: 120_000 }, async () => {
    const kube = await useKube();
    await using way = await startKubeProxy({ target: kube.url, ca: kube.caData });
    const agent = await rig.register();
    const dir = await temporaryDirectory();
    const { token } = await kube.identity('through-proxy', { clusterAdmin: true });
    const kubeconfigPath = `${dir}/kubeconfig`;
    await writeKubeconfig(kubeconfigPath, { server: way.url, token });
    await rig.start(agent, { kubeconfigPath });
    const namespace = await kube.namespace('cut');
    const names = Array.from({ length: 30 }, (_, index) => `m${index}`);
    const killed = way.killAfter(10, ({ method }) => method === 'PATCH');
    const stack = await rig.publish('cut', maps(namespace, names), agent.label);
    await killed;
    way.heal();
    await rig.status(stack.id, ({ applied_generation: applied }) => applied === 1, 90_000);
    for (const name of names) expect(await found(namespace, name)).toBe(200);
  });

  it('an agent killed after the k-th write, then another version: nothing leaked, nothing lost', {
    timeout: 300_000,
  }, async () => {
    const kube = await useKube();
    const before = ['a', 'b', 'c', 'd'];
    const after = ['c', 'd', 'e'];
    for (let k = 0; k <= 12; k += 2) {
      await using way = await startKubeProxy({ target: kube.url, ca: kube.caData });
      const agent = await rig.register();
      const dir = await temporaryDirectory();
      const { token } = await kube.identity(`killed-${k}`, { clusterAdmin: true });
      await writeKubeconfig(`${dir}/kubeconfig`, { server: way.url, token });
      const namespace = await kube.namespace('killed');
      const stack = await rig.publish(`killed-${k}`, maps(namespace, before), agent.label);
      const reached = way.killAfter(k, ({ method }) => method !== 'GET');
      const first = await rig.start(agent, { kubeconfigPath: `${dir}/kubeconfig` });
      const done = rig.status(stack.id, healthyAt(1), 20_000).catch(() => undefined); // a large k is never reached
      await Promise.race([reached, done]);
      await first.stop('SIGKILL');
      way.heal();
      const next = await rig.publish(`killed-${k}`, maps(namespace, after, '2'), agent.label);
      await rig.start(agent, { kubeconfigPath: `${dir}/kubeconfig`, dataDir: first.dataDir });
      await rig.status(stack.id, healthyAt(next.generation), 60_000);
      await until(
        () => found(namespace, 'a'),
        (status) => status === 404,
      );
      await until(
        () => found(namespace, 'b'),
        (status) => status === 404,
      );
      for (const name of after) expect(await found(namespace, name), `${name} after k=${k}`).toBe(200);
      const attempts = (await rig.events(agent.id)).map(({ attempt_id: id }) => id);
      expect(new Set(attempts).size, `events after k=${k}`).toBe(attempts.length);
    }
  });

  it('two processes with one key on one cluster, no election: the newer serves, the older is told why and stays away', {
    timeout: 120_000,
  }, async () => {
    const agent = await rig.register();
    const env = { BROKKR__AGENT__LEADER_ELECTION: 'off' };
    const older = await rig.start(agent, { env });
    await until(
      () => rig.broker.api<{ transport: string | null }>('GET', `/api/v1/agents/${agent.id}`),
      ({ body }) => body.transport === 'stream',
    );
    const newer = await rig.start(agent, { env });
    await older.line((line) => /another process of this agent/.test(String(line.detail)));
    const namespace = await rig.kube.namespace('two');
    const stack = await rig.publish('two', configMap(namespace, 'a'), agent.label);
    await rig.status(stack.id, healthyAt(1));
    const epoch = async () =>
      (
        await rig.broker.api<{ connections: { agent_id: string; epoch: number }[] }>('GET', '/api/v1/admin/ws/connections')
      ).body.connections.find(({ agent_id: id }) => id === agent.id)?.epoch;
    const now = await epoch();
    await new Promise((resolve) => setTimeout(resolve, 5000)); // long enough for several reconnects, were there any
    expect(await epoch()).toBe(now);
    expect(newer.log.some((line) => /another process of this agent/.test(String(line.detail)))).toBe(false);
  });

  it('one key on two clusters: the second is refused and says so', { timeout: 120_000 }, async () => {
    const agent = await rig.register();
    await rig.start(agent);
    await until(
      () => rig.broker.api<{ transport: string | null }>('GET', `/api/v1/agents/${agent.id}`),
      ({ body }) => body.transport === 'stream',
    );
    await using second = await startOwnKube();
    const stranger = await rig.start(agent, { kubeconfigPath: second.identities.ops.kubeconfigPath });
    await stranger.line((line) => /another cluster|duplicate_identity/i.test(JSON.stringify(line)));
  });

  it('a stack deleted while the agent is away is pruned on its return, or orphaned when it is so marked', {
    timeout: 120_000,
  }, async () => {
    const agent = await rig.register();
    const first = await rig.start(agent);
    const namespace = await rig.kube.namespace('away');
    const gone = await rig.publish('gone', configMap(namespace, 'gone'), agent.label);
    const kept = await rig.publish('kept', configMap(namespace, 'kept'), agent.label);
    await rig.broker.api('PUT', `/api/v1/stacks/${kept.id}`, { options: { deletion_policy: 'orphan' } });
    await rig.status(gone.id, healthyAt(1));
    await rig.status(kept.id, healthyAt(2));
    await first.stop();
    await rig.broker.api('DELETE', `/api/v1/stacks/${gone.id}`);
    await rig.broker.api('DELETE', `/api/v1/stacks/${kept.id}`);
    await rig.start(agent, { dataDir: first.dataDir });
    await until(
      () => found(namespace, 'gone'),
      (status) => status === 404,
    );
    await until(
      () => rig.broker.api('GET', `/api/v1/stacks/${kept.id}/status`),
      ({ status }) => status === 404,
    );
    const { status, body } = await rig.kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/kept`);
    expect(status).toBe(200);
    expect(JSON.stringify((body as { metadata: { labels?: unknown } }).metadata.labels ?? {})).not.toContain('brokkr.io/stack');
  });

  // N-008
  it('PostgreSQL stopped and started: nobody restarts, what was published is delivered', { timeout: 180_000 }, async () => {
    await using postgres = await startOwnPostgres();
    const broker = await startBroker({ databaseUrl: postgres.url });
    const own = rigOn(rig.kube, broker, postgres.url);
    const agent = await own.register();
    await own.start(agent);
    const namespace = await rig.kube.namespace('outage');
    const stack = await own.publish('outage', configMap(namespace, 'a'), agent.label);
    await own.status(stack.id, healthyAt(1));
    await postgres.stop();
    await until(
      async () => (await fetch(`${broker.url}/readyz`)).status,
      (status) => status === 503,
    );
    expect((await fetch(`${broker.url}/healthz`)).status).toBe(200);
    expect((await broker.api('GET', '/api/v1/stacks')).status).toBe(503);
    await postgres.start();
    await until(
      async () => (await fetch(`${broker.url}/readyz`)).status,
      (status) => status === 200,
    );
    const next = await until(
      () => own.publish('outage', configMap(namespace, 'a', '2'), agent.label),
      () => true,
    );
    await own.status(stack.id, healthyAt(next.generation), 90_000);
  });

  it('a broker killed: agents keep everything and come back to its successor', { timeout: 120_000 }, async () => {
    const database = await testDatabase();
    const first = await startBroker({ databaseUrl: database.url });
    const own = rigOn(rig.kube, first, database.url);
    const agent = await own.register();
    await own.start(agent);
    const namespace = await rig.kube.namespace('killed');
    const stack = await own.publish('killed', configMap(namespace, 'a'), agent.label);
    await own.status(stack.id, healthyAt(1));
    await first.stop('SIGKILL');
    const second = await startBroker({
      databaseUrl: database.url,
      port: port(first.url),
      adminKey: { pak: first.adminPak, hash: '0'.repeat(64) },
    });
    const later = rigOn(rig.kube, second, database.url);
    await later.publish('killed', configMap(namespace, 'a', '2'), agent.label);
    await later.status(stack.id, healthyAt(2), 90_000);
    expect(await found(namespace, 'a')).toBe(200);
  });

  it('a database restored to an older backup: nothing is deleted until an admin confirms', { timeout: 180_000 }, async () => {
    const database = await testDatabase();
    const first = await startBroker({ databaseUrl: database.url });
    const own = rigOn(rig.kube, first, database.url);
    const agent = await own.register();
    const started = await own.start(agent);
    const namespace = await rig.kube.namespace('restored');
    const old = await own.publish('old', configMap(namespace, 'old'), agent.label);
    await own.status(old.id, healthyAt(1));
    await first.stop();
    const backup = await database.snapshot();
    const second = await startBroker({
      databaseUrl: database.url,
      port: port(first.url),
      adminKey: { pak: first.adminPak, hash: '0'.repeat(64) },
    });
    const later = rigOn(rig.kube, second, database.url);
    const fresh = await later.publish('fresh', configMap(namespace, 'fresh'), agent.label);
    await later.status(fresh.id, healthyAt(1), 60_000);
    await later.publish('old', `${configMap(namespace, 'old', '2')}---\n${configMap(namespace, 'added')}`, agent.label);
    await later.status(old.id, healthyAt(2), 60_000);
    await second.stop();
    const third = await startBroker({
      databaseUrl: backup.url,
      port: port(first.url),
      adminKey: { pak: first.adminPak, hash: '0'.repeat(64) },
    });
    const restored = rigOn(rig.kube, third, backup.url);
    await restored.status(old.id, ({ received_generation: received }) => received === 1, 60_000);
    await third.line(({ level }) => level === 'error');
    await new Promise((resolve) => setTimeout(resolve, 3000)); // time in which nothing may be deleted
    for (const name of ['old', 'fresh', 'added']) expect(await found(namespace, name), name).toBe(200);
    expect((await third.api('POST', '/api/v1/admin/history/confirm', {})).status).toBe(200);
    await until(
      () => found(namespace, 'added'),
      (status) => status === 404,
      60_000,
    );
    expect(await found(namespace, 'fresh'), 'a stack the restored database never knew stays').toBe(200);
    expect(started.log.some(({ level }) => level === 'fatal')).toBe(false);
  });
});
