import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StackTarget } from '../../agent/stack/target.ts';
import { ConflictPolicy, Phase } from '../../proto/gen/brokkr/v1/content_pb.js';
import type { TestAgent, TestBroker } from '../agent-engine.ts';
import { openEngineRig } from '../engine-rig.ts';
import type { Kube as TestKube } from '../kube.ts';
import type { TestIdentity } from '../kube-identity.ts';

/** Of `expect.poll`, for a busy machine. */
const WAIT = { timeout: 20_000 };

let server: TestKube;
let identity: TestIdentity;
let namespace: string;
let broker: TestBroker;
let agent: TestAgent;

beforeAll(async () => {
  const rig = await openEngineRig('t18');
  ({ server, identity, namespace, broker } = rig);
  agent = await rig.start();
});
afterAll(async () => {
  await agent?.stop();
  await broker?.[Symbol.asyncDispose]();
});

const manifests = (name: string) => `apiVersion: apps/v1
kind: Deployment
metadata:
  name: ${name}
  labels: {ours: kept}
  annotations: {note: ours}
spec:
  replicas: 2
  selector: {matchLabels: {app: ${name}}}
  template:
    metadata: {labels: {app: ${name}}}
    spec:
      containers:
        - {name: c, image: i, args: [a, b], env: [{name: A, value: ours}], resources: {limits: {cpu: 1000m}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ${name}, labels: {ours: kept}}
data: {key: a}
---
apiVersion: v1
kind: Secret
metadata: {name: ${name}}
stringData: {token: hidden-value}
`;
const PATHS = {
  Deployment: 'apis/apps/v1/namespaces/N/deployments/',
  ConfigMap: 'api/v1/namespaces/N/configmaps/',
  Secret: 'api/v1/namespaces/N/secrets/',
};
type Kind = keyof typeof PATHS;
const path = (kind: Kind, name: string) => `/${PATHS[kind].replace('N', namespace)}${name}`;
const read = async (kind: Kind, name: string) => (await server.request('GET', path(kind, name))).body;
type Send = (where: string, manager?: string) => Promise<{ readonly status: number }>;
const patch =
  (body: object, type = 'merge-patch'): Send =>
  (where, manager = 'kubectl-edit') =>
    server.request('PATCH', `${where}?fieldManager=${manager}`, body, { 'content-type': `application/${type}+json` });
const apply =
  (kind: Kind, body: object, manager: string): Send =>
  (where) => {
    const apiVersion = kind === 'Deployment' ? 'apps/v1' : 'v1';
    const text = { apiVersion, kind, metadata: { name: where.split('/').at(-1) }, ...body };
    const query = `?fieldManager=${encodeURIComponent(manager)}&force=true`;
    return server.request('PATCH', where + query, text, { 'content-type': 'application/apply-patch+yaml' });
  };
const container = (fields: object) => ({ spec: { template: { spec: { containers: [{ name: 'c', ...fields }] } } } });
const put: Send = async (where) => {
  const { body } = await server.request('GET', where);
  return server.request('PUT', `${where}?fieldManager=other-tool`, { ...body, data: { key: 'z' } });
};
const scale: Send = (where) =>
  server.request(
    'PATCH',
    `${where}/scale?fieldManager=scaler`,
    { spec: { replicas: 5 } },
    { 'content-type': 'application/merge-patch+json' },
  );

let count = 0;
/** From each edit until its correction was reported. */
const tookMs: number[] = [];

/** A new stack, applied, and watched: its Deployment is healthy. */
async function publish(options: Parameters<TestBroker['publish']>[1] = {}): Promise<{ target: StackTarget; name: string }> {
  const name = `row-${count++}`;
  const target = await broker.publish(manifests(name), options);
  agent.reconciler.offer(target);
  await broker.applied(target);
  await broker.until('healthy', () => broker.statuses.get(target.stackId)?.objectsReady === 3);
  return { target, name };
}
const drifts = (target: StackTarget) => broker.eventsOf(target).filter(({ eventType }) => eventType === 'DRIFT');
const calls = async (since: number, name: string) =>
  (await server.auditEvents({ user: identity.user, since })).filter(({ objectRef }) => objectRef?.name === name);

describe('T18 the drift matrix, an edit that changes what is ours', () => {
  it.each<[string, Kind, Send, object]>([
    [
      'merge patch of replicas',
      'Deployment',
      patch({ spec: { replicas: 5 } }),
      { managers: ['kubectl-edit'], path: '.spec.replicas' },
    ],
    [
      'strategic patch of the image',
      'Deployment',
      patch(container({ image: 'other' }), 'strategic-merge-patch'),
      { managers: ['kubectl-edit'], path: '.spec.template.spec.containers[name="c"].image' },
    ],
    [
      'an atomic list replaced',
      'Deployment',
      patch(container({ args: ['x'] }), 'strategic-merge-patch'),
      { managers: ['kubectl-edit'], path: '.spec.template.spec.containers[name="c"].args' },
    ],
    [
      'an env entry removed',
      'Deployment',
      patch(container({ env: [{ name: 'A', $patch: 'delete' }] }), 'strategic-merge-patch'),
      { managers: [], path: '.spec.template.spec.containers[name="c"].env', message: expect.stringContaining('somebody') },
    ],
    ['a label removed', 'ConfigMap', patch({ metadata: { labels: { ours: null } } }), { path: '.metadata.labels.ours' }],
    [
      'an annotation changed',
      'Deployment',
      patch({ metadata: { annotations: { note: 'theirs' } } }),
      { managers: ['kubectl-edit'], path: '.metadata.annotations.note' },
    ],
    [
      'a value taken by force by another applier',
      'ConfigMap',
      apply('ConfigMap', { data: { key: 'taken' } }, 'other-applier'),
      { managers: ['other-applier'], path: '.data.key', message: expect.stringContaining('from "a" to "taken"') },
    ],
    ['PUT of the whole object', 'ConfigMap', put, { managers: ['other-tool'], path: '.data.key' }],
    ['the scale subresource', 'Deployment', scale, { managers: ['scaler'], path: '.spec.replicas' }],
    [
      'a value of a Secret',
      'Secret',
      patch({ stringData: { token: 'stolen-value' } }),
      { managers: ['kubectl-edit'], path: '.data.token' },
    ],
  ])('%s: put back at once, with who did it', async (_, kind, edit, said) => {
    // Without a policy a scaler that is no person is left its replicas.
    const { target, name } = await publish({ options: { conflicts: ConflictPolicy.FORCE } });
    const before = await read(kind, name);
    const startedAt = performance.now();
    expect((await edit(path(kind, name))).status).toBe(200);
    await broker.until('corrected', () => drifts(target).length === 1);
    tookMs.push(performance.now() - startedAt);
    expect(tookMs.at(-1)).toBeLessThan(5000);
    const after = await read(kind, name);
    expect({ ...after, metadata: after.metadata.labels, status: 0 }).toEqual({
      ...before,
      metadata: before.metadata.labels,
      status: 0,
    });
    const [event] = drifts(target);
    expect(event).toMatchObject({ success: true, counts: { configured: 1, unchanged: 2 } });
    expect(event?.objects).toMatchObject([{ kind, name, state: 'configured', reason: 'changed', ...said }]);
    expect(event?.objects[0]?.since).toBeDefined();
    expect(JSON.stringify(event, (_key, value) => (typeof value === 'bigint' ? `${value}` : value))).not.toMatch(
      /hidden|stolen|aGlk|c3Rv/,
    );
    const told = () => broker.statuses.get(target.stackId)?.objects.find(({ state }) => state === 'configured');
    await broker.until('told in the status', () => told() !== undefined);
    expect(told()).toMatchObject(said);
  });

  it('as a rule within a second; only what the machine is busy with elsewhere may make it longer', () => {
    expect(tookMs.toSorted((a, b) => a - b)[Math.floor(tookMs.length / 2)]).toBeLessThan(1000);
  });

  it('changed, and changed again, while one object of the newest generation fails: put back each time at once', async () => {
    const { target, name } = await publish();
    const spec = '{replicas: -1, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}}}';
    const broken = `---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: ${name}-broken}\nspec: ${spec}\n`;
    const failed = await broker.publish(manifests(name) + broken, { after: target });
    agent.reconciler.offer(failed);
    await broker.until('failed', () => broker.statuses.get(target.stackId)?.phase === Phase.FAILED);
    for (const key of ['theirs', 'theirs again']) {
      expect((await patch({ data: { key } })(path('ConfigMap', name))).status).toBe(200);
      await expect.poll(async () => (await read('ConfigMap', name)).data, WAIT).toEqual({ key: 'a' });
    }
  });

  it('our own field manager used for another value: put back', async () => {
    const { target, name } = await publish();
    const { metadata } = await read('Deployment', name);
    const ours = metadata.managedFields.find(({ operation }: { operation: string }) => operation === 'Apply').manager;
    const whole = { metadata: { name, labels: metadata.labels, annotations: metadata.annotations } };
    const spec = (replicas: number) => ({
      replicas,
      selector: { matchLabels: { app: name } },
      template: {
        metadata: { labels: { app: name } },
        spec: {
          containers: [
            {
              name: 'c',
              image: 'i',
              args: ['a', 'b'],
              env: [{ name: 'A', value: 'ours' }],
              resources: { limits: { cpu: '1000m' } },
            },
          ],
        },
      },
    });
    delete whole.metadata.annotations['deployment.kubernetes.io/revision'];
    expect((await apply('Deployment', { ...whole, spec: spec(4) }, ours)(path('Deployment', name))).status).toBe(200);
    await broker.until('corrected', () => drifts(target).length === 1);
    expect((await read('Deployment', name)).spec.replicas).toBe(2);
    expect(drifts(target)[0]?.objects).toMatchObject([
      { managers: [], path: '.spec.replicas', message: expect.stringContaining('from 2 to 4') },
    ]);
  });
});

describe('T18 the drift matrix, what is not drift', () => {
  /** Edits, then waits until the agent has certainly seen the edit: a drift of another object of the kind, made after it, is corrected. */
  async function quiet(kind: Kind, edit: Send) {
    const { target, name } = await publish();
    const beacon = await publish();
    const before = await read(kind, name);
    const mark = await server.auditMark();
    expect((await edit(path(kind, name))).status).toBe(200);
    const { metadata } = await read(kind, name);
    await patch({ metadata: { labels: { ours: 'changed' } } })(path(kind === 'Secret' ? 'ConfigMap' : kind, beacon.name));
    await broker.until('beacon corrected', () => drifts(beacon.target).length === 1);
    return { target, name, before, mark, edited: metadata };
  }

  it.each<[string, Send]>([
    ['an env entry added', patch(container({ env: [{ name: 'B', value: 'theirs' }] }), 'strategic-merge-patch')],
    ['a field set that we leave to its default', patch({ spec: { minReadySeconds: 1 } })],
  ])('%s: one dry-run, once, and nothing written', async (_, edit) => {
    const { target, name, mark, edited } = await quiet('Deployment', edit);
    const verification = async () => (await calls(mark, name)).filter(({ objectRef }) => objectRef?.resource === 'deployments');
    await expect.poll(async () => (await verification()).map(({ verb }) => verb), WAIT).toEqual(['get', 'patch']);
    expect((await verification()).every(({ verb, requestURI }) => verb === 'get' || requestURI.includes('dryRun=All'))).toBe(
      true,
    );
    expect((await read('Deployment', name)).metadata.generation).toBe(edited.generation);
    await patch({ metadata: { labels: { touch: 'it' } } })(path('Deployment', name)); // told again by the watch, and known now
    const next = await publish();
    await patch({ spec: { replicas: 3 } })(path('Deployment', next.name));
    await broker.until('beacon corrected', () => drifts(next.target).length === 1);
    expect(await verification()).toHaveLength(2);
    expect(drifts(target)).toEqual([]);
  });

  it.each<[string, Kind, Send]>([
    ['a label added', 'Deployment', patch({ metadata: { labels: { theirs: 'x' } } })],
    ['a key added', 'ConfigMap', patch({ data: { theirs: 'x' } })],
    ['the same value written', 'Deployment', patch({ spec: { replicas: 2 } })],
    ['the same value applied by another applier', 'Deployment', apply('Deployment', { spec: { replicas: 2 } }, 'other-applier')],
    [
      'a status update',
      'Deployment',
      (where) => patch({ status: { conditions: [{ type: 'Told', status: 'True' }] } })(`${where}/status`),
    ],
  ])('%s: no call at all', async (_, kind, edit) => {
    const { target, name, mark, before } = await quiet(kind, edit);
    expect(await calls(mark, name)).toEqual([]);
    expect(drifts(target)).toEqual([]);
    const now = await read(kind, name);
    expect(now.metadata.generation).toBe(before.metadata.generation);
  });

  it('managedFields wiped: owned again without an event, values unchanged', async () => {
    const { target, name } = await publish();
    const before = await read('Deployment', name);
    const wiped = await patch({ metadata: { managedFields: [{}] } })(path('Deployment', name));
    expect(wiped.status).toBe(200);
    const owned = async () =>
      (await read('Deployment', name)).metadata.managedFields?.some(
        ({ operation }: { operation: string }) => operation === 'Apply',
      );
    await expect.poll(owned, WAIT).toBe(true);
    const after = await read('Deployment', name);
    expect(after.spec).toEqual(before.spec);
    expect(after.metadata.generation).toBe(before.metadata.generation);
    const beacon = await publish();
    await patch({ spec: { replicas: 3 } })(path('Deployment', beacon.name));
    await broker.until('beacon corrected', () => drifts(beacon.target).length === 1);
    expect(drifts(target)).toEqual([]);
  });
});
