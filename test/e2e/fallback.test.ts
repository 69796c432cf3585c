import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTcpProxy, type TcpProxy } from '../fault-proxy.ts';
import { startHttp1Proxy } from '../http-proxy.ts';
import { type AgentRecord, configMap, healthyAt, type Rig, startRig, until } from './rig.ts';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig({ BROKKR__BROKER__POLL_HOLD: '2s' });
});

const proxies: AsyncDisposable[] = [];
afterAll(async () => {
  for (const proxy of proxies) await proxy[Symbol.asyncDispose]();
});

/** A fixed address whose way to the broker changes under the agent's feet. */
async function road(): Promise<{ readonly url: string; readonly proxy: TcpProxy; lead(url: string): void }> {
  const target = { host: '127.0.0.1', port: Number(new URL(rig.broker.url).port) };
  const proxy = await startTcpProxy({ target });
  proxies.push(proxy);
  return {
    url: `http://127.0.0.1:${proxy.port}`,
    proxy,
    lead(url) {
      target.port = Number(new URL(url).port);
      proxy.dropConnections();
    },
  };
}

const transport = async (agent: AgentRecord) =>
  (await rig.broker.api<{ transport: string | null }>('GET', `/api/v1/agents/${agent.id}`)).body.transport;

/** One story, the same on every road; what it leaves behind is compared. */
async function story(agent: AgentRecord, name: string): Promise<unknown> {
  const namespace = await rig.kube.namespace('road');
  const stack = await rig.publish(name, `${configMap(namespace, 'a')}---\n${configMap(namespace, 'b')}`, agent.label);
  await rig.status(stack.id, healthyAt(1), 60_000);
  await rig.publish(name, `${configMap(namespace, 'a', '2')}`, agent.label);
  await rig.status(stack.id, healthyAt(2), 60_000);
  const { body } = await rig.kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps`);
  const maps = (body as { items: { metadata: { name: string }; data: unknown }[] }).items.filter(
    (item) => item.metadata.name !== 'kube-root-ca.crt',
  );
  const events = await until(
    async () =>
      (await rig.events(agent.id))
        .filter((event) => event.generation !== null && event.deployment_object_id !== null && event.event_type === 'APPLY')
        .slice(0, 2),
    (list) => list.length === 2,
  );
  return {
    maps: maps.map(({ metadata, data }) => ({ name: metadata.name, data })),
    events: events.map(({ event_type, status, generation }) => ({ event_type, status, generation })),
  };
}

describe('behind a proxy', () => {
  for (const [kind, buffer] of [
    ['speaks HTTP/1.1 only', false],
    ['buffers answers', true],
  ] as const) {
    it(`that ${kind}, the agent polls, ends in the same state with the same events, and returns to the stream`, {
      timeout: 180_000,
    }, async () => {
      const way = await road();
      const obstacle = await startHttp1Proxy({ target: rig.broker.url, buffer });
      proxies.push(obstacle);
      const straight = await rig.register();
      await rig.start(straight);
      const expected = await story(straight, `straight-${buffer}`);
      way.lead(obstacle.url);
      const agent = await rig.register();
      const started = await rig.start(agent, { brokerUrl: way.url, env: { BROKKR__AGENT__STREAM_PROBE_INTERVAL: '2s' } });
      await until(
        () => transport(agent),
        (value) => value === 'poll',
        60_000,
      );
      expect(await story(agent, `crooked-${buffer}`)).toEqual(expected);
      way.lead(rig.broker.url);
      await until(
        () => transport(agent),
        (value) => value === 'stream',
        60_000,
      );
      const namespace = await rig.kube.namespace('after');
      const after = await rig.publish(`after-${buffer}`, configMap(namespace, 'a'), agent.label);
      await rig.status(after.id, healthyAt(1));
      expect(started.log.filter(({ level }) => level === 'fatal')).toEqual([]);
    });
  }
});
