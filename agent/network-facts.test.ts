import { describe, expect, it } from 'vitest';
import { startKubeProxy } from '../test/http-proxy.ts';
import { useKube } from '../test/kube.ts';
import { openTestKube } from '../test/kube-client.ts';
import { discoverNetwork } from './network-facts.ts';

const { signal } = new AbortController();

/** Looks at a cluster that answers lists as given, by the last part of their path; all others are those of the real server. */
async function discover(lists: Readonly<Record<string, readonly object[] | number>>, groups: readonly string[] = []) {
  const server = await useKube();
  const { token } = await server.identity('network', { clusterAdmin: true });
  await using proxy = await startKubeProxy({
    target: server.url,
    ca: server.caData,
    onRequest: ({ path }) => {
      const items = lists[path.split('?')[0]?.split('/').at(-1) ?? ''];
      if (items === undefined) return undefined;
      return typeof items === 'number' ? { status: items } : { status: 200, body: { metadata: { resourceVersion: '1' }, items } };
    },
  });
  await using kube = openTestKube({ url: proxy.url, token });
  const network = await discoverNetwork(kube, new Set(groups), signal);
  return { network, calls: proxy.requests.length };
}

const node = (index: number) => ({
  metadata: { name: `node-${index}` },
  spec: { podCIDRs: [`10.244.${index}.0/24`, `fd00:${index}::/64`] },
  status: {
    addresses: [
      { type: 'Hostname', address: `node-${index}` },
      { type: 'InternalIP', address: `192.0.2.${index}` },
      { type: 'InternalIP', address: '2001:db8::1' },
    ],
  },
});

describe('the network of a cluster', () => {
  it('is read from nodes, the endpoints of the API server and the plugin, with seven lists at most', async () => {
    const endpointslices = [
      { metadata: {}, endpoints: [{ addresses: ['198.51.100.1'] }, { addresses: ['198.51.100.2'] }], ports: [{ port: 6443 }] },
    ];
    const { network, calls } = await discover({ nodes: [node(1), node(2)], endpointslices }, [
      'apps',
      'crd.projectcalico.org',
      'cilium.io',
    ]);
    expect(network).toMatchObject({
      cni: 'cilium',
      podCidrs: ['10.244.1.0/24', '10.244.2.0/24', 'fd00:1::/64', 'fd00:2::/64'],
      nodeCidrs: ['192.0.2.1/32', '192.0.2.2/32', '2001:db8::1/128'],
      apiServer: { endpoints: ['198.51.100.1', '198.51.100.2'], ports: [443, 6443] },
      unknown: [],
    });
    expect(calls).toBeLessThanOrEqual(7);
  });

  it('without definitions of a plugin is that of Amazon when its DaemonSet is there, and of nobody else', async () => {
    const daemonsets = [{ metadata: { name: 'aws-node' } }];
    expect((await discover({ daemonsets })).network.cni).toBe('aws');
    expect((await discover({ daemonsets: [] })).network.cni).toBe('');
  });

  it('names what may not be read, is not served, or is too much to tell', async () => {
    const { network } = await discover({
      nodes: Array.from({ length: 101 }, (_, index) => node(index)),
      servicecidrs: 404,
      daemonsets: 403,
    });
    expect(network).toMatchObject({ podCidrs: [], nodeCidrs: [], serviceCidrs: [] });
    expect(network.unknown).toEqual([
      expect.stringMatching(/^daemonsets in kube-system: .*403/),
      'node addresses: 102 are more than the 100 that can be told',
      'pod ranges: 202 are more than the 100 that can be told',
      expect.stringMatching(/^servicecidrs: .*404/),
    ]);
  });

  it('is not told as empty while the server does not answer', async () => {
    await expect(discover({ nodes: 503 })).rejects.toThrow();
  });
});
