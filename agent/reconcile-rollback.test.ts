import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#lib/clock.ts';
import { Health, OnFailure, Phase } from '#proto/brokkr/v1/content_pb.js';
import type { TestAgent, TestBroker } from '../test/agent-engine.ts';
import { openEngineRig } from '../test/engine-rig.ts';
import { startKubeProxy } from '../test/http-proxy.ts';
import type { Kube as TestKube } from '../test/kube.ts';
import type { TestIdentity } from '../test/kube-identity.ts';
import { HeldState } from './session/held.ts';
import type { HeldStack, StackTarget } from './stack/target.ts';

let server: TestKube;
let identity: TestIdentity;
let namespace: string;
let broker: TestBroker;

beforeAll(async () => {
  ({ server, identity, namespace, broker } = await openEngineRig('rollback'));
});
afterAll(() => broker?.[Symbol.asyncDispose]());

const start = () => broker.start({ url: server.url, caData: server.caData, token: identity.token }, { namespace });
const yaml = (...documents: string[]) => documents.join('---\n');
const configMap = (name: string, value = 'a', labels = '') =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}, labels: {${labels}}}\ndata:\n  key: ${value}\n`;
/** Never healthy with the outcome `unready`. */
const deployment = (name: string, image: string, outcome: string) => `apiVersion: apps/v1
kind: Deployment
metadata: {name: ${name}}
spec:
  progressDeadlineSeconds: 1
  selector: {matchLabels: {app: ${name}}}
  template:
    metadata: {labels: {app: ${name}}, annotations: {brokkr.test/outcome: ${outcome}}}
    spec: {containers: [{name: c, image: ${image}}]}
`;
/** An update that changes a field that cannot be changed. */
const service = (name: string, ip: string) =>
  `apiVersion: v1\nkind: Service\nmetadata: {name: ${name}}\nspec: {clusterIP: ${ip}, ports: [{port: 80}]}\n`;
const path = (name: string) => `/api/v1/namespaces/${namespace}/configmaps/${name}`;
const value = async (name: string) => (await server.request('GET', path(name))).body.data?.key;
const exists = async (name: string) => (await server.request('GET', path(name))).status === 200;
const rollback = { onFailure: OnFailure.ROLLBACK, failureDeadlineSeconds: 2 };
const publish = (text: string, after?: StackTarget, options: object = rollback) =>
  broker.publish(text, { ...(after && { after }), options });
const statusOf = ({ stackId }: StackTarget) => broker.statuses.get(stackId);
const kinds = (target: StackTarget) => broker.eventsOf(target).map(({ eventType, generation }) => `${eventType} ${generation}`);

async function good(agent: TestAgent, target: StackTarget): Promise<void> {
  agent.reconciler.offer(target);
  await broker.until('good', () => statusOf(target)?.goodGeneration === target.generation);
}

async function rolledBack(agent: TestAgent, target: StackTarget): Promise<void> {
  agent.reconciler.offer(target);
  await broker.until('rolled back', () => statusOf(target)?.phase === Phase.ROLLED_BACK);
}

/** Lets the server deny every object with a label, from when this returns on. */
async function deny(label: string): Promise<void> {
  const name = `deny-${label}-${namespace}`;
  const api = '/apis/admissionregistration.k8s.io/v1';
  const selector = { matchLabels: { 'kubernetes.io/metadata.name': namespace } };
  await server.request('POST', `${api}/validatingadmissionpolicies`, {
    metadata: { name },
    spec: {
      failurePolicy: 'Fail',
      matchConstraints: {
        namespaceSelector: selector,
        objectSelector: { matchExpressions: [{ key: label, operator: 'Exists' }] },
        resourceRules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE', 'UPDATE'], resources: ['configmaps'] }],
      },
      validations: [{ expression: 'false', message: `${label} is not for here` }],
    },
  });
  await server.request('POST', `${api}/validatingadmissionpolicybindings`, {
    metadata: { name },
    spec: { policyName: name, validationActions: ['Deny'] },
  });
  const probe = { metadata: { name: 'probe', labels: { [label]: 'x' } } };
  for (;;) {
    const { status } = await server.request('POST', `/api/v1/namespaces/${namespace}/configmaps?dryRun=All`, probe);
    if (status === 422) return;
    await systemClock.sleep(50, new AbortController().signal);
  }
}

describe('a generation that fails under the policy rollback', () => {
  it('refused as a whole: the good one is applied again and the status and the event say why', async () => {
    await using agent = await start();
    const first = await publish(yaml(service('refused', 'None'), configMap('refused')));
    await good(agent, first);
    const second = await publish(yaml(service('refused', '10.0.0.98'), configMap('refused', 'b')), first);
    await rolledBack(agent, second);
    expect(statusOf(second)).toMatchObject({
      receivedGeneration: 2n,
      appliedGeneration: 1n,
      refusedGeneration: 2n,
      goodGeneration: 1n,
    });
    expect(statusOf(second)?.message).toMatch(/^generation 2 failed: Service .*refused: .*; 1 is applied again$/);
    expect(await value('refused')).toBe('a');
    expect(kinds(second)).toEqual(['APPLY 1', 'VALIDATE 2', 'ROLLBACK 1']);
    const event = broker.eventsOf(second).at(-1);
    expect(event).toMatchObject({ success: true, deploymentObjectId: first.deploymentObjectId });
    expect(event?.message).toMatch(/^generation 2 failed: .*; generation 1: 2 unchanged$/);
  });

  it('denied halfway: what it changed is changed back, what it added is removed, and drift goes back to the good one', async () => {
    await using agent = await start();
    await deny('unwanted');
    const first = await publish(yaml(configMap('half'), configMap('half-gone')));
    await good(agent, first);
    const second = await publish(
      yaml(configMap('half', 'b'), configMap('half-added'), configMap('half-denied', 'b', 'unwanted: x')),
      first,
    );
    await rolledBack(agent, second);
    expect(statusOf(second)?.message).toContain('unwanted is not for here');
    expect([await value('half'), await exists('half-added'), await exists('half-denied'), await exists('half-gone')]).toEqual([
      'a',
      false,
      false,
      true,
    ]);
    await server.request('PATCH', path('half'), { data: { key: 'edited' } }, { 'content-type': 'application/merge-patch+json' });
    await broker.until('corrected', () => kinds(second).includes('DRIFT 1'));
    expect(await value('half')).toBe('a');
    await broker.until('told', () => statusOf(second)?.phase === Phase.ROLLED_BACK);
    expect(kinds(second)).toEqual(['APPLY 1', 'APPLY 2', 'ROLLBACK 1', 'DRIFT 1']);
  });

  it('not healthy in time: goes back although everything was applied', async () => {
    await using agent = await start();
    const first = await publish(deployment('late', 'one', 'ready'));
    await good(agent, first);
    const second = await publish(deployment('late', 'two', 'unready'), first);
    await rolledBack(agent, second);
    expect(statusOf(second)?.message).toMatch(
      /^generation 2 failed: not healthy within 2 s: Deployment .*late: .+; 1 is applied/,
    );
    const live = await server.request('GET', `/apis/apps/v1/namespaces/${namespace}/deployments/late`);
    expect(live.body.spec.template.spec.containers[0].image).toBe('one');
    await broker.until('healthy', () => statusOf(second)?.health === Health.HEALTHY);
    const reported = broker.transitions.filter(({ stackId }) => stackId === first.stackId).at(-1);
    expect(reported?.deploymentObjectId).toBe(first.deploymentObjectId);
  });

  it('stays where it is when no generation was good before, or the policy is hold', async () => {
    await using agent = await start();
    await deny('forbidden');
    const alone = await publish(configMap('alone', 'b', 'forbidden: x'));
    const first = await publish(configMap('hold'), undefined, {});
    const second = await publish(configMap('hold', 'b', 'forbidden: x'), first, {});
    agent.reconciler.offer(alone);
    await good(agent, first);
    agent.reconciler.offer(second);
    await broker.until('failed', () => [alone, second].every((target) => statusOf(target)?.phase === Phase.FAILED));
    expect(kinds(alone)).toEqual(['APPLY 1']);
    expect(kinds(second)).toEqual(['APPLY 1', 'VALIDATE 2']);
    expect(statusOf(second)).toMatchObject({ goodGeneration: 1n, refusedGeneration: 0n });
  });

  it('because the API server is away: waits for it, however long, and goes on', async () => {
    await using proxy = await startKubeProxy({ target: server.url, ca: server.caData });
    await using agent = await broker.start({ url: proxy.url, token: identity.token }, { namespace });
    const first = await publish(configMap('away'));
    await good(agent, first);
    proxy.cut();
    const second = await publish(configMap('away', 'b'), first);
    agent.reconciler.offer(second);
    await broker.until('failed', () => statusOf(second)?.phase === Phase.FAILED);
    await systemClock.sleep(3000, new AbortController().signal); // longer than its deadline: nothing may happen
    proxy.heal();
    await broker.until('good', () => statusOf(second)?.goodGeneration === 2n);
    expect(kinds(second)).not.toContain('ROLLBACK 1');
  });
});

describe('a generation whose content cannot be had', () => {
  it('is not given up for that, however long', async () => {
    await using agent = await start();
    const first = await publish(configMap('absent'));
    await good(agent, first);
    const second = await publish(configMap('absent', 'b'), first);
    broker.forgetContent();
    agent.reconciler.offer(second);
    const failures = () => broker.eventsOf(second).filter(({ success }) => !success).length;
    await broker.until('failed for longer than its deadline', () => failures() >= 4); // waits of 0.5, 1 and 2 s between them
    await publish(configMap('absent', 'b'));
    await broker.until('good', () => statusOf(second)?.goodGeneration === 2n);
    expect(kinds(second)).not.toContain('ROLLBACK 1');
  });
});

describe('a generation that was not judged before the agent restarted', () => {
  it('is asked for again and judged then: given up when it is not healthy in time', async () => {
    const first = await publish(deployment('judged', 'one', 'ready'));
    const second = await publish(deployment('judged', 'two', 'unready'), first, { ...rollback, failureDeadlineSeconds: 600 });
    {
      await using agent = await start();
      await good(agent, first);
      agent.reconciler.offer(second);
      await broker.applied(second);
    }
    await using agent = await start();
    const held = agent.held.find(({ stackId }) => stackId === first.stackId);
    expect(held).toMatchObject({ appliedGeneration: 2n, unjudged: true, good: { generation: 1n } });
    const state = new HeldState();
    state.load([held as HeldStack]);
    expect(state.summary().entries).toBe(0); // the broker sends it again
    await rolledBack(agent, { ...second, options: first.options });
    expect(statusOf(second)).toMatchObject({ appliedGeneration: 1n, refusedGeneration: 2n });
  });
});

describe('a generation that was given up', () => {
  it('is not tried again after a restart, nor when it is offered again; a newer one is, also with the same content', async () => {
    const text = { good: configMap('sticky'), bad: yaml(configMap('sticky', 'b'), configMap('sticky-bad', 'b', 'sticking: x')) };
    await deny('sticking');
    const first = await publish(text.good);
    const second = await publish(text.bad, first);
    {
      await using agent = await start();
      await good(agent, first);
      await rolledBack(agent, second);
    }
    await using agent = await start();
    expect(agent.held.find(({ stackId }) => stackId === first.stackId)).toMatchObject({
      receivedGeneration: 2n,
      appliedGeneration: 1n,
      failed: { generation: 2n },
      good: { generation: 1n, deploymentObjectId: first.deploymentObjectId },
    });
    expect(agent.reconciler.stacks().find(({ stackId }) => stackId === first.stackId)).toMatchObject({
      phase: Phase.ROLLED_BACK,
      refusedGeneration: 2n,
    });
    await rolledBack(agent, second);
    const tried = kinds(second).length;
    await server.request('DELETE', path('sticky'));
    await broker.until('corrected', () => kinds(second).length === tried + 1);
    expect(kinds(second).at(-1)).toBe('DRIFT 1');
    expect(await value('sticky')).toBe('a');
    const retry = await publish(text.bad, second);
    await rolledBack(agent, retry);
    await broker.until('given up', () => statusOf(retry)?.refusedGeneration === 3n);
    expect(kinds(second)).toContain('APPLY 3');
    expect(statusOf(retry)).toMatchObject({ receivedGeneration: 3n, refusedGeneration: 3n, goodGeneration: 1n });
    const fourth = await publish(configMap('sticky', 'c'), retry);
    await good(agent, fourth);
    expect(statusOf(fourth)).toMatchObject({ phase: Phase.APPLIED, appliedGeneration: 4n, refusedGeneration: 0n, message: '' });
    expect(await value('sticky')).toBe('c');
  });

  it('and the good one fails too: holds, reports, and gets there once that can be applied', async () => {
    await deny('later');
    await using agent = await start();
    const first = await publish(configMap('stuck'));
    await good(agent, first);
    const second = await publish(yaml(configMap('stuck', 'b'), configMap('stuck-bad', 'b', 'later: x')), first);
    broker.forgetContent();
    const again = await publish(yaml(configMap('stuck', 'b'), configMap('stuck-bad', 'b', 'later: x')), first);
    agent.reconciler.offer({ ...again, generation: second.generation });
    await broker.until('held', () => statusOf(second)?.message.includes('going back failed') === true);
    expect(statusOf(second)).toMatchObject({ phase: Phase.FAILED, refusedGeneration: 2n });
    expect(statusOf(second)?.message).toMatch(/^generation 2 failed: .*; going back failed: the broker cannot be reached$/);
    await broker.publish(configMap('stuck'), { after: first });
    await broker.until('rolled back', () => statusOf(second)?.phase === Phase.ROLLED_BACK);
    expect(await value('stuck')).toBe('a');
  });
});

describe('a stack that is paused', () => {
  it('by options alone keeps what is applied, corrects nothing, still reports health, and is corrected when resumed', async () => {
    await using agent = await start();
    const first = await publish(deployment('paused', 'one', 'ready'));
    await good(agent, first);
    const paused = { ...first, ...(await publish(deployment('paused', 'one', 'ready'), undefined, { paused: true })) };
    agent.reconciler.offer({ ...first, options: paused.options, optionsDigest: paused.optionsDigest });
    await broker.until('paused', () => statusOf(first)?.message.startsWith('paused') === true);
    expect(statusOf(first)).toMatchObject({ phase: Phase.APPLIED, appliedGeneration: 1n });
    const live = `/apis/apps/v1/namespaces/${namespace}/deployments/paused`;
    const body = { spec: { template: { metadata: { annotations: { 'brokkr.test/outcome': 'unready' } } } } };
    await server.request('PATCH', live, body, { 'content-type': 'application/merge-patch+json' });
    await broker.until('unhealthy', () => statusOf(first)?.health === Health.FAILING);
    expect((await server.request('GET', live)).body.spec.template.metadata.annotations['brokkr.test/outcome']).toBe('unready');
    expect(kinds(first)).toEqual(['APPLY 1']);
    agent.reconciler.offer(first);
    await broker.until('resumed', () => statusOf(first)?.health === Health.HEALTHY && statusOf(first)?.message === '');
    expect((await server.request('GET', live)).body.spec.template.metadata.annotations['brokkr.test/outcome']).toBe('ready');
  });
});
