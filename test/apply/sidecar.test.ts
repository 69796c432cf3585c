import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadAll } from 'js-yaml';
import { beforeAll, describe, expect, it } from 'vitest';
import { writeKubeconfig } from '../../hack/kube/kubeconfig.ts';
import { type AgentRecord, configMap, healthyAt, type Rig, startRig, until } from '../e2e/rig.ts';
import { type TestProcess, temporaryDirectory } from '../processes.ts';

/** An object of the example, as far as it is read here. */
interface Example {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec?: { readonly template: { readonly spec: { readonly containers: readonly Container[] } } };
}

interface Container {
  readonly name: string;
  readonly env?: readonly {
    readonly name: string;
    readonly value?: string;
    readonly valueFrom?: { readonly fieldRef?: { readonly fieldPath: string } };
  }[];
}

const PLURALS: Readonly<Record<string, string>> = {
  ServiceAccount: 'api/v1/namespaces/NS/serviceaccounts',
  Role: 'apis/rbac.authorization.k8s.io/v1/namespaces/NS/roles',
  RoleBinding: 'apis/rbac.authorization.k8s.io/v1/namespaces/NS/rolebindings',
  Deployment: 'apis/apps/v1/namespaces/NS/deployments',
};

let rig: Rig;
let agent: AgentRecord;
let started: TestProcess;
/** As the API server knows the sidecar. */
let user: string;
let mark: number;

beforeAll(async () => {
  rig = await startRig();
  agent = await rig.register();
  const { namespace } = agent;
  const { kube } = rig;
  const examples = loadAll(await readFile('examples/sidecar/sidecar.yaml', 'utf8')) as Example[];
  for (const object of examples) {
    const answer = await kube.request('POST', `/${(PLURALS[object.kind] ?? '').replace('NS', namespace)}`, object);
    expect(answer.status, JSON.stringify(answer.body)).toBe(201);
  }
  const token = `/api/v1/namespaces/${namespace}/serviceaccounts/shop/token`;
  const { body } = await kube.request('POST', token, { spec: { expirationSeconds: 3600 } });
  user = `system:serviceaccount:${namespace}:shop`;
  const kubeconfigPath = join(await temporaryDirectory(), 'kubeconfig');
  await writeKubeconfig(kubeconfigPath, { server: kube.url, caData: kube.caData, token: body.status.token, namespace });
  const container = examples.at(-1)?.spec?.template.spec.containers.find(({ name }) => name === 'brokkr-agent');
  const namespaced = container?.env?.filter(({ valueFrom }) => valueFrom?.fieldRef?.fieldPath === 'metadata.namespace') ?? [];
  expect(namespaced.map(({ name }) => name)).toEqual(['BROKKR__AGENT__WATCH_NAMESPACE']);
  const env = Object.fromEntries(namespaced.map(({ name }) => [name, namespace]));
  mark = await kube.auditMark();
  started = await rig.start(agent, { kubeconfigPath, env });
  await started.line(({ msg }) => msg === 'health port is open');
}, 300_000);

const path = (plural: string, name: string) => `/api/v1/namespaces/${agent.namespace}/${plural}/${name}`;
const merge = { 'content-type': 'application/merge-patch+json' };

function workload(namespace: string): string {
  return `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: ${namespace}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
`;
}

describe('the example of a sidecar, with its own Role and nothing else', () => {
  it('applies, corrects, prunes and reports health', { timeout: 240_000 }, async () => {
    const { namespace, label } = agent;
    const { kube } = rig;
    const both = `${configMap(namespace, 'kept')}---\n${configMap(namespace, 'left')}${workload(namespace)}`;
    const stack = await rig.publish('sidecar', both, label);
    await rig.status(stack.id, healthyAt(1), 120_000);
    expect((await kube.request('PATCH', path('configmaps', 'kept'), { data: { key: 'edited' } }, merge)).status).toBe(200);
    await until(
      async () => (await kube.request('GET', path('configmaps', 'kept'))).body.data.key,
      (value) => value === '1',
    );
    await rig.publish('sidecar', `${configMap(namespace, 'kept')}${workload(namespace)}`, label);
    await rig.status(stack.id, healthyAt(2), 60_000);
    await until(
      async () => (await kube.request('GET', path('configmaps', 'left'))).status,
      (status) => status === 404,
    );
  });

  it('fails by name for a kind the Role lacks, and goes on with the others', { timeout: 120_000 }, async () => {
    const { namespace, label } = agent;
    const secret = `---\napiVersion: v1\nkind: Secret\nmetadata: {name: locked, namespace: ${namespace}}\n`;
    const stack = await rig.publish('more', `${configMap(namespace, 'beside')}${secret}`, label);
    const { objects } = await rig.status(stack.id, ({ phase }) => phase === 'failed', 60_000);
    expect(objects).toMatchObject([{ kind: 'Secret', name: 'locked', reason: 'forbidden' }]);
    expect(objects[0]?.message).toContain(`cannot patch resource "secrets" in API group "" in the namespace "${namespace}"`);
    expect((await rig.kube.request('GET', path('configmaps', 'beside'))).status).toBe(200);
  });

  it('asks for nothing outside of its namespace but what every identity may read', { timeout: 60_000 }, async () => {
    const calls = await rig.kube.auditEvents({ user, since: mark });
    const outside = calls.filter(({ objectRef }) => objectRef?.resource !== undefined && objectRef.namespace !== agent.namespace);
    expect(outside.map(({ verb, requestURI }) => `${verb} ${requestURI}`)).toEqual(['get /api/v1/namespaces/kube-system']);
  });
});
