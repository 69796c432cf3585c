import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StackTarget } from '../../agent/stack/target.ts';
import { type Clock, systemClock } from '../../lib/clock.ts';
import { Phase } from '../../proto/gen/brokkr/v1/content_pb.js';
import { openTestBroker, type TestBroker } from '../agent-engine.ts';
import { type Kube, useKube } from '../kube.ts';
import { type TestIdentity, unique } from '../kube-identity.ts';
import { configMap, yaml } from './object-rig.ts';

const { signal } = new AbortController();
/** Time passes five times as fast for the engine. */
const SPEED = 5;
const fast: Clock = {
  now: () => systemClock.now(),
  monotonic: () => systemClock.monotonic() * SPEED,
  sleep: (ms, stop) => systemClock.sleep(ms / SPEED, stop),
  deadline: (ms, stop) => systemClock.deadline(ms / SPEED, stop),
};
/** A grant is used within a minute of the engine's time; the rest is for the work itself on a slow machine. */
const HEALED_MS = 60_000 + 15_000 * SPEED;

const INVENTORY = { apiGroups: [''], resources: ['configmaps', 'namespaces'], verbs: ['*'] };

let server: Kube;
let namespace: string;
let broker: TestBroker;
beforeAll(async () => {
  server = await useKube();
  namespace = await server.namespace('rights');
  broker = openTestBroker(namespace, fast);
}, 240_000);
afterAll(() => broker?.[Symbol.asyncDispose]());

const secret = (name: string) =>
  `${JSON.stringify({ apiVersion: 'v1', kind: 'Secret', metadata: { name }, stringData: { password: 'do-not-tell' } })}\n`;

/** Gives an identity every verb on one kind in the namespace. */
async function grant({ subject }: Pick<TestIdentity, 'subject'>, resource: string): Promise<void> {
  const rbac = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}`;
  const name = unique('late');
  const rules = [{ apiGroups: [''], resources: [resource], verbs: ['*'] }];
  expect((await server.request('POST', `${rbac}/roles`, { metadata: { name }, rules })).status).toBe(201);
  const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name };
  const binding = { metadata: { name }, roleRef, subjects: [subject] };
  expect((await server.request('POST', `${rbac}/rolebindings`, binding)).status).toBe(201);
}

const endpoint = (token: string) => ({ url: server.url, caData: server.caData, token });
const failures = (target: StackTarget) => broker.eventsOf(target).filter(({ success }) => !success);
const live = async (plural: string, name: string) =>
  (await server.request('GET', `/api/v1/namespaces/${namespace}/${plural}/${name}`)).status;

describe('T37 rights that are missing', () => {
  it('T37 for one kind: it alone fails, by name of verb and resource, and is healed within a minute of the grant', {
    timeout: 240_000,
  }, async () => {
    const identity = await server.identity('one-kind', { namespace, rules: [INVENTORY] });
    await using agent = await broker.start(endpoint(identity.token), { namespace, clusterWide: false });
    const target = await broker.publish(yaml(configMap('beside'), secret('locked')));
    agent.reconciler.offer(target);
    await broker.until('failed four times', () => failures(target).length >= 4, 300_000); // the wait is at its longest now
    expect(await live('configmaps', 'beside')).toBe(200);
    for (const event of failures(target)) {
      expect(event.objects).toMatchObject([{ kind: 'Secret', name: 'locked', reason: 'forbidden' }]);
      expect(event.message).toMatch(/cannot patch resource \\?"secrets\\?"/);
      expect(JSON.stringify(event.objects)).not.toContain('do-not-tell');
    }
    const cannotSee = `secrets in ${namespace}`;
    const status = () => broker.statuses.get(target.stackId)?.message ?? '';
    await broker.until('told what is not seen', () => status().includes(cannotSee));
    await grant(identity, 'secrets');
    const grantedAt = fast.monotonic();
    await broker.until('healed', () => broker.statuses.get(target.stackId)?.phase === Phase.APPLIED, HEALED_MS);
    expect(fast.monotonic() - grantedAt).toBeLessThan(HEALED_MS);
    expect(await live('secrets', 'locked')).toBe(200);

    await broker.until('watched', () => !status().includes(cannotSee), 120_000);
    const mark = await server.auditMark();
    await systemClock.sleep(10_000, signal); // 50 s of the engine's time: longer than the longest wait
    const calls = await server.auditEvents({ user: identity.user, since: mark });
    expect(calls.filter(({ verb }) => verb !== 'watch')).toEqual([]);
  });

  it('T37 to delete: the object is kept, and goes within a minute of the grant', { timeout: 240_000 }, async () => {
    const verbs = ['get', 'list', 'watch', 'create', 'patch'];
    const rules = [INVENTORY, { apiGroups: [''], resources: ['secrets'], verbs }];
    const identity = await server.identity('no-delete', { namespace, rules });
    await using agent = await broker.start(endpoint(identity.token), { namespace, clusterWide: false });
    const first = await broker.publish(yaml(configMap('stays'), secret('goes')));
    agent.reconciler.offer(first);
    await broker.applied(first);
    const second = await broker.publish(configMap('stays'), { after: first });
    const mark = await server.auditMark();
    agent.reconciler.offer(second);
    await broker.applied(second);
    expect(broker.statuses.get(second.stackId)?.objects).toMatchObject([{ name: 'goes', state: 'kept', reason: 'forbidden' }]);
    const tries = async () => (await server.auditEvents({ user: identity.user, since: mark, verbs: ['delete'] })).length;
    await expect.poll(tries, { timeout: 60_000 }).toBeGreaterThanOrEqual(4); // the wait is at its longest now
    await grant(identity, 'secrets');
    const grantedAt = fast.monotonic();
    await expect.poll(() => live('secrets', 'goes'), { timeout: HEALED_MS / SPEED }).toBe(404);
    expect(fast.monotonic() - grantedAt).toBeLessThan(HEALED_MS);
  });

  it('T37 of a service account a stack is applied as: that stack alone fails, and is healed by a grant', {
    timeout: 240_000,
  }, async () => {
    const identity = await server.identity('impersonating', { namespace, clusterAdmin: true });
    const account = await server.identity('nobody', { namespace });
    await using agent = await broker.start(endpoint(identity.token), { namespace });
    const options = { impersonate: `${namespace}/${account.subject.name}` };
    const limited = await broker.publish(configMap('as-nobody'), { options });
    const other = await broker.publish(configMap('as-agent'));
    agent.reconciler.offer(limited);
    agent.reconciler.offer(other);
    await broker.applied(other);
    await broker.until('failed', () => failures(limited).length > 0);
    expect(failures(limited)[0]?.message).toContain(account.user);
    expect(failures(limited)[0]?.message).toMatch(/cannot patch resource \\?"configmaps\\?"/);
    expect(await live('configmaps', 'as-nobody')).toBe(404);
    await grant(account, 'configmaps');
    await broker.until('healed', () => broker.statuses.get(limited.stackId)?.phase === Phase.APPLIED, HEALED_MS);
    expect(await live('configmaps', 'as-nobody')).toBe(200);
  });

  it('T37 outside of one namespace: a Role is enough, and nothing is asked of the whole cluster', {
    timeout: 120_000,
  }, async () => {
    const rules = [INVENTORY, { apiGroups: [''], resources: ['secrets'], verbs: ['*'] }];
    const identity = await server.identity('namespaced', { namespace, rules });
    const mark = await server.auditMark();
    await using agent = await broker.start(endpoint(identity.token), { namespace, clusterWide: false });
    const target = await broker.publish(yaml(configMap('namespaced'), secret('namespaced')));
    agent.reconciler.offer(target);
    await broker.applied(target);
    const path = `/api/v1/namespaces/${namespace}/configmaps/namespaced`;
    await server.request('PATCH', path, { data: { key: 'edited' } }, { 'content-type': 'application/merge-patch+json' });
    await broker.until('corrected', () => broker.eventsOf(target).some(({ eventType }) => eventType === 'DRIFT'), 60_000);
    const calls = await server.auditEvents({ user: identity.user, since: mark });
    const outside = calls.filter(({ objectRef }) => objectRef?.resource !== undefined && objectRef.namespace !== namespace);
    expect(outside.map(({ requestURI }) => requestURI)).toEqual([]);
    expect(calls.filter(({ responseStatus }) => responseStatus?.code === 403)).toEqual([]);
  });
});
