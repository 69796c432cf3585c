import { describe, expect, it } from 'vitest';
import { compiled, endpoints, flow } from '../../test/flows/compile-rig.ts';
import { specModel } from '../../test/flows/spec-model.ts';
import { compile, type PolicyObject } from './compile.ts';
import { policyText } from './policy-text.ts';

const idsOf = (object: PolicyObject | undefined) => JSON.parse(object?.metadata.annotations['net.brokkr.dev/flows'] ?? '');
const inShop = { matchLabels: { 'kubernetes.io/metadata.name': 'shop' } };

describe('compile', () => {
  it('denies by default in each zone that isolates, after everything that allows', () => {
    const { objects } = compiled([flow('a', 'world', 'web')]);
    expect(objects.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`)).toEqual([
      'shop/shop.web',
      'ops/shop.default-deny',
      'shop/shop.default-deny',
    ]);
    expect(objects.slice(1).map(({ spec, metadata }) => [spec, metadata.annotations['brokkr.io/wave']])).toEqual([
      [{ podSelector: {}, policyTypes: ['Ingress'] }, '1'],
      [{ podSelector: {}, policyTypes: ['Ingress', 'Egress'] }, '1'],
    ]);
    expect(objects[0]?.metadata.annotations).not.toHaveProperty(['brokkr.io/wave']);
  });

  it('says a flow between two isolated ends at both, its peer as one item of namespace and pods', () => {
    const { policy } = compiled([flow('a', 'web', 'dataBase', [5432, '6000-6010', 'all'].slice(0, 2))]);
    const ports = [
      { port: 5432, protocol: 'TCP' },
      { port: 6000, endPort: 6010, protocol: 'TCP' },
    ];
    expect(policy('shop.web')).toEqual({
      podSelector: { matchLabels: { app: 'web' } },
      policyTypes: ['Ingress', 'Egress'],
      egress: [{ to: [{ namespaceSelector: inShop, podSelector: { matchLabels: { app: 'db' } } }], ports }],
    });
    expect(policy('shop.data-base')?.ingress).toEqual([
      { from: [{ namespaceSelector: inShop, podSelector: { matchLabels: { app: 'web' } } }], ports },
    ]);
  });

  it('says nothing for directions and zones that are not denied', () => {
    const { objects, policy } = compiled([flow('a', 'ops', 'web'), flow('b', 'open', 'ops')]);
    expect(objects.map(({ metadata }) => metadata.name)).toEqual([
      'shop.ops',
      'shop.web',
      'shop.default-deny',
      'shop.default-deny',
    ]);
    expect(policy('shop.ops')).toMatchObject({ policyTypes: ['Ingress'], ingress: [expect.anything()] });
    expect(policy('shop.ops')).not.toHaveProperty('egress');
  });

  it('leaves peers out only where a flow says the world', () => {
    const { policy } = compiled([flow('in', 'world', 'web'), flow('out', 'web', 'world', 443)]);
    expect(policy('shop.web')).toMatchObject({
      ingress: [{ ports: [{ port: 80, protocol: 'TCP' }] }],
      egress: [{ ports: [{ port: 443, protocol: 'TCP' }] }],
    });
  });

  it('names the flows of each rule; rules that say the same, or less than one for everybody, become one', () => {
    const { find, policy } = compiled([
      flow('any', 'world', 'web', '80-90'),
      flow('less', 'dataBase', 'web', 85),
      flow('more', 'dataBase', 'web', [85, 95]),
      flow('same', 'dataBase', 'web', [85, 95]),
    ]);
    expect(idsOf(find('shop.web'))).toEqual({
      ingress: [
        ['any', 'less'],
        ['more', 'same'],
      ],
    });
    expect(policy('shop.web')?.ingress).toHaveLength(2);
  });

  it('makes a policy of each flow when asked, and of each hop of a flow through proxies', () => {
    const via = { via: [{ endpoint: 'hooks', port: 8443 }] };
    const { objects } = compiled([flow('a', 'web', 'dataBase', 1, via)], {}, { granularity: 'flow' });
    const names = objects.filter(({ metadata }) => metadata.namespace === 'shop').map(({ metadata }) => metadata.name);
    expect(names).toEqual(['shop.data-base.a', 'shop.hooks.a', 'shop.web.a', 'shop.default-deny']);
    expect(objects.find(({ metadata }) => metadata.name === 'shop.hooks.a')?.spec).toMatchObject({
      ingress: [{ from: [{ podSelector: { matchLabels: { app: 'web' } } }], ports: [{ port: 8443 }] }],
      egress: [{ to: [{ podSelector: { matchLabels: { app: 'db' } } }], ports: [{ port: 1 }] }],
    });
  });

  it('opens DNS at the pods and the node-local address of the facts, on UDP and TCP', () => {
    const facts = {
      dns: {
        namespace: 'openshift-dns',
        selector: { matchLabels: { dns: 'default' } },
        ports: [5353],
        nodeLocalIP: '169.254.20.10',
      },
    };
    const { policy } = compiled([], facts, {}, { endpoints: { web: { zone: 'app', pods: { app: 'web' } } } });
    expect(policy('shop.web')?.egress).toEqual([
      {
        to: [
          {
            namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'openshift-dns' } },
            podSelector: { matchLabels: { dns: 'default' } },
          },
          { ipBlock: { cidr: '169.254.20.10/32' } },
        ],
        ports: [
          { port: 5353, protocol: 'UDP' },
          { port: 5353, protocol: 'TCP' },
        ],
      },
    ]);
  });

  it('replaces the port of a Service by the one behind it, and says so', () => {
    const services = [
      {
        name: 'db',
        ports: [
          { port: 80, targetPort: 5432 },
          { port: 5432, targetPort: 9 },
        ],
      },
    ];
    const db = { zone: 'app', pods: { app: 'db' }, services };
    const { policy, notes } = compiled(
      [flow('a', 'web', 'dataBase', [80, 5432])],
      {},
      {},
      { endpoints: { ...endpoints, dataBase: db } },
    );
    expect(policy('shop.data-base')?.ingress?.[0]?.ports).toEqual([
      { port: 5432, protocol: 'TCP' },
      { port: 5432, protocol: 'TCP' },
    ]);
    expect(notes).toContainEqual({ subject: 'a', message: 'port 80/TCP of Service db is target port 5432, where policies act' });
  });

  it('says of clients of a LoadBalancer or NodePort when their addresses can be seen', () => {
    const web = {
      zone: 'app',
      pods: {},
      dns: false,
      services: [{ name: 'edge', type: 'NodePort', ports: [{ port: 443, targetPort: 8443 }] }],
    };
    const { notes } = compiled([flow('a', 'office', 'web', 8443)], {}, {}, { endpoints: { ...endpoints, web } });
    const message =
      'clients come through Service edge (NodePort): their addresses are seen with externalTrafficPolicy: Local only';
    expect(notes).toEqual([{ subject: 'a', message }]);
  });

  it('compiles one cluster of several, and reaches another by its addresses', () => {
    const two = [
      { name: 'a', namespace: 'shop', cluster: 'a' },
      { name: 'b', namespace: 'shop', cluster: 'b' },
    ];
    const ends = {
      web: { zone: 'a', pods: {}, dns: false },
      far: { zone: 'b', pods: {}, dns: false, firewall: { cidrs: ['192.0.2.7/32'] } },
    };
    const set = { zones: two, endpoints: ends, flows: [flow('x', 'web', 'far')] };
    expect(() => compile(specModel(set))).toThrow('the flow set is about several clusters, choose one of a, b');
    const { objects } = compile(specModel(set), { cluster: 'a' });
    expect(objects.map(({ metadata }) => metadata.name)).toEqual(['shop.web', 'shop.default-deny']);
    expect(objects[0]?.spec).toMatchObject({ egress: [{ to: [{ ipBlock: { cidr: '192.0.2.7/32' } }] }] });
    expect(() => compile(specModel(set), { cluster: 'b' })).toThrow(
      'flow x: endpoint web is in zone a, of another cluster: give its addresses in firewall.cidrs',
    );
  });

  it('labels policies with the set and the digest of what they say, and is the same each time', () => {
    const flows = [flow('a', 'web', 'dataBase'), flow('b', 'world', 'web')];
    const [first, again, changed] = [
      compiled(flows),
      compiled(flows),
      compiled([flow('a', 'web', 'dataBase', 81), flow('b', 'world', 'web')]),
    ];
    expect(policyText(first.objects)).toBe(policyText(again.objects));
    const labels = (result: typeof first, name: string) => result.find(name)?.metadata.labels;
    expect(labels(first, 'shop.web')).toMatchObject({
      'net.brokkr.dev/flowset': 'shop',
      'net.brokkr.dev/hash': expect.stringMatching(/^[0-9a-f]{16}$/),
    });
    expect(labels(changed, 'shop.web')).not.toEqual(labels(first, 'shop.web'));
    expect(labels(changed, 'shop.default-deny')).toEqual(labels(first, 'shop.default-deny'));
  });
});
