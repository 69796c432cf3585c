import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { abortable } from '#lib/signal.ts';
import { OnFailure, Phase } from '#proto/brokkr/v1/content_pb.js';
import type { TestAgent } from '../test/agent-engine.ts';
import { type EngineRig, openEngineRig } from '../test/engine-rig.ts';
import type { Reach } from './reach.ts';
import type { StackTarget } from './stack/target.ts';

let rig: EngineRig;

beforeAll(async () => {
  rig = await openEngineRig('confirm');
});
afterAll(() => rig?.broker[Symbol.asyncDispose]());

const confirm = { confirmSeconds: 1 };
const configMap = (name: string, value = 'a', labels = '') =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}, labels: {${labels}}}\ndata:\n  key: ${value}\n`;
const yaml = (...documents: string[]) => documents.join('---\n');
const path = (name: string) => `/api/v1/namespaces/${rig.namespace}/configmaps/${name}`;
const value = async (name: string) => (await rig.server.request('GET', path(name))).body.data?.key as string | undefined;
const statusOf = ({ stackId }: StackTarget) => rig.broker.statuses.get(stackId);
const told = (target: StackTarget) =>
  rig.broker
    .eventsOf(target)
    .map(({ eventType, generation, success, message }) => `${eventType} ${generation} ${success} ${message}`);
const publish = (text: string, after?: StackTarget, options: object = confirm) =>
  rig.broker.publish(text, { ...(after && { after }), options });

/** A broker that answers as long as `isUp` says so. */
function reachOf(isUp: () => boolean | Promise<boolean>): Reach & { asked: number } {
  const reach = async () => [
    {
      reached: 'the broker',
      unreached: 'the broker did not answer',
      ask: async (signal: AbortSignal) => {
        reach.asked += 1;
        if (!(await abortable(Promise.resolve(isUp()), signal))) throw new Error('connect timed out');
      },
    },
  ];
  reach.asked = 0;
  return reach;
}

async function settled(agent: TestAgent, target: StackTarget, phase: Phase): Promise<void> {
  agent.reconciler.offer(target);
  await rig.broker.until(Phase[phase], () => {
    const status = statusOf(target);
    return status?.phase === phase && status.receivedGeneration === target.generation;
  });
}

describe('a generation that has to be confirmed', () => {
  it('is confirmed with one question, and status and event say so', async () => {
    const reach = reachOf(() => true);
    await using agent = await rig.start({ reach });
    const first = await publish(configMap('answered'));
    await settled(agent, first, Phase.APPLIED);
    expect(reach.asked).toBe(1);
    expect(statusOf(first)).toMatchObject({ message: 'confirmed: the broker answered', goodGeneration: 1n });
    expect(told(first)).toEqual(['APPLY 1 true generation 1: 1 created; confirmed: the broker answered']);
    await settled(agent, await publish(configMap('answered'), first, { ...confirm, failureDeadlineSeconds: 9 }), Phase.APPLIED);
    expect(reach.asked, 'nothing was written').toBe(1);
  });

  it('is taken back when it cuts the agent off, whatever the policy, and is not tried again', async () => {
    const reach = reachOf(async () => (await value('cut')) !== 'b');
    await using agent = await rig.start({ reach });
    const first = await publish(yaml(configMap('cut'), configMap('cut-gone')));
    await settled(agent, first, Phase.APPLIED);
    const text = yaml(configMap('cut', 'b'), ...Array.from({ length: 30 }, (_, index) => configMap(`cut-added-${index}`)));
    const second = await publish(text, first, { ...confirm, onFailure: OnFailure.HOLD });
    await settled(agent, second, Phase.ROLLED_BACK);
    const why = 'the broker did not answer within 1 s after generation 2 was applied';
    expect(statusOf(second)).toMatchObject({ appliedGeneration: 1n, refusedGeneration: 2n, goodGeneration: 1n });
    expect(statusOf(second)?.message).toBe(`rolled back: ${why}; 1 is applied again`);
    expect([await value('cut'), await value('cut-gone'), await value('cut-added-0'), await value('cut-added-29')]).toEqual([
      'a',
      'a',
      undefined,
      undefined,
    ]);
    expect(told(second).slice(1)).toEqual([
      `APPLY 2 false ${why}`,
      `ROLLBACK 1 true rolled back: ${why}; generation 1: 1 created, 1 configured, 30 deleted`,
    ]);
    agent.reconciler.offer(second);
    const third = await publish(configMap('cut', 'c'), second);
    await settled(agent, third, Phase.APPLIED);
    expect([await value('cut'), reach.asked > 2]).toEqual(['c', true]);
  });

  it('is taken back also when one of its objects failed: what was written may be what cuts the agent off', async () => {
    await using agent = await rig.start({ reach: reachOf(async () => (await value('partly')) !== 'b') });
    const first = await publish(configMap('partly'));
    await settled(agent, first, Phase.APPLIED);
    const broken = 'apiVersion: v1\nkind: Secret\nmetadata: {name: partly}\ntype: kubernetes.io/tls\nstringData: {a: b}\n';
    const second = await publish(yaml(configMap('partly', 'b'), broken), first, { ...confirm, onFailure: OnFailure.HOLD });
    await settled(agent, second, Phase.ROLLED_BACK);
    expect(await value('partly')).toBe('a');
  });

  it('leaves nothing when nothing was good before', async () => {
    await using agent = await rig.start({ reach: reachOf(() => false) });
    const first = await publish(yaml(configMap('never'), configMap('never-either')));
    await settled(agent, first, Phase.ROLLED_BACK);
    await rig.broker.until('removed', () => told(first).length === 2);
    expect([await value('never'), await value('never-either')]).toEqual([undefined, undefined]);
    expect(statusOf(first)).toMatchObject({ appliedGeneration: 0n, refusedGeneration: 1n, goodGeneration: 0n, objectsTotal: 0 });
    expect(told(first)[1]).toMatch(/^ROLLBACK 0 true rolled back: .*; nothing was applied before: 2 deleted$/);
  });

  it.each([true, false])('is decided by the next process without the broker, deletions held; reached: %s', async (isUp) => {
    const name = `killed-${isUp}`;
    const asked = Promise.withResolvers<void>();
    const hangs = reachOf(() => {
      asked.resolve();
      return new Promise<boolean>(() => undefined);
    });
    const before = await rig.start();
    const first = await publish(configMap(name), undefined, {});
    await settled(before, first, Phase.APPLIED);
    await before.stop();
    const killed = await rig.start({ reach: hangs });
    const second = await publish(yaml(configMap(name, 'b'), configMap(`${name}-added`)), first, { confirmSeconds: 3 });
    killed.reconciler.offer(second);
    await asked.promise;
    await killed.stop();
    rig.broker.forgetContent();
    const reach = reachOf(() => isUp);
    await using _agent = await rig.start({ reach, held: true });
    const end = isUp ? Phase.APPLIED : Phase.ROLLED_BACK;
    await rig.broker.until('decided', () => statusOf(second)?.phase === end && statusOf(second)?.receivedGeneration === 2n);
    expect([await value(name), await value(`${name}-added`)]).toEqual(isUp ? ['b', 'a'] : ['a', undefined]);
  });
});
