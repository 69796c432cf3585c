import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Phase } from '#proto/brokkr/v1/content_pb.js';
import type { TestBroker } from '../test/agent-engine.ts';
import { openEngineRig } from '../test/engine-rig.ts';
import type { Kube as TestKube } from '../test/kube.ts';
import { isWatching } from '../test/kube-audit.ts';
import type { TestIdentity } from '../test/kube-identity.ts';

let server: TestKube;
let identity: TestIdentity;
let namespace: string;
let broker: TestBroker;

beforeAll(async () => {
  ({ server, identity, namespace, broker } = await openEngineRig('engine'));
});
afterAll(() => broker?.[Symbol.asyncDispose]());

const start = (options: { readonly held?: boolean; readonly kindRecheckMs?: number } = {}) =>
  broker.start({ url: server.url, caData: server.caData, token: identity.token }, { namespace, ...options });

/** Requests of the engine since a mark, watches and lists of watches aside. */
async function calls(since: number): Promise<string[]> {
  const events = await server.auditEvents({ user: identity.user, since });
  return events
    .filter((event) => event.stage === 'ResponseComplete' && !isWatching(event))
    .map(({ verb, requestURI }) => `${verb} ${requestURI.split('?')[0]}${requestURI.includes('dryRun') ? ' (dry run)' : ''}`);
}

const configMap = (name: string, value = 'a', extra = '') =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${name}\n${extra}data:\n  key: ${value}\n`;
const yaml = (...documents: string[]) => documents.join('---\n');
const live = async (name: string) => server.request('GET', `/api/v1/namespaces/${namespace}/configmaps/${name}`);

const crd = (group: string, plural = 'widgets', kind = 'Widget') => `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: ${plural}.${group}
spec:
  group: ${group}
  scope: Namespaced
  names: {plural: ${plural}, singular: ${kind.toLowerCase()}, kind: ${kind}}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec: {type: object, properties: {size: {type: integer}}}
`;

describe('a first sync', () => {
  it('applies namespace, definition, resources of it and the rest in one pass, whatever their order', async () => {
    await using agent = await start();
    const group = `${namespace}.example.org`;
    const own = `${namespace}-inner`;
    const target = await broker.publish(
      yaml(
        `apiVersion: ${group}/v1\nkind: Widget\nmetadata: {name: one, namespace: ${own}}\nspec: {size: 1}\n`,
        `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: inner, namespace: ${own}}\n`,
        crd(group),
        configMap('first'),
        `apiVersion: v1\nkind: Namespace\nmetadata: {name: ${own}}\n`,
        `apiVersion: v1\nkind: Secret\nmetadata: {name: first}\nstringData: {password: hunter2}\n`,
      ),
    );
    agent.reconciler.offer(target);
    await broker.applied(target);
    expect(broker.eventsOf(target)).toMatchObject([
      { success: true, eventType: 'APPLY', counts: { created: 6, failed: 0 }, generation: 1n },
    ]);
    expect((await server.request('GET', `/apis/${group}/v1/namespaces/${own}/widgets/one`)).status).toBe(200);
    const { metadata } = (await live('first')).body;
    expect(metadata.labels['brokkr.io/stack']).toMatch(/^[0-9a-f]{12}$/);
    expect(metadata.labels['applyset.kubernetes.io/part-of']).toMatch(/^applyset-.*-v1$/);
    expect(metadata.annotations['brokkr.io/owner']).toBe(`${broker.agentId}/${target.stackId}`);
    expect(
      JSON.stringify([...broker.statuses.values(), ...broker.events], (_, v) => (typeof v === 'bigint' ? `${v}` : v)),
    ).not.toContain('hunter2');
  });

  it('makes no call, fetches nothing and reports no event when offered again, also after a restart', async () => {
    const target = await broker.publish(yaml(configMap('same-1'), configMap('same-2')));
    {
      await using agent = await start();
      agent.reconciler.offer(target);
      await broker.applied(target);
    }
    await using agent = await start();
    expect(agent.held).toMatchObject(
      expect.arrayContaining([expect.objectContaining({ stackId: target.stackId, appliedGeneration: 1n })]),
    );
    const mark = await server.auditMark();
    const fetched = broker.fetched.length;
    broker.statuses.delete(target.stackId);
    agent.reconciler.offer(target);
    await broker.applied(target);
    await broker.until('healthy', () => broker.statuses.get(target.stackId)?.objectsReady === 2);
    agent.reconciler.offer(target);
    expect(await calls(mark)).toEqual([]);
    expect(broker.fetched.length).toBe(fetched);
    expect(broker.eventsOf(target)).toHaveLength(1);
  });

  it('sends one dry-run, one apply and two inventory writes for one changed object, and fetches only that', async () => {
    await using agent = await start();
    const first = await broker.publish(yaml(configMap('one-1'), configMap('one-2'), configMap('one-3')));
    agent.reconciler.offer(first);
    await broker.applied(first);
    const mark = await server.auditMark();
    const fetched = broker.fetched.length;
    const second = await broker.publish(yaml(configMap('one-1'), configMap('one-2', 'b'), configMap('one-3')), { after: first });
    agent.reconciler.offer(second);
    await broker.applied(second);
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const made = await calls(mark);
    expect(made.filter((call) => !call.includes('brokkr-inv'))).toEqual([`patch ${path}/one-2 (dry run)`, `patch ${path}/one-2`]);
    expect(made.filter((call) => call.includes('brokkr-inv'))).toHaveLength(2);
    expect(broker.fetched.length - fetched).toBe(1);
    expect(broker.eventsOf(second).at(-1)).toMatchObject({ counts: { configured: 1, unchanged: 2 } });
  });
});

describe('refusals', () => {
  it('applies nothing while the cluster does not know a kind, and everything once it does', async () => {
    await using agent = await start();
    const group = `late-${namespace}.example.org`;
    const target = await broker.publish(
      yaml(configMap('late'), `apiVersion: ${group}/v1\nkind: Gadget\nmetadata: {name: g}\nspec: {size: 1}\n`),
    );
    agent.reconciler.offer(target);
    await broker.until('refused', () => broker.statuses.get(target.stackId)?.phase === Phase.REFUSED);
    expect(broker.statuses.get(target.stackId)).toMatchObject({
      objects: [{ kind: 'Gadget', name: 'g', reason: 'unknown_kind' }],
    });
    expect(broker.eventsOf(target)).toMatchObject([{ success: false, eventType: 'VALIDATE' }]);
    expect((await live('late')).status).toBe(404);
    const definition = await broker.publish(crd(group, 'gadgets', 'Gadget'));
    agent.reconciler.offer(definition);
    await broker.applied(target);
    expect((await live('late')).status).toBe(200);
    expect(broker.eventsOf(target).map(({ success }) => success)).toEqual([false, true]);
  });

  it('writes nothing when one object has an unknown field, and names the path', async () => {
    await using agent = await start();
    const bad = `apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec:\n  replicaz: 2\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec: {containers: [{name: c, image: i}]}\n`;
    const target = await broker.publish(yaml(configMap('beside-bad'), bad));
    agent.reconciler.offer(target);
    await broker.until('refused', () => broker.statuses.get(target.stackId)?.phase === Phase.REFUSED);
    expect(broker.eventsOf(target)[0]).toMatchObject({
      success: false,
      objects: [{ kind: 'Deployment', name: 'bad', reason: 'unknown_field', path: '/spec/replicaz' }],
    });
    expect((await live('beside-bad')).status).toBe(404);
  });

  it('reports the YAML error of an unparsed text with its place and applies nothing', async () => {
    await using agent = await start();
    const target = await broker.publish(`${configMap('opaque')}---\na: [1\nb: 2\n`, { validation: 'none' });
    agent.reconciler.offer(target);
    await broker.until('refused', () => broker.statuses.get(target.stackId)?.phase === Phase.REFUSED);
    const [event] = broker.eventsOf(target);
    expect(event).toMatchObject({ success: false, objects: [{ reason: 'yaml_syntax', document: 2 }] });
    expect(event?.objects[0]?.line).toBeGreaterThan(6);
    expect((await live('opaque')).status).toBe(404);
    const good = await broker.publish(configMap('opaque'), { validation: 'none', after: target });
    agent.reconciler.offer(good);
    await broker.applied(good);
    expect((await live('opaque')).status).toBe(200);
  });

  it('reports the one object that fails and applies its siblings', async () => {
    await using agent = await start();
    const target = await broker.publish(
      yaml(
        configMap('sibling'),
        `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: orphaned, namespace: no-such-${namespace}}\n`,
      ),
    );
    agent.reconciler.offer(target);
    await broker.until('failed', () => broker.statuses.get(target.stackId)?.phase === Phase.FAILED);
    expect(broker.eventsOf(target)[0]).toMatchObject({
      success: false,
      counts: { created: 1, failed: 1 },
      objects: [{ name: 'orphaned', state: 'blocked', reason: 'namespace_not_found' }],
    });
    expect((await live('sibling')).status).toBe(200);
  });

  it('leaves an object of another stack alone and says whose it is', async () => {
    await using agent = await start();
    const first = await broker.publish(configMap('contested', 'first'));
    agent.reconciler.offer(first);
    await broker.applied(first);
    const second = await broker.publish(yaml(configMap('contested', 'second'), configMap('uncontested')));
    agent.reconciler.offer(second);
    await broker.until('failed', () => broker.statuses.get(second.stackId)?.phase === Phase.FAILED);
    expect(broker.eventsOf(second)[0]).toMatchObject({ objects: [{ name: 'contested', state: 'conflict', reason: 'owner' }] });
    expect((await live('contested')).body.data).toEqual({ key: 'first' });
    expect((await live('uncontested')).status).toBe(200);
  });
});
