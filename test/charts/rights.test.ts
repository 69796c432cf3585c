import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StackTarget } from '../../agent/stack/target.ts';
import { openTestBroker, type TestBroker } from '../agent-engine.ts';
import { configMap, yaml } from '../apply/object-rig.ts';
import { type Kube, useKube } from '../kube.ts';
import { until } from '../kube-identity.ts';
import { chartPath, type Helm, merged, NEEDED, openHelm } from './helm.ts';

let kube: Kube;
let helm: Helm;
beforeAll(async () => {
  kube = await useKube();
  helm = await openHelm('helm4', kube.kubeconfigPath);
});
afterAll(() => helm?.[Symbol.asyncDispose]());

const object = (apiVersion: string, kind: string, name: string, rest: object = {}) =>
  `${JSON.stringify({ apiVersion, kind, metadata: { name }, ...rest })}\n`;
const secret = (value: string) => object('v1', 'Secret', 'locked', { stringData: { password: value } });
const template = { metadata: { labels: { app: 'web' } }, spec: { containers: [{ name: 'web', image: 'web' }] } };
/** Kinds of several groups that belong in a namespace. */
const WORKLOADS = [
  configMap('config'),
  object('v1', 'Service', 'web', { spec: { selector: { app: 'web' }, ports: [{ port: 80 }] } }),
  object('apps/v1', 'Deployment', 'web', { spec: { replicas: 0, selector: { matchLabels: { app: 'web' } }, template } }),
  object('policy/v1', 'PodDisruptionBudget', 'web', { spec: { maxUnavailable: 1, selector: { matchLabels: { app: 'web' } } } }),
  object('rbac.authorization.k8s.io/v1', 'Role', 'web', {
    rules: [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get'] }],
  }),
];

/** The agent's engine with the service account of an installed chart, and exactly its rights. */
interface Installed extends AsyncDisposable {
  readonly namespace: string;
  readonly broker: TestBroker;
  /** Publishes to the agent. */
  offer(text: string, after?: StackTarget): Promise<StackTarget>;
  /** Whether the service account may do this to a resource of the core group. */
  may(verb: string, resource: string, namespace?: string): Promise<boolean>;
}

async function install(rbac: { readonly clusterWide: boolean; readonly secretAccess?: object }): Promise<Installed> {
  const namespace = await kube.namespace('charts-rights');
  const args = ['install', 'brokkr-agent', chartPath('brokkr-agent'), '--namespace', namespace];
  await helm.run(args, merged(NEEDED['brokkr-agent'], { rbac, replicaCount: 0 }));
  const user = `system:serviceaccount:${namespace}:brokkr-agent`;
  const may: Installed['may'] = async (verb, resource, where = namespace) => {
    const spec = { user, resourceAttributes: { verb, resource, namespace: where } };
    return (await kube.request('POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', { spec })).body.status.allowed;
  };
  await until(() => may('patch', 'configmaps'), AbortSignal.timeout(20_000)); // bindings take effect some milliseconds after they are stored
  const account = `/api/v1/namespaces/${namespace}/serviceaccounts/brokkr-agent/token`;
  const { status } = (await kube.request('POST', account, { spec: { expirationSeconds: 3600 } })).body;
  const broker = openTestBroker(namespace);
  const endpoint = { url: kube.url, caData: kube.caData, token: status.token };
  const agent = await broker.start(endpoint, { namespace, clusterWide: rbac.clusterWide });
  return {
    namespace,
    broker,
    may,
    async offer(text, after) {
      const target = await broker.publish(text, after && { after });
      agent.reconciler.offer(target);
      return target;
    },
    async [Symbol.asyncDispose]() {
      await agent[Symbol.asyncDispose]();
      await broker[Symbol.asyncDispose]();
    },
  };
}

const live = async (namespace: string, plural: string, name: string) =>
  (await kube.request('GET', `/api/v1/namespaces/${namespace}/${plural}/${name}`)).status;

describe.each([
  ['in the whole cluster', true],
  ['in one namespace', false],
])('an agent with the rights of the chart %s', (_, clusterWide) => {
  it('applies workloads, and fails for a Secret alone, which no wildcard includes', { timeout: 120_000 }, async () => {
    await using agent = await install({ clusterWide });
    const { namespace, broker, may } = agent;
    const allowed = await Promise.all(
      ['get', 'list', 'watch', 'create', 'patch', 'delete', 'update'].map((verb) => may(verb, 'secrets')),
    );
    expect(allowed).toEqual(allowed.map(() => false));
    await broker.applied(await agent.offer(yaml(...WORKLOADS)));
    const mixed = await agent.offer(yaml(configMap('beside'), secret('a')));
    const failures = () => broker.eventsOf(mixed).filter(({ success }) => !success);
    await broker.until('failed', () => failures().length > 0);
    expect(failures()[0]?.objects).toMatchObject([{ kind: 'Secret', name: 'locked', reason: 'forbidden' }]);
    expect(await live(namespace, 'configmaps', 'beside')).toBe(200);
    expect(await live(namespace, 'secrets', 'locked')).toBe(404);
  });

  it('writes Secrets it may not read, when told to', { timeout: 120_000 }, async () => {
    await using agent = await install({ clusterWide, secretAccess: { enabled: true } });
    const { namespace, broker, may } = agent;
    expect(await Promise.all(['get', 'list', 'watch'].map((verb) => may(verb, 'secrets')))).toEqual([false, false, false]);
    const first = await agent.offer(yaml(configMap('beside'), secret('a')));
    await broker.applied(first);
    expect(await live(namespace, 'secrets', 'locked')).toBe(200);
    const second = await agent.offer(yaml(configMap('beside'), secret('b')), first);
    await broker.applied(second);
    const { body } = await kube.request('GET', `/api/v1/namespaces/${namespace}/secrets/locked`);
    expect(Buffer.from(body.data.password, 'base64').toString()).toBe('b');
    await broker.applied(await agent.offer(configMap('beside'), second));
    await expect.poll(() => live(namespace, 'secrets', 'locked')).toBe(404);
  });

  it('corrects drift in Secrets that it may read', { timeout: 120_000 }, async () => {
    await using agent = await install({ clusterWide, secretAccess: { enabled: true, readContents: true } });
    const path = `/api/v1/namespaces/${agent.namespace}/secrets/locked`;
    await agent.broker.applied(await agent.offer(secret('a')));
    await kube.request('PATCH', path, { stringData: { password: 'edited' } }, { 'content-type': 'application/merge-patch+json' });
    const password = async () => Buffer.from((await kube.request('GET', path)).body.data.password, 'base64').toString();
    await expect.poll(password).toBe('a');
  });
});

it('an agent of one namespace has no rights in another', async () => {
  await using agent = await install({ clusterWide: false, secretAccess: { enabled: true, readContents: true } });
  expect(await agent.may('patch', 'configmaps')).toBe(true);
  expect(await agent.may('patch', 'configmaps', 'default')).toBe(false);
  expect(await agent.may('get', 'secrets', 'default')).toBe(false);
});
