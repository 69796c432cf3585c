import { describe, expect, it } from 'vitest';
import { compiled, endpoints, flow } from '../../test/flows/compile-rig.ts';

describe('peers of policies', () => {
  describe('for the API server', () => {
    const api = { id: 'api', from: 'web', to: 'api' };

    it('takes its own addresses and that of its Service, on the ports of the facts', () => {
      const { policy, notes } = compiled([api], {
        apiServer: { serviceIP: '10.96.0.1', endpoints: ['192.0.2.1', '2001:db8::1'] },
      });
      expect(policy('shop.web')?.egress).toEqual([
        {
          to: ['10.96.0.1/32', '192.0.2.1/32', '2001:db8::1/128'].map((cidr) => ({ ipBlock: { cidr } })),
          ports: [
            { port: 443, protocol: 'TCP' },
            { port: 6443, protocol: 'TCP' },
          ],
        },
      ]);
      expect(notes).toContainEqual({ subject: 'api', message: 'uses the assumed fact apiServer.ports = [443,6443]' });
      expect(notes).toContainEqual({ subject: 'api', message: 'uses the declared fact apiServer.serviceIP = "10.96.0.1"' });
    });

    it('refuses every address unless that is allowed', () => {
      const facts = { apiServer: { endpoints: ['0.0.0.0/0'] } };
      expect(() => compiled([api], facts)).toThrow('endpoint api: 0.0.0.0/0 for the API server is every address; name its own');
      expect(compiled([api], facts, { allowBroad: true }).policy('shop.web')?.egress).toHaveLength(1);
    });

    it('refuses to say nothing when no address is known', () => {
      expect(() => compiled([api], { apiServer: { serviceIP: '' } })).toThrow(
        'flow api: neither the address of the API server nor of its Service is known',
      );
    });

    it('names it as an entity under Cilium, where addresses do not match it', () => {
      const { find, policy } = compiled([api], { cni: 'cilium', apiServer: { serviceIP: '' } });
      expect(find('shop.web', 'CiliumNetworkPolicy')).toMatchObject({
        apiVersion: 'cilium.io/v2',
        spec: {
          endpointSelector: { matchLabels: { app: 'web' } },
          egress: [
            {
              toEntities: ['kube-apiserver'],
              toPorts: [
                {
                  ports: [
                    { port: '443', protocol: 'TCP' },
                    { port: '6443', protocol: 'TCP' },
                  ],
                },
              ],
            },
          ],
        },
      });
      expect(policy('shop.web')).toEqual({ podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Ingress', 'Egress'] });
    });
  });

  it('opens webhooks to the nodes, or with a note to everybody while those are not known', () => {
    const hook = flow('hook', 'api', 'hooks', 9443, { kind: 'webhook' });
    expect(
      compiled([hook], { nodeCIDRs: ['10.0.0.0/16'], apiServer: { endpoints: ['192.0.2.1'] } }).policy('shop.hooks')?.ingress,
    ).toEqual([
      {
        from: [{ ipBlock: { cidr: '10.0.0.0/16' } }, { ipBlock: { cidr: '192.0.2.1/32' } }],
        ports: [{ port: 9443, protocol: 'TCP' }],
      },
    ]);
    const open = compiled([hook]);
    expect(open.policy('shop.hooks')?.ingress).toEqual([{ ports: [{ port: 9443, protocol: 'TCP' }] }]);
    expect(open.notes.map(({ message }) => message)).toContain(
      'no selector names the API server and nodeCIDRs are not known, so the port is open to every source',
    );
  });

  it('writes only exceptions that lie inside their range, and a range of each family', () => {
    const internet = {
      internet: { cidr: ['0.0.0.0/0', '::/0', '10.1.0.0/16'], except: ['10.0.0.0/8', '10.2.0.0/16', 'fc00::/7'] },
    };
    const { policy } = compiled(
      [flow('a', 'web', 'internet')],
      { ipFamilies: ['IPv4', 'IPv6'] },
      {},
      { endpoints: { ...endpoints, ...internet } },
    );
    expect(policy('shop.web')?.egress?.[0]?.to).toEqual([
      { ipBlock: { cidr: '0.0.0.0/0', except: ['10.0.0.0/8'] } },
      { ipBlock: { cidr: '::/0', except: ['fc00::/7'] } },
    ]);
  });

  it('takes the addresses beside names, the names themselves under Cilium, and refuses names it cannot say', () => {
    const byName = [flow('a', 'web', 'partner', 443)];
    expect(compiled(byName).policy('shop.web')?.egress?.[0]?.to).toEqual([{ ipBlock: { cidr: '198.51.100.0/24' } }]);
    const cilium = compiled(byName, { cni: 'cilium' });
    expect(cilium.policy('shop.web')).not.toHaveProperty('egress');
    expect(cilium.find('shop.web', 'CiliumNetworkPolicy')?.spec).toMatchObject({
      egress: [
        {
          toFQDNs: [{ matchPattern: '*.example.com' }, { matchName: 'example.com' }],
          toPorts: [{ ports: [{ port: '443', protocol: 'TCP' }] }],
        },
        {
          toEndpoints: [{ matchLabels: { 'k8s:io.kubernetes.pod.namespace': 'kube-system', 'k8s-app': 'kube-dns' } }],
          toPorts: [{ rules: { dns: [{ matchPattern: '*' }] } }],
        },
      ],
    });
    expect(cilium.find('shop.web', 'CiliumNetworkPolicy')?.metadata.annotations).toEqual({
      'net.brokkr.dev/flows': '{"egress":[["a"],["a"]]}',
    });
    expect(() => compiled([flow('a', 'web', 'nameless')])).toThrow(
      'flow a: endpoint nameless is known by names, which generic policies cannot match',
    );
  });
});
