import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StackTarget } from '../../agent/stack/target.ts';
import { systemClock } from '../../lib/clock.ts';
import { DriftMode } from '../../proto/gen/brokkr/v1/content_pb.js';
import type { TestAgent, TestBroker } from '../agent-engine.ts';
import { type EngineRig, openEngineRig } from '../engine-rig.ts';
import type { Kube as TestKube } from '../kube.ts';
import type { TestIdentity } from '../kube-identity.ts';

/** Of `expect.poll`, for a busy machine. */
const WAIT = { timeout: 20_000 };

let server: TestKube;
let identity: TestIdentity;
let namespace: string;
let broker: TestBroker;
let agent: TestAgent;
let start: EngineRig['start'];

beforeAll(async () => {
  ({ server, identity, namespace, broker, start } = await openEngineRig('t19'));
  agent = await start();
});
afterAll(async () => {
  await agent?.stop();
  await broker?.[Symbol.asyncDispose]();
});

const configMap = (name: string, value = 'a', mark = '') =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${name}\n  annotations: {${mark}}\ndata: {key: ${value}}\n---\n`;
const path = (name: string) => `/api/v1/namespaces/${namespace}/configmaps/${name}`;
const read = async (name: string) => (await server.request('GET', path(name))).body;
const edit = async (name: string, body: object, manager = 'kubectl-edit') => {
  const type = { 'content-type': 'application/merge-patch+json' };
  expect((await server.request('PATCH', `${path(name)}?fieldManager=${manager}`, body, type)).status).toBe(200);
};
const value = async (name: string) => (await read(name)).data?.key;

let count = 0;
const unique = () => `object-${count++}`;

async function publish(text: string, settings: Parameters<TestBroker['publish']>[1] = {}): Promise<StackTarget> {
  const target = await broker.publish(text, settings);
  agent.reconciler.offer(target);
  await broker.applied(target);
  await broker.until('seen', () => broker.transitions.some(({ stackId }) => stackId === target.stackId));
  return target;
}
const drifts = (target: StackTarget) => broker.eventsOf(target).filter(({ eventType }) => eventType === 'DRIFT');
const drifted = (target: StackTarget) =>
  (broker.statuses.get(target.stackId)?.objects ?? []).filter(({ state }) => state === 'drifted');

/** Resolves once the agent has certainly seen everything written before: a drift made after it was corrected. */
async function seen(): Promise<void> {
  const name = unique();
  const target = await publish(configMap(name));
  await edit(name, { data: { key: 'beacon' } });
  await broker.until('beacon corrected', () => drifts(target).length === 1);
}
const calls = async (since: number, name: string) =>
  (await server.auditEvents({ user: identity.user, since }))
    .filter(({ objectRef }) => objectRef?.name === name)
    .map(({ verb, requestURI }) => (requestURI.includes('dryRun') ? `dry-run ${verb}` : verb));
const writes = async (since: number, name: string) => (await calls(since, name)).filter((verb) => verb !== 'get');

describe('T19 drift in the mode detect', () => {
  it('one event and the status say who changed what; nothing is written, until it is put back by hand', async () => {
    const name = unique();
    const target = await publish(configMap(name), { options: { drift: DriftMode.DETECT } });
    const mark = await server.auditMark();
    await edit(name, { data: { key: 'b' } });
    await broker.until('detected', () => drifted(target).length === 1);
    const said = { kind: 'ConfigMap', name, state: 'drifted', reason: 'changed', managers: ['kubectl-edit'], path: '.data.key' };
    expect(drifted(target)).toMatchObject([{ ...said, message: expect.stringContaining('from "a" to "b"'), since: {} }]);
    expect(drifts(target)).toMatchObject([{ success: true, counts: { drifted: 1 }, objects: [said] }]);
    await edit(name, { data: { key: 'c' } });
    await broker.until('told anew', () => drifted(target)[0]?.message.includes('to "c"') === true);
    expect(drifts(target)).toHaveLength(1);
    await edit(name, { data: { key: 'a' } });
    await broker.until('over', () => drifted(target).length === 0);
    expect(await writes(mark, name)).toEqual([]);
    expect(drifts(target)).toHaveLength(1);
    await edit(name, { data: { key: 'b' } });
    await broker.until('detected again', () => drifts(target).length === 2);
  });

  it('a field that an apply would leave to its manager is none of ours', async () => {
    const [yielded, ignored] = [unique(), unique()];
    const ignore = [{ group: '', kind: 'ConfigMap', namespace, name: ignored, paths: ['/data/key'] }];
    const options = { drift: DriftMode.DETECT, yieldManagers: ['some-*'], ignore };
    const target = await publish(configMap(yielded) + configMap(ignored), { options });
    await edit(yielded, { data: { key: 'b' } }, 'some-operator');
    await edit(ignored, { data: { key: 'b' } });
    await seen();
    await edit(yielded, { metadata: { annotations: { 'brokkr.io/owner': null } } });
    await broker.until('detected', () => drifted(target).length === 1);
    expect(drifted(target)).toMatchObject([{ name: yielded, path: '.metadata.annotations' }]);
    expect(drifted(target)[0]?.message).not.toContain('.data.key');
  });

  it('a deleted object stays away until a new generation changes it', async () => {
    const name = unique();
    const options = { drift: DriftMode.DETECT };
    const target = await publish(configMap(name) + configMap(`${name}-other`), { options });
    await server.request('DELETE', path(name));
    await broker.until('detected', () => drifted(target).length === 1);
    expect(drifted(target)).toMatchObject([{ name, reason: 'deleted' }]);
    const other = await publish(configMap(name) + configMap(`${name}-other`, 'b'), { after: target, options });
    expect(await read(name)).toMatchObject({ code: 404 });
    await publish(configMap(name, 'new') + configMap(`${name}-other`, 'b'), { after: other, options });
    expect(await value(name)).toBe('new');
    await broker.until('over', () => drifted(target).length === 0);
  });

  it('what was detected is corrected once a new generation says so', async () => {
    const name = unique();
    const target = await publish(configMap(name), { options: { drift: DriftMode.DETECT } });
    await edit(name, { data: { key: 'b' } });
    await broker.until('detected', () => drifted(target).length === 1);
    await publish(configMap(name), { after: target });
    await expect.poll(() => value(name), WAIT).toBe('a');
    await broker.until('over', () => drifted(target).length === 0);
  });
});

describe('T19 the other modes', () => {
  it('off: no call at all, and no event; a new generation is applied', async () => {
    const name = unique();
    const target = await publish(configMap(name), { options: { drift: DriftMode.OFF } });
    const mark = await server.auditMark();
    await edit(name, { data: { key: 'b' } });
    await seen();
    expect(await calls(mark, name)).toEqual([]);
    expect(drifts(target)).toEqual([]);
    expect(await value(name)).toBe('b');
    await publish(configMap(name, 'c'), { after: target, options: { drift: DriftMode.OFF } });
    expect(await value(name)).toBe('c');
  });

  it('a mark on the object goes before the rules, the first rule that fits before the stack', async () => {
    const [marked, ruled, rest] = [unique(), unique(), unique()];
    const text = configMap(marked, 'a', 'brokkr.io/drift: correct') + configMap(ruled) + configMap(rest);
    const rule = (name: string, mode: DriftMode) => ({ group: '', kind: 'ConfigMap', namespace, name, mode });
    const driftRules = [rule(marked, DriftMode.OFF), rule(ruled, DriftMode.DETECT), rule(ruled, DriftMode.CORRECT)];
    const target = await publish(text, { options: { drift: DriftMode.OFF, driftRules } });
    for (const name of [rest, marked, ruled]) await edit(name, { data: { key: 'b' } });
    await broker.until('detected', () => drifted(target).length === 1);
    await expect.poll(() => value(marked), WAIT).toBe('a');
    expect(drifted(target)).toMatchObject([{ name: ruled }]);
    expect([await value(ruled), await value(rest)]).toEqual(['b', 'b']);
  });

  it('a paused stack detects nothing; what was changed meanwhile is corrected afterwards', async () => {
    const name = unique();
    const running = await publish(configMap(name));
    const paused = await broker.publish(configMap(name), { after: running, options: { paused: true } });
    agent.reconciler.offer(paused);
    await broker.until('paused', () => broker.statuses.get(paused.stackId)?.message.startsWith('paused') === true);
    const mark = await server.auditMark();
    await edit(name, { data: { key: 'b' } });
    await seen();
    expect(await calls(mark, name)).toEqual([]);
    expect(drifted(paused)).toEqual([]);
    await publish(configMap(name), { after: paused });
    await expect.poll(() => value(name), WAIT).toBe('a');
  });

  it('strict: what people added goes, what controllers added stays', async () => {
    const name = unique();
    const target = await publish(configMap(name), { options: { drift: DriftMode.STRICT } });
    await edit(name, { metadata: { labels: { controller: 'x' } } }, 'some-controller');
    await edit(name, { metadata: { labels: { human: 'x' } }, data: { more: 'y' } }, 'kubectl-label');
    await broker.until('removed', () => drifts(target).length === 1);
    const { metadata, data } = await read(name);
    expect(data).toEqual({ key: 'a' });
    expect(metadata.labels).toMatchObject({ controller: 'x', 'brokkr.io/stack': expect.any(String) });
    expect(metadata.labels).not.toHaveProperty('human');
    expect(drifts(target)[0]?.objects).toMatchObject([{ reason: 'added', managers: ['kubectl-label'] }]);
    await edit(name, { data: { key: 'b' } });
    await broker.until('corrected', () => drifts(target).length === 2);
    expect(await value(name)).toBe('a');
  });
});

describe('verification', () => {
  /** Another value under our own field manager within the second of our own write, where nothing in the metadata tells. */
  async function hiddenDrift(options = {}): Promise<{ readonly target: StackTarget; readonly name: string }> {
    for (;;) {
      const name = unique();
      const target = await publish(configMap(name), { options });
      const entry = ({ metadata }: { metadata: { managedFields: { manager: string; time: string }[] } }) =>
        metadata.managedFields[0];
      const { metadata, ...body } = await read(name);
      const { labels, annotations } = metadata;
      const before = entry({ metadata });
      const wanted = { ...body, metadata: { name, labels, annotations }, data: { key: 'hidden' } };
      const query = `?fieldManager=${encodeURIComponent(before?.manager ?? '')}`;
      await server.request('PATCH', path(name) + query, wanted, { 'content-type': 'application/apply-patch+yaml' });
      if (entry(await read(name))?.time !== before?.time) continue; // the second was over
      await seen();
      expect(await value(name)).toBe('hidden');
      await systemClock.sleep(1000, new AbortController().signal); // the server counts whole seconds
      return { target, name };
    }
  }

  it('finds on demand what no fingerprint shows, and corrects it', async () => {
    const { target, name } = await hiddenDrift();
    agent.reconciler.verify(target.stackId);
    await broker.until('corrected', () => drifts(target).length === 1);
    expect(await value(name)).toBe('a');
    expect(drifts(target)[0]?.objects).toMatchObject([{ name, path: '.data.key' }]);
  });

  it('in the mode detect reports it', async () => {
    const { target, name } = await hiddenDrift({ drift: DriftMode.DETECT });
    agent.reconciler.verify(target.stackId);
    await broker.until('detected', () => drifted(target).length === 1);
    expect(await value(name)).toBe('hidden');
  });

  it('asks for the version alone of what nobody wrote, and by dry-run about the rest', async () => {
    const [untouched, touched] = [unique(), unique()];
    const target = await publish(configMap(untouched) + configMap(touched));
    await edit(touched, { data: { theirs: 'x' } });
    await seen();
    const mark = await server.auditMark();
    agent.reconciler.verify(target.stackId);
    await expect.poll(() => calls(mark, touched), WAIT).toEqual(['get', 'dry-run patch']);
    expect(await calls(mark, untouched)).toEqual(['get']);
    agent.reconciler.verify(target.stackId);
    await expect.poll(async () => (await calls(mark, untouched)).length, WAIT).toBe(2);
    await seen();
    expect(await calls(mark, touched)).toEqual(['get', 'dry-run patch', 'get']);
    expect(drifts(target)).toEqual([]);
  });

  it('passes over what it has no content for, and counts it', async () => {
    const name = unique();
    const target = await publish(configMap(name));
    await edit(name, { data: { theirs: 'x' } });
    await seen();
    const { skipped } = agent.reconciler.verification;
    broker.forgetContent();
    agent.reconciler.verify(target.stackId);
    await expect.poll(() => agent.reconciler.verification.skipped, WAIT).toBe(skipped + 1);
    expect(drifts(target)).toEqual([]);
  });

  it('comes round by itself, also in a restarted agent that asks for the target it needs', async () => {
    const { target, name } = await hiddenDrift();
    await agent.stop();
    broker.needed.length = 0;
    agent = await start({ verifyIntervalMs: 1500 });
    await broker.until('asked for the target', () => broker.needed.includes(target.stackId));
    agent.reconciler.offer(target);
    await broker.until('corrected', () => drifts(target).length === 1);
    expect(await value(name)).toBe('a');
  });
});

describe('many objects at once', () => {
  it('a burst of deletions is corrected with a handful of events and nothing is left out', async () => {
    const names = Array.from({ length: 400 }, () => unique());
    const target = await publish(names.map((name) => configMap(name)).join(''));
    const { short } = { short: (await read(names[0] ?? '')).metadata.labels['brokkr.io/stack'] };
    const selector = encodeURIComponent(`brokkr.io/stack=${short}`);
    await server.request('DELETE', `/api/v1/namespaces/${namespace}/configmaps?labelSelector=${selector}`);
    const created = () => drifts(target).reduce((sum, { counts }) => sum + (counts.created ?? 0), 0);
    await broker.until('all created again', () => created() === names.length, 60_000);
    expect(drifts(target).length).toBeLessThan(20);
  });
});
