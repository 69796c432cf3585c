import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { writeKubeconfig } from '../../hack/kube/kubeconfig.ts';
import { configMap, healthyAt, type Rig, startRig } from '../e2e/rig.ts';
import { until } from '../kube-identity.ts';
import { temporaryDirectory } from '../processes.ts';
import { chartPath, merged, NEEDED, openHelm } from './helm.ts';

/** Where the chart mounts what the test gives in other ways. */
const MOUNTED = ['BROKKR__AGENT__PAK_FILE', 'BROKKR__AGENT__DATA_DIR', 'BROKKR__AGENT__BROKER_URL', 'BROKKR__AGENT__AGENT_NAME'];

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
});

describe.each([
  ['of the whole cluster', true, []],
  ['of one namespace', false, ['get /api/v1/namespaces/kube-system']], // which names the cluster; its own namespace will do
])('an agent %s, with the settings and the service account of its chart', (_, clusterWide, refusals) => {
  it('takes its turn, applies and reports health, and is refused nothing it needs', { timeout: 120_000 }, async () => {
    const { kube } = rig;
    const agent = await rig.register();
    const { namespace } = agent;
    await using helm = await openHelm('helm4', kube.kubeconfigPath);
    const values = { rbac: { clusterWide }, agent: { settings: { 'agent.leader_election': 'on' } }, replicaCount: 0 };
    const args = ['install', 'brokkr-agent', chartPath('brokkr-agent'), '--namespace', namespace];
    await helm.run(args, merged(NEEDED['brokkr-agent'], values));
    const user = `system:serviceaccount:${namespace}:brokkr-agent`;
    const review = { spec: { user, resourceAttributes: { verb: 'patch', resource: 'configmaps', namespace } } };
    const reviews = '/apis/authorization.k8s.io/v1/subjectaccessreviews';
    await until(async () => (await kube.request('POST', reviews, review)).body.status.allowed, AbortSignal.timeout(20_000));

    const account = `/api/v1/namespaces/${namespace}/serviceaccounts/brokkr-agent/token`;
    const { status } = (await kube.request('POST', account, { spec: { expirationSeconds: 3600 } })).body;
    const kubeconfigPath = join(await temporaryDirectory(), 'kubeconfig');
    await writeKubeconfig(kubeconfigPath, { server: kube.url, caData: kube.caData, token: status.token, namespace });
    const settings = (await kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/brokkr-agent`)).body.data;
    const env = Object.fromEntries(Object.entries<string>(settings).filter(([name]) => !MOUNTED.includes(name)));
    const mark = await kube.auditMark();
    const started = await rig.start(agent, { kubeconfigPath, env });
    await started.line(({ msg }) => msg === 'health port is open');

    const stack = await rig.publish(agent.label, configMap(namespace, 'from-chart'), agent.label);
    await rig.status(stack.id, healthyAt(1), 60_000);
    const calls = await kube.auditEvents({ user, since: mark });
    expect(calls.some(({ objectRef, verb }) => objectRef?.resource === 'leases' && verb === 'create')).toBe(true);
    const refused = calls.filter(({ responseStatus }) => responseStatus?.code === 403);
    expect([...new Set(refused.map(({ verb, requestURI }) => `${verb} ${requestURI}`))]).toEqual(refusals);
  });
});
