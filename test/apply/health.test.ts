import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StackTarget } from '../../agent/stack/target.ts';
import { systemClock } from '../../lib/clock.ts';
import { Health } from '../../proto/gen/brokkr/v1/content_pb.js';
import { openTestBroker, type TestAgent, type TestBroker } from '../agent-engine.ts';
import { type OwnKube, startOwnKube } from '../kube.ts';
import type { TestIdentity } from '../kube-identity.ts';

/** A server without controllers: nobody but the test writes a status. */
let server: OwnKube;
let identity: TestIdentity;
let namespace: string;
let broker: TestBroker;
let agent: TestAgent;

const start = () => broker.start({ url: server.url, caData: server.caData, token: identity.token }, { namespace });

beforeAll(async () => {
  server = await startOwnKube();
  namespace = await server.namespace('health');
  identity = await server.identity('health', { clusterAdmin: true, namespace });
  broker = openTestBroker(namespace);
  agent = await start();
});
afterAll(async () => {
  await agent?.[Symbol.asyncDispose]();
  await broker?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

const inNamespace = (group: string, rest: string) => `/apis/${group}/namespaces/${namespace}/${rest}`;

/** Writes a status, as the controller of the kind would. */
async function writeStatus(path: string, status: object): Promise<void> {
  const headers = { 'content-type': 'application/merge-patch+json' };
  const answer = await server.request('PATCH', `${path}/status`, { status }, headers);
  expect(answer, JSON.stringify(answer.body)).toMatchObject({ status: 200 });
}

/** Waits until the newest report of a stack has this health, and among its objects one of this reason; that object. */
async function reported(target: StackTarget, health: Health, reason?: string) {
  const find = () => {
    const status = broker.statuses.get(target.stackId);
    if (status?.health !== health) return undefined;
    return reason === undefined ? status : status.objects.find((object) => object.reason === reason);
  };
  await broker.until(`${Health[health]} ${reason ?? ''}`, () => find() !== undefined);
  return find();
}

async function apply(text: string, settings: Parameters<TestBroker['publish']>[1] = {}): Promise<StackTarget> {
  const target = await broker.publish(text, settings);
  agent.reconciler.offer(target);
  await broker.applied(target);
  return target;
}

const deployment = (name: string, replicas: number) => `apiVersion: apps/v1
kind: Deployment
metadata: {name: ${name}}
spec:
  replicas: ${replicas}
  selector: {matchLabels: {app: ${name}}}
  template: {metadata: {labels: {app: ${name}}}, spec: {containers: [{name: a, image: a}]}}
`;
const complete = (replicas: number, observedGeneration: number) => ({
  ...{ observedGeneration, replicas, readyReplicas: replicas, updatedReplicas: replicas, availableReplicas: replicas },
});

describe('T46 a Deployment', () => {
  it('T46 is failing when its controller gives up, and healthy when it recovers', async () => {
    const target = await apply(deployment('stuck', 1));
    await reported(target, Health.DEGRADED, 'LessUpdated');
    const path = inNamespace('apps/v1', 'deployments/stuck');
    const stalled = { type: 'Progressing', status: 'False', reason: 'ProgressDeadlineExceeded', message: 'it has timed out' };
    await writeStatus(path, { observedGeneration: 1, conditions: [stalled] });
    const object = await reported(target, Health.FAILING, 'ProgressDeadlineExceeded');
    expect(object).toMatchObject({ state: 'not_ready', name: 'stuck', message: 'it has timed out', since: expect.anything() });
    await writeStatus(path, { ...complete(1, 1), conditions: [] });
    await reported(target, Health.HEALTHY);
  });

  it('T46 is not ready while its controller has not seen the latest generation', async () => {
    const target = await apply(deployment('lag', 1));
    const path = inNamespace('apps/v1', 'deployments/lag');
    await writeStatus(path, complete(1, 1));
    await reported(target, Health.HEALTHY);
    const next = await apply(deployment('lag', 2), { after: target });
    await reported(next, Health.DEGRADED, 'NotObserved');
    await writeStatus(path, complete(2, 2));
    await reported(next, Health.HEALTHY);
  });

  it('T46 that is paused is shown as such', async () => {
    const target = await apply(deployment('paused', 1).replace('replicas: 1', 'replicas: 1\n  paused: true'));
    await writeStatus(inNamespace('apps/v1', 'deployments/paused'), { observedGeneration: 1 });
    await reported(target, Health.DEGRADED, 'Paused');
  });
});

describe('T46 a Job', () => {
  const job = (name: string) => `apiVersion: batch/v1
kind: Job
metadata: {name: ${name}}
spec:
  ttlSecondsAfterFinished: 0
  template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}
`;
  const path = (name: string) => inNamespace('batch/v1', `jobs/${name}`);
  const finish = async (name: string) => {
    const at = (second: number) => `2030-01-01T00:00:0${second}Z`;
    const condition = (type: string) => ({ type, status: 'True', lastTransitionTime: at(2), lastProbeTime: at(2) });
    const conditions = [condition('SuccessCriteriaMet'), condition('Complete')];
    await writeStatus(path(name), { startTime: at(1), completionTime: at(2), succeeded: 1, conditions });
  };
  /** What the time to live does. */
  const expire = async (name: string) => {
    expect(await server.request('DELETE', `${path(name)}?propagationPolicy=Background`)).toMatchObject({ status: 200 });
  };
  const applies = async (since: number) =>
    (await server.auditEvents({ user: identity.user, since, verbs: ['patch'], resource: 'jobs' })).length;

  it('T46 that was complete and is deleted by its time to live is not run again, also after a restart, and the status says so', async () => {
    const target = await apply(job('once'));
    await reported(target, Health.DEGRADED, 'NotStarted');
    await finish('once');
    await reported(target, Health.HEALTHY);
    const mark = await server.auditMark();
    await expire('once');
    const object = await reported(target, Health.HEALTHY, 'Complete');
    expect(object).toMatchObject({
      name: 'once',
      state: 'finished',
      message: 'the job was complete and is gone; it is not run again',
    });
    await agent.stop();
    broker.statuses.delete(target.stackId);
    agent = await start();
    agent.reconciler.offer(target);
    await reported(target, Health.HEALTHY, 'Complete');
    expect(await applies(mark)).toBe(0);
    expect((await server.request('GET', path('once'))).status).toBe(404);
    const changed = await apply(job('once').replace('image: a', 'image: b'), { after: target });
    await reported(changed, Health.DEGRADED, 'NotStarted');
    expect((await server.request('GET', path('once'))).status).toBe(200);
  });

  it('T46 that is deleted in the very moment it is complete is not run again', async () => {
    const target = await apply(job('short'));
    const mark = await server.auditMark();
    await finish('short');
    await expire('short');
    await reported(target, Health.HEALTHY, 'Complete');
    expect(await applies(mark)).toBe(0);
  });

  it('T46 that was deleted before it was complete is run again', async () => {
    const target = await apply(job('early'));
    const uid = async () => (await server.request('GET', path('early'))).body.metadata?.uid;
    const first = await uid();
    await expire('early');
    await expect.poll(uid, { timeout: 20_000 }).toSatisfy((now) => now !== undefined && now !== first);
    await reported(target, Health.DEGRADED, 'NotStarted');
  });
});

describe('T46 a custom resource judged by a CEL rule', () => {
  const group = 'health.example.org';
  const definition = (plural: string, kind: string) => `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ${plural}.${group}}
spec:
  group: ${group}
  scope: Namespaced
  names: {plural: ${plural}, singular: ${kind.toLowerCase()}, kind: ${kind}}
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`;
  const resource = (kind: string, name: string) => `apiVersion: ${group}/v1\nkind: ${kind}\nmetadata: {name: ${name}}\n`;
  const establish = (plural: string) =>
    expect
      .poll(() => server.request('GET', `/apis/${group}/v1/${plural}`).then(({ status }) => status), { timeout: 20_000 })
      .toBe(200);

  it('T46 follows current, progressing, failed and message, and asks again when the rule changes', async () => {
    const rule = {
      ...{ group, kind: 'Backup', current: 'object.status.phase == "Done"' },
      ...{ failed: 'object.status.phase == "Broken"', message: '"phase " + object.status.phase' },
    };
    await apply(definition('backups', 'Backup'));
    await establish('backups');
    const target = await apply(resource('Backup', 'nightly'), { options: { healthRules: [rule] } });
    await reported(target, Health.DEGRADED, 'InProgress');
    const path = inNamespace(`${group}/v1`, 'backups/nightly');
    await writeStatus(path, { phase: 'Broken' });
    expect(await reported(target, Health.FAILING, 'Failed')).toMatchObject({ message: 'phase Broken' });
    await writeStatus(path, { phase: 'Done' });
    await reported(target, Health.HEALTHY);
    const stricter = { ...rule, current: 'object.status.phase == "Done" && object.status.verified' };
    const next = await apply(resource('Backup', 'nightly'), { after: target, options: { healthRules: [stricter] } });
    await reported(next, Health.DEGRADED, 'InProgress');
    const wrong = await apply(resource('Backup', 'nightly'), {
      after: next,
      options: { healthRules: [{ ...rule, current: 'object.' }] },
    });
    expect(await reported(wrong, Health.UNKNOWN, 'HealthRuleInvalid')).toMatchObject({
      message: expect.stringContaining('column 8'),
    });
    const without = await apply(resource('Backup', 'nightly'), { after: wrong });
    await reported(without, Health.HEALTHY);
  });

  it('T46 that never ends is killed at 50 ms and disabled until its text changes, and nothing else waits for it', async () => {
    await apply(definition('bombs', 'Bomb'));
    await establish('bombs');
    const bomb = { group, kind: 'Bomb', current: 'object.list.all(a, object.list.all(b, a == b || a > 0))' };
    const list = `list: [${Array(5000).fill(1).join(',')}]\n`;
    const texts = ['one', 'two', 'three'].map((name) => `${resource('Bomb', name)}${list}`);
    const target = await apply(texts.join('---\n'), { options: { healthRules: [bomb] } });
    const object = await reported(target, Health.UNKNOWN, 'HealthRuleDisabled');
    expect(object).toMatchObject({
      state: 'not_ready',
      message: 'the health rule took longer than 50 ms and is not used until its text changes',
    });
    await broker.until('all three are told', () => broker.statuses.get(target.stackId)?.objects.length === 3);
    const judged = agent.reconciler.stacks().find(({ stackId }) => stackId === target.stackId);
    expect(judged?.objects.map(({ reason }) => reason)).toEqual(Array(3).fill('HealthRuleDisabled'));
    const question = { rule: { progressing: '', failed: '', message: '', ...bomb }, object: { list: Array(5000).fill(1) } };
    const before = systemClock.monotonic();
    expect(await broker.yaml.health([question], new AbortController().signal)).toEqual([{ kind: 'killed' }]);
    const ms = systemClock.monotonic() - before;
    expect(ms).toBeGreaterThanOrEqual(50);
    expect(ms).toBeLessThan(2000); // the whole of it would take much longer
    const next = await apply(texts.join('---\n'), {
      after: target,
      options: { healthRules: [{ ...bomb, current: 'object.list.size() > 0' }] },
    });
    await reported(next, Health.HEALTHY);
  });
});
