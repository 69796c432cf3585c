import { beforeAll, expect, it } from 'vitest';
import { writeKubeconfig } from '../../hack/kube/kubeconfig.ts';
import { type Rig, startRig, until } from '../e2e/rig.ts';
import { unique } from '../kube-identity.ts';
import { temporaryDirectory } from '../processes.ts';

let rig: Rig;
const node = unique('facts-node');
beforeAll(async () => {
  rig = await startRig();
  const { request } = rig.kube;
  await request('POST', '/api/v1/nodes', {
    metadata: { name: node },
    spec: { podCIDR: '10.77.3.0/24', podCIDRs: ['10.77.3.0/24'] },
  });
  await request('POST', '/api/v1/namespaces/kube-system/services', {
    metadata: { name: 'kube-dns', labels: { 'k8s-app': 'kube-dns' } },
    spec: { selector: { 'k8s-app': 'kube-dns' }, ports: [{ name: 'dns', port: 53, protocol: 'UDP', targetPort: 53 }] },
  });
  await request('POST', '/apis/apps/v1/namespaces/kube-system/daemonsets', {
    metadata: { name: 'node-local-dns' },
    spec: {
      selector: { matchLabels: { app: 'cache' } },
      template: {
        metadata: { labels: { app: 'cache' } },
        spec: { containers: [{ name: 'cache', image: 'c', args: ['-localip', '169.254.20.10,10.96.0.10'] }] },
      },
    },
  });
  return async () => {
    await request('DELETE', `/api/v1/nodes/${node}`);
    await request('DELETE', '/api/v1/namespaces/kube-system/services/kube-dns');
    await request('DELETE', '/apis/apps/v1/namespaces/kube-system/daemonsets/node-local-dns');
  };
});

interface Network {
  readonly pod_cidrs: readonly string[];
  readonly unknown: readonly string[];
}
const networkOf = (id: string) =>
  until(
    async () => (await rig.broker.api<{ network: Network | null }>('GET', `/api/v1/agents/${id}`)).body.network ?? undefined,
    (network) => network !== undefined,
  ) as Promise<Network>;

it('an agent tells what the network of its cluster is like', async () => {
  const agent = await rig.register();
  await rig.start(agent);
  expect(await networkOf(agent.id)).toMatchObject({
    pod_cidrs: expect.arrayContaining(['10.77.3.0/24']),
    service_cidrs: [expect.stringMatching(/^10\./)],
    api_server: { service_ip: expect.stringMatching(/^10\./), ports: [443] },
    dns: { namespace: 'kube-system', selector: { 'k8s-app': 'kube-dns' }, ports: [53], node_local_ip: '169.254.20.10' },
    ip_families: ['IPv4'],
    unknown: [],
  });
  const { body } = await rig.broker.api<{ network: unknown }[]>('GET', '/api/v1/agents');
  expect(body.map(({ network }) => network)).not.toContainEqual(expect.anything());
});

it('an agent that may not look tells what it could not find out, and works', async () => {
  const agent = await rig.register();
  const { token } = await rig.kube.identity(unique('limited'), {
    namespace: agent.namespace,
    rules: [{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] }],
  });
  const kubeconfigPath = `${await temporaryDirectory()}/kubeconfig`;
  await writeKubeconfig(kubeconfigPath, { server: rig.kube.url, caData: rig.kube.caData, token, namespace: agent.namespace });
  await rig.start(agent, { kubeconfigPath });
  const network = await networkOf(agent.id);
  expect(network.pod_cidrs).toEqual([]);
  expect(network.unknown).toEqual(
    expect.arrayContaining([
      expect.stringMatching(/^nodes: .*forbidden/),
      expect.stringMatching(/^services in default: .*forbidden/),
    ]),
  );
});
