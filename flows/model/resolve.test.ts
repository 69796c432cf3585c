import { describe, expect, it } from 'vitest';
import { FlowSetError } from './document.ts';
import { loadFacts, type PartialFacts, resolveFacts } from './facts.ts';
import { loadFlowSet } from './load.ts';
import type { Model } from './model.ts';
import { resolve, type Selection } from './resolve.ts';

/** The model of a spec, given as JSON. */
function modelOf(spec: object, selection: Partial<Selection> = {}, facts: PartialFacts = {}): Model {
  const text = JSON.stringify({ apiVersion: 'net.brokkr.dev/v1', kind: 'FlowSet', metadata: { name: 'shop' }, spec });
  return resolve(loadFlowSet(text, 'f.yaml'), {
    today: '2026-06-01',
    facts: resolveFacts({ facts, source: 'discovered' }),
    ...selection,
  });
}

const zones = [
  { name: 'app', namespace: 'shop' },
  { name: 'ops', namespace: 'ops', isolate: [] },
  { name: 'far', namespace: 'shop', cluster: 'far' },
  { name: 'out' },
];
const endpoints = {
  web: { zone: 'app', pods: { app: 'web' }, profiles: { development: { pods: { app: 'dev' }, dns: false } } },
  db: { zone: 'app', pods: { app: 'db' }, dns: false },
  ops: { zone: 'ops', pods: {} },
  far: { zone: 'far', pods: {} },
  world: { any: true },
  office: { zone: 'out', cidr: '192.0.2.0/24' },
  api: { builtin: 'kube-api' },
};
const flow = (id: string, from: unknown, to: unknown, more: object = {}) => ({ id, from, to, ports: 80, ...more });
const ids = ({ flows }: Model) => flows.map(({ id }) => id);

describe('resolve', () => {
  it('takes the flows of the profile, and says why the others are dropped', () => {
    const flows = [
      flow('always', 'world', 'web'),
      flow('dev', 'world', 'db', { profiles: ['development'] }),
      flow('old', 'world', 'db', { expires: '2026-05-31' }),
      flow('last-day', 'world', 'db', { expires: '2026-06-01' }),
      flow('traces', 'web', 'office', { feature: 'otlp' }),
      flow('debug', 'web', 'office', { feature: 'debug' }),
    ];
    const spec = { zones, endpoints, flows, profiles: ['production', 'development'], features: { debug: false } };
    const model = modelOf(spec);
    expect(model.profiles).toEqual(['production']);
    expect(ids(model)).toEqual(['always', 'last-day', 'traces', 'dns.web', 'dns.far']);
    expect(model.dropped.map(({ flow: { id }, why }) => [id, why])).toEqual([
      ['dev', 'profile'],
      ['old', 'expired'],
      ['debug', 'feature'],
    ]);
    expect(ids(modelOf(spec, { profiles: ['development'], with: ['debug'], without: ['otlp'] }))).toEqual([
      'always',
      'dev',
      'last-day',
      'debug',
      'dns.far',
    ]);
    expect(() => modelOf(spec, { profiles: ['staging'] })).toThrow('no profile staging, known are production, development');
    expect(() => modelOf(spec, { without: ['oltp'] })).toThrow('no feature oltp, known are otlp, debug');
  });

  it('lays options and then profiles over endpoints; who an endpoint is gets replaced as a whole', () => {
    const spec = { zones, endpoints, flows: [], options: { web: { title: 'Web' }, office: { any: true } } };
    expect(modelOf(spec, { profiles: ['development'] }).endpoints.get('web')).toMatchObject({
      title: 'Web',
      peer: { kind: 'pods', selector: { matchLabels: { app: 'dev' } } },
      dns: false,
      overlays: ['development'],
    });
    expect(modelOf(spec, { profiles: ['development'] }).endpoints.get('office')?.peer).toEqual({ kind: 'any' });
  });

  it.each([
    ['world', 'web', 'inbound', true],
    ['web', 'office', 'outbound', true],
    ['web', 'db', 'internal', false],
    ['web', 'ops', 'internal', false],
    ['web', 'api', 'local', false],
    ['web', 'far', 'outbound', true],
    ['office', 'world', 'outbound', true],
  ] as const)('derives the direction from %s to %s: %s', (from, to, direction, northSouth) => {
    expect(modelOf({ zones, endpoints, flows: [flow('a', from, to)] }).flows[0]).toMatchObject({ direction, northSouth });
  });

  it('refuses a stated direction that the zones contradict', () => {
    const flows = [flow('a', 'world', 'web', { direction: 'outbound' })];
    expect(() => modelOf({ zones, endpoints, flows })).toThrow(
      'flow a: it is said to be outbound, but the zones of world and web make it inbound',
    );
    expect(modelOf({ zones, endpoints, flows: [flow('a', 'ops', 'web', { direction: 'inbound' })] }).flows[0]?.direction).toBe(
      'inbound',
    );
  });

  it('makes one flow of each pair, all with the id of the declaration', () => {
    const { flows } = modelOf({ zones, endpoints, flows: [flow('a', ['web', 'db'], ['ops', 'office'])] });
    expect(flows.slice(0, 4).map(({ id, from, to }) => `${id} ${from} ${to}`)).toEqual([
      'a web ops',
      'a web office',
      'a db ops',
      'a db office',
    ]);
  });

  it('fills in ports and protocols', () => {
    const flows = [
      { id: 'api', from: 'db', to: 'api' },
      { id: 'dns', from: 'db', to: 'dns' },
      flow('all', 'db', 'office', { ports: 'all' }),
      flow('tcp', 'db', 'office', { ports: 'all', protocol: 'TCP' }),
      flow('list', 'db', 'office', { ports: ['8080-8090', 443] }),
    ];
    const model = modelOf({ zones, endpoints, flows }, {}, { apiServer: { ports: [6443] }, dns: { ports: [5353] } });
    expect(model.flows.slice(0, 5).map(({ protocols, ports }) => [protocols.join(), JSON.stringify(ports)])).toEqual([
      ['TCP', '[{"kind":"range","first":6443,"last":6443}]'],
      ['UDP,TCP', '[{"kind":"range","first":5353,"last":5353}]'],
      ['TCP,UDP,SCTP', '[{"kind":"all"}]'],
      ['TCP', '[{"kind":"all"}]'],
      ['TCP', '[{"kind":"range","first":8080,"last":8090},{"kind":"range","first":443,"last":443}]'],
    ]);
    expect(() => modelOf({ zones, endpoints, flows: [{ id: 'a', from: 'web', to: 'db' }] })).toThrow(
      'flow a: it needs the field ports',
    );
  });

  it.each([
    [
      'a named port that is not declared',
      flow('a', 'web', 'db', { ports: 'http' }),
      'endpoint db has no TCP port named http in namedPorts, none is declared',
    ],
    ['all among other ports', flow('a', 'web', 'db', { ports: ['all', 80] }), 'all stands alone among the ports'],
    ['the API server as a client', flow('a', 'api', 'web'), 'what comes from the API server is of the kind webhook'],
    [
      'webhooks from elsewhere',
      flow('a', 'web', 'db', { kind: 'webhook' }),
      'webhooks come from an endpoint with builtin: kube-api',
    ],
    [
      'metrics for everybody',
      flow('a', 'world', 'web', { kind: 'metrics' }),
      'metrics are for a named endpoint that scrapes them',
    ],
  ])('refuses %s', (_, declared, message) => {
    expect(() => modelOf({ zones, endpoints, flows: [declared] })).toThrow(message);
  });

  it('refuses endpoints that a cluster leaves without anybody', () => {
    const only6 = { ...endpoints, six: { cidr: '2001:db8::/32' }, nodes: { cidr: 'nodes' }, lost: { pods: {} } };
    expect(() => modelOf({ zones, endpoints: only6, flows: [] })).toThrow(
      expect.objectContaining({
        problems: [
          expect.objectContaining({
            message: expect.stringContaining('endpoint six: none of the addresses 2001:db8::/32 is left'),
          }),
          expect.objectContaining({ message: expect.stringContaining('endpoint nodes: none of the addresses nodes is left') }),
          expect.objectContaining({ message: 'endpoint lost: pods need a zone with a namespace' }),
        ],
      }),
    );
  });

  it('makes except of named sets and the facts of the cluster, for the families that it has', () => {
    const internet = { internet: { cidr: ['0.0.0.0/0', '::/0'], except: ['private', '8.8.8.0/24'] } };
    const facts = { podCIDRs: ['11.0.0.0/16'], serviceCIDRs: ['10.96.0.0/12'], nodeCIDRs: ['12.0.0.0/16'] };
    const peer = modelOf({ zones, endpoints: internet, flows: [] }, {}, facts).endpoints.get('internet')?.peer;
    expect(peer).toMatchObject({
      cidrs: ['0.0.0.0/0'],
      except: expect.arrayContaining(['10.0.0.0/8', '11.0.0.0/16', '12.0.0.0/16', '8.8.8.0/24']),
    });
    expect(peer).not.toMatchObject({ except: expect.arrayContaining(['10.96.0.0/12']) }); // inside 10.0.0.0/8
    const both = modelOf({ zones, endpoints: internet, flows: [] }, {}, { ...facts, ipFamilies: ['IPv4', 'IPv6'] }).endpoints.get(
      'internet',
    )?.peer;
    expect(both).toMatchObject({
      cidrs: ['0.0.0.0/0', '::/0'],
      except: expect.arrayContaining(['fc00::/7', '::1/128', '64:ff9b::/96']),
    });
  });

  describe("with Brokkr's own agent", () => {
    const agent = { ...endpoints, agent: { zone: 'app', pods: { app: 'agent' }, dns: false, self: 'agent' } };

    it('adds its ways to DNS and to the API server, last', () => {
      const control = flow('report', 'agent', 'office', { kind: 'control', ports: 3000 });
      const model = modelOf({ zones, endpoints: agent, flows: [control] });
      expect(ids(model)).toEqual(['report', 'dns.web', 'dns.far', 'dns.agent', 'kube-api.agent']);
      expect(model.flows.at(-1)).toMatchObject({ from: 'agent', to: 'api', kind: 'control', required: true });
    });

    it('refuses a set that would cut it off from its broker', () => {
      const optional = flow('report', 'agent', 'office', { kind: 'control', feature: 'broker' });
      for (const flows of [[], [optional]])
        expect(() => modelOf({ zones, endpoints: agent, flows })).toThrow(
          "endpoint agent is Brokkr's agent: declare its required way to the broker",
        );
    });
  });
});

describe('resolveFacts', () => {
  it('takes the strongest of each fact and remembers its source', () => {
    const facts = resolveFacts(
      { facts: { cni: 'cilium', dns: { ports: [5353] } }, source: 'declared' },
      { facts: { cni: 'calico', podCIDRs: ['10.1.0.0/16'] }, source: 'discovered' },
    );
    expect(facts).toMatchObject({ cni: 'cilium', podCIDRs: ['10.1.0.0/16'], dns: { namespace: 'kube-system', ports: [5353] } });
    expect(facts.sources).toMatchObject({
      cni: 'declared',
      podCIDRs: 'discovered',
      'dns.ports': 'declared',
      'dns.namespace': 'assumed',
    });
  });
});

describe('loadFacts', () => {
  const HEAD = 'apiVersion: net.brokkr.dev/v1\nkind: ClusterFacts\nmetadata: { name: c }\nspec:\n';
  it.each([
    [
      'podCIDRs: [10.0.0.0/8]\n  serviceCIDRs: [10.96.0.0/12]',
      'f.yaml:6:18: serviceCIDRs 10.96.0.0/12 overlaps podCIDRs 10.0.0.0/8: an address would belong to both',
    ],
    ['nodeCIDRs: [10.0.0.0]', 'f.yaml:5:15: nodeCIDRs: 10.0.0.0 is no CIDR'],
    ['apiServer: { serviceIP: 10.0.0.256 }', 'apiServer.serviceIP: 10.0.0.256 is no IP address'],
    ['apiServer: { endpoints: [api.local] }', 'apiServer.endpoints.0: api.local is neither an IP address nor a CIDR'],
    ['cni: flannel', 'f.yaml:5:3: spec.cni must be one of generic, calico, cilium, aws, ovn'],
    ['cnis: calico', 'unknown field cnis in spec, known are cni, podCIDRs'],
  ])('refuses %j', (spec, message) => {
    expect(() => loadFacts(`${HEAD}  ${spec}\n`, 'f.yaml')).toThrow(message);
    expect(() => loadFacts(`${HEAD}  ${spec}\n`, 'f.yaml')).toThrow(FlowSetError);
  });

  it('takes ranges that are disjoint, as those that WebGrip assumes', () => {
    const spec = '  podCIDRs: [10.244.0.0/16]\n  serviceCIDRs: [10.96.0.0/12]\n  nodeCIDRs: [10.0.0.0/16]\n';
    expect(loadFacts(HEAD + spec, 'f.yaml')).toEqual({
      podCIDRs: ['10.244.0.0/16'],
      serviceCIDRs: ['10.96.0.0/12'],
      nodeCIDRs: ['10.0.0.0/16'],
    });
  });
});
