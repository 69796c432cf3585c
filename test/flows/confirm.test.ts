import { beforeAll, describe, expect, it } from 'vitest';
import { writeKubeconfig } from '../../hack/kube/kubeconfig.ts';
import { type AgentRecord, type AgentStatus, healthyAt, type Rig, startRig, until } from '../e2e/rig.ts';
import { startTcpProxy } from '../fault-proxy.ts';
import { startKubeProxy } from '../http-proxy.ts';
import { temporaryDirectory } from '../processes.ts';

const CONFIRM_SECONDS = 4;
const CUT_OFF = 'the broker did not answer within 4 s after generation 2 was applied';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
});

const port = (url: string) => Number(new URL(url).port);
const policy = (namespace: string, name: string, app: string) => `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: ${name}, namespace: ${namespace}}
spec:
  podSelector: {matchLabels: {app: ${app}}}
  policyTypes: [Egress]
`;
const path = (namespace: string, name = '') => `/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies/${name}`;
/** Names of the policies, each with the pods it selects. */
const policies = async (namespace: string) => {
  const { body } = await rig.kube.request('GET', path(namespace));
  return body.items.map(({ metadata, spec }: Policy) => `${metadata.name} ${spec.podSelector.matchLabels.app}`) as string[];
};
interface Policy {
  readonly metadata: { readonly name: string };
  readonly spec: { readonly podSelector: { readonly matchLabels: { readonly app: string } } };
}
const publish = async (stack: string, yaml: string, { label }: AgentRecord) => {
  const body = { yaml_content: yaml, labels: { values: [label] }, options: { confirm_seconds: CONFIRM_SECONDS } };
  const answer = await rig.broker.api<{ stack: { id: string } }>('PUT', `/api/v1/stacks/by-name/${stack}/apply`, body);
  expect(answer.status, JSON.stringify(answer.body)).toBe(200);
  return answer.body.stack;
};
const isRolledBack = ({ phase }: AgentStatus) => phase === 'rolled_back';
/** Its events once there are so many, in the order of their names: they come in batches. */
const told = (agent: AgentRecord, count: number) =>
  until(
    async () => {
      const events = await rig.events(agent.id);
      return events
        .map(({ event_type: type, generation, status, message }) => `${type} ${generation} ${status}: ${message}`)
        .sort();
    },
    ({ length }) => length === count,
  );

/** An agent whose ways to the broker and to the API server can be cut. */
async function startCuttable(onPatch: (path: string) => void = () => undefined) {
  const way = await startTcpProxy({ target: { host: '127.0.0.1', port: port(rig.broker.url) } });
  const kube = await startKubeProxy({
    target: rig.kube.url,
    ca: rig.kube.caData,
    onRequest: ({ method, path: asked }) => {
      if (method === 'PATCH') onPatch(asked);
      return undefined;
    },
  });
  const api = await startTcpProxy({ target: { host: '127.0.0.1', port: port(kube.url) } });
  const agent = await rig.register();
  const { token } = await rig.kube.identity('cuttable', { clusterAdmin: true });
  const kubeconfigPath = `${await temporaryDirectory()}/kubeconfig`;
  await writeKubeconfig(kubeconfigPath, { server: `http://127.0.0.1:${api.port}`, token });
  const start = (dataDir?: string) =>
    rig.start(agent, { brokerUrl: `http://127.0.0.1:${way.port}`, kubeconfigPath, ...(dataDir !== undefined && { dataDir }) });
  return {
    ...{ agent, way, api, kube, start },
    async [Symbol.asyncDispose]() {
      await Promise.all([way, api, kube].map((proxy) => proxy[Symbol.asyncDispose]()));
    },
  };
}

describe('a policy stack with confirm_seconds', () => {
  it('that cuts the agent off from the broker is taken back by the agent alone, and told once the cut heals', async () => {
    const namespace = await rig.kube.namespace('cut-off');
    let isCutting = false;
    await using side = await startCuttable((asked) => {
      if (isCutting && asked.includes('/networkpolicies/deny')) side.way.stall();
    });
    await side.start();
    const first = await publish('cut-off', policy(namespace, 'allow', 'web'), side.agent);
    await rig.status(first.id, healthyAt(1));
    isCutting = true;
    const cutting = `${policy(namespace, 'allow', 'other')}---\n${policy(namespace, 'deny', 'agent')}`;
    await publish('cut-off', cutting, side.agent);
    await until(
      () => policies(namespace),
      (found) => found.includes('deny agent'),
    );
    await until(
      () => policies(namespace),
      (found) => found.join() === 'allow web',
      (CONFIRM_SECONDS + 10) * 1000,
    );
    const unknown = await rig.status(first.id, () => true);
    expect(unknown, 'the broker knows nothing yet').toMatchObject({ applied_generation: 1, desired_generation: 2 });
    expect(unknown.phase).not.toBe('rolled_back');
    isCutting = false;
    await side.way.heal();
    const status = await rig.status(first.id, isRolledBack, 60_000);
    expect(status).toMatchObject({
      applied_generation: 1,
      refused_generation: 2,
      message: `rolled back: ${CUT_OFF}; 1 is applied again`,
    });
    expect(await told(side.agent, 3)).toEqual([
      'APPLY 1 SUCCESS: generation 1: 1 created; confirmed: the broker and the API server answered',
      `APPLY 2 FAILURE: ${CUT_OFF}`,
      `ROLLBACK 1 SUCCESS: rolled back: ${CUT_OFF}; generation 1: 1 configured, 1 deleted`,
    ]);
    await publish('cut-off', policy(namespace, 'allow', 'api'), side.agent);
    await rig.status(first.id, healthyAt(3));
    expect(await policies(namespace)).toEqual(['allow api']);
  }, 120_000);

  it('is confirmed over one new connection to the broker and one GET, and says so', async () => {
    const namespace = await rig.kube.namespace('confirmed');
    await using side = await startCuttable();
    await side.start();
    const first = await publish('confirmed', policy(namespace, 'allow', 'web'), side.agent);
    await rig.status(first.id, healthyAt(1));
    const before = { broker: side.way.counts().accepted, api: side.kube.count('GET', '/version') };
    await publish('confirmed', policy(namespace, 'allow', 'api'), side.agent);
    const status = await rig.status(first.id, healthyAt(2));
    expect(status.message).toBe('confirmed: the broker and the API server answered');
    expect(side.way.counts().accepted - before.broker).toBe(1);
    expect(side.kube.count('GET', '/version') - before.api).toBe(1);
    const [event] = await rig.events(side.agent.id);
    expect(event?.message).toMatch(/^generation 2: 1 configured; confirmed: the broker and the API server answered$/);
  });

  it('that cuts the agent off from the API server is taken back as soon as that answers again', async () => {
    const namespace = await rig.kube.namespace('no-api');
    await using side = await startCuttable();
    await side.start();
    const first = await publish('no-api', policy(namespace, 'allow', 'web'), side.agent);
    await rig.status(first.id, healthyAt(1));
    await publish('no-api', policy(namespace, 'allow', 'other'), side.agent);
    await rig.status(first.id, ({ message }) => message === 'finding out whether the agent was cut off');
    side.api.cut();
    const waiting = await rig.status(first.id, ({ message }) => message?.includes('generation 2 failed') ?? false, 60_000);
    expect(waiting.message).toContain('the API server did not answer within 4 s after generation 2 was applied');
    expect(await policies(namespace)).toEqual(['allow other']);
    await side.api.heal();
    await rig.status(first.id, isRolledBack, 60_000);
    expect(await policies(namespace)).toEqual(['allow web']);
  }, 120_000);

  it('whose agent is killed before it decided is decided by the next process, without the broker', async () => {
    const namespace = await rig.kube.namespace('killed-off');
    let isCutting = false;
    await using side = await startCuttable((asked) => {
      if (isCutting && asked.includes('/networkpolicies/deny')) side.way.stall();
    });
    const running = await side.start();
    const first = await publish('killed-off', policy(namespace, 'allow', 'web'), side.agent);
    await rig.status(first.id, healthyAt(1));
    isCutting = true;
    await publish('killed-off', policy(namespace, 'deny', 'agent'), side.agent);
    await until(
      () => policies(namespace),
      (found) => found.join() === 'deny agent',
    );
    await running.stop('SIGKILL');
    expect(await policies(namespace)).toEqual(['deny agent']);
    await side.start(running.dataDir);
    await until(
      () => policies(namespace),
      (found) => found.join() === 'allow web',
    );
    isCutting = false;
    await side.way.heal();
    const status = await rig.status(first.id, isRolledBack, 60_000);
    expect(status.message).toContain(CUT_OFF);
    expect(await told(side.agent, 3)).toEqual([
      expect.stringMatching(/^APPLY 1 SUCCESS/),
      `APPLY 2 FAILURE: ${CUT_OFF}`,
      `ROLLBACK 1 SUCCESS: rolled back: ${CUT_OFF}; generation 1: 1 created, 1 deleted`,
    ]);
  }, 120_000);

  it('that is the first of its stack leaves nothing behind', async () => {
    const namespace = await rig.kube.namespace('first');
    await using side = await startCuttable((asked) => {
      if (asked.includes('/networkpolicies/deny')) side.way.stall();
    });
    await side.start();
    const first = await publish('first', policy(namespace, 'deny', 'agent'), side.agent);
    await until(
      () => policies(namespace),
      (found) => found.length === 1,
    );
    await until(
      () => policies(namespace),
      (found) => found.length === 0,
    );
    await side.way.heal();
    const status = await rig.status(first.id, isRolledBack, 60_000);
    expect(status).toMatchObject({ applied_generation: 0, refused_generation: 1 });
    expect(status.message).toBe(
      'rolled back: the broker did not answer within 4 s after generation 1 was applied; nothing was applied before',
    );
    expect(await told(side.agent, 2)).toEqual([
      expect.stringMatching(/^APPLY 1 FAILURE: the broker did not answer/),
      expect.stringMatching(/^ROLLBACK 0 SUCCESS: rolled back: .*; nothing was applied before: 1 deleted$/),
    ]);
  }, 120_000);
});
