import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AdoptionPolicy, Phase } from '#proto/brokkr/v1/content_pb.js';
import type { TestBroker } from '../test/agent-engine.ts';
import { openEngineRig } from '../test/engine-rig.ts';
import { startKubeProxy } from '../test/http-proxy.ts';
import type { Kube as TestKube } from '../test/kube.ts';
import type { TestIdentity } from '../test/kube-identity.ts';

let server: TestKube;
let identity: TestIdentity;
let namespace: string;
let broker: TestBroker;

beforeAll(async () => {
  ({ server, identity, namespace, broker } = await openEngineRig('control'));
});
afterAll(() => broker?.[Symbol.asyncDispose]());

const start = () => broker.start({ url: server.url, caData: server.caData, token: identity.token }, { namespace });
const configMap = (name: string, value = 'a') =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${name}\ndata:\n  key: ${value}\n`;
const yaml = (documents: string[]) => documents.join('---\n');
const many = (prefix: string, count: number, value?: string) =>
  yaml(Array.from({ length: count }, (_, index) => configMap(`${prefix}-${index}`, value)));
const path = (name: string) => `/api/v1/namespaces/${namespace}/configmaps/${name}`;
const get = async (name: string) => server.request('GET', path(name));
const phaseOf = ({ stackId }: { readonly stackId: string }) => broker.statuses.get(stackId)?.phase;

describe('an agent that is told to stop', () => {
  it('writes nothing more while suspended, deletes nothing, and goes on afterwards under the same attempt', async () => {
    await using proxy = await startKubeProxy({ target: server.url, ca: server.caData });
    await using agent = await broker.start({ url: proxy.url, token: identity.token }, { namespace });
    const target = await broker.publish(many('suspended', 60));
    agent.reconciler.offer(target);
    await broker.until('begun', () => proxy.count('PATCH', '/suspended-') >= 10);
    agent.reconciler.suspend('agent is INACTIVE');
    await broker.until('quiet', () =>
      proxy.requests.every(({ path: url, status }) => status !== undefined || url.includes('watch')),
    );
    const before = proxy.count('PATCH', '/suspended-');
    agent.reconciler.withdraw(broker.tombstone(target, { generation: 0n })); // older: of no effect
    expect(before).toBeLessThan(60);
    expect((await get('suspended-0')).status).toBe(200);
    agent.reconciler.resume();
    await broker.applied(target);
    expect(broker.eventsOf(target).map(({ success }) => success)).toEqual([true]);
    expect((await get('suspended-59')).status).toBe(200);
  });

  it('keeps what it has when a stack is paused', async () => {
    await using agent = await start();
    const first = await broker.publish(configMap('paused'));
    agent.reconciler.offer(first);
    await broker.applied(first);
    const second = await broker.publish(configMap('paused', 'b'), { after: first, options: { paused: true } });
    agent.reconciler.offer(second);
    await broker.until('paused', () => broker.statuses.get(first.stackId)?.message.startsWith('paused') === true);
    expect((await get('paused')).body.data).toEqual({ key: 'a' });
    const third = await broker.publish(configMap('paused', 'b'), { after: second });
    agent.reconciler.offer(third);
    await broker.applied(third);
    expect((await get('paused')).body.data).toEqual({ key: 'b' });
  });
});

describe('a newer generation', () => {
  it('supersedes one in work at the next object, and both attempts are reported', async () => {
    await using proxy = await startKubeProxy({ target: server.url, ca: server.caData });
    await using agent = await broker.start({ url: proxy.url, token: identity.token }, { namespace });
    const first = await broker.publish(many('old', 120));
    agent.reconciler.offer(first);
    await broker.until('begun', () => proxy.count('PATCH', '/old-') >= 5);
    const second = await broker.publish(configMap('new'), { after: first, options: { approveDeletes: 1000 } });
    agent.reconciler.offer(second);
    agent.reconciler.offer(first); // late: of no effect
    await broker.applied(second);
    expect(proxy.count('PATCH', '/old-')).toBeLessThan(120);
    const { body } = await server.request('GET', `/api/v1/namespaces/${namespace}/configmaps?labelSelector=brokkr.io/stack`);
    const names = (body.items as { metadata: { name: string } }[]).map(({ metadata }) => metadata.name);
    expect(names.filter((name) => name.startsWith('old-'))).toEqual([]);
    expect(broker.eventsOf(first).map(({ generation, success }) => [generation, success])).toEqual([
      [1n, false],
      [2n, true],
    ]);
  });
});

describe('an object that exists already', () => {
  it('is adopted, also from another applier, and said to be', async () => {
    await using agent = await start();
    await server.kubectl('-n', namespace, 'create', 'configmap', 'theirs', '--from-literal=key=theirs');
    const target = await broker.publish(configMap('theirs'));
    agent.reconciler.offer(target);
    await broker.applied(target);
    expect((await get('theirs')).body.data).toEqual({ key: 'a' });
    expect(broker.eventsOf(target)[0]).toMatchObject({
      counts: { adopted: 1 },
      objects: [{ state: 'adopted', reason: 'taken_over', managers: ['kubectl-create'] }],
    });
  });

  it('is left alone when the stack does not adopt', async () => {
    await using agent = await start();
    await server.kubectl('-n', namespace, 'create', 'configmap', 'not-ours', '--from-literal=key=theirs');
    const target = await broker.publish(yaml([configMap('not-ours'), configMap('ours')]), {
      options: { adoption: AdoptionPolicy.REFUSE },
    });
    agent.reconciler.offer(target);
    await broker.until('failed', () => phaseOf(target) === Phase.FAILED);
    expect((await get('not-ours')).body.data).toEqual({ key: 'theirs' });
    expect((await get('ours')).status).toBe(200);
    expect(broker.eventsOf(target)[0]).toMatchObject({ objects: [{ name: 'not-ours', reason: 'adoption_refused' }] });
  });
});

describe('content that cannot be fetched', () => {
  it('fails the attempt, and the next one applies it', async () => {
    await using agent = await start();
    const target = await broker.publish(configMap('fetched'));
    broker.forgetContent();
    agent.reconciler.offer(target);
    await broker.until('failed', () => phaseOf(target) === Phase.FAILED);
    expect(broker.eventsOf(target)[0]).toMatchObject({ success: false, message: 'the broker cannot be reached' });
    await broker.publish(configMap('fetched'));
    await broker.applied(target);
    expect(broker.eventsOf(target).at(-1)).toMatchObject({ success: true });
  });
});

describe('an update the server would refuse', () => {
  it('stops everything before anything is written', async () => {
    await using agent = await start();
    const service = (ip: string) =>
      `apiVersion: v1\nkind: Service\nmetadata: {name: immutable}\nspec: {clusterIP: ${ip}, ports: [{port: 80}]}\n`;
    const first = await broker.publish(yaml([service('None'), configMap('with-service')]));
    agent.reconciler.offer(first);
    await broker.applied(first);
    const second = await broker.publish(yaml([service('10.0.0.99'), configMap('with-service', 'b')]), { after: first });
    agent.reconciler.offer(second);
    await broker.until('refused', () => phaseOf(second) === Phase.REFUSED);
    expect((await get('with-service')).body.data).toEqual({ key: 'a' });
    expect(broker.eventsOf(second).at(-1)).toMatchObject({
      success: false,
      objects: [{ kind: 'Service', name: 'immutable', reason: 'invalid' }],
    });
    expect(broker.statuses.get(second.stackId)).toMatchObject({ appliedGeneration: 1n, receivedGeneration: 2n });
  });
});
