import { describe, expect, it } from 'vitest';
import { FlowSetError } from './document.ts';
import { loadFlowSet } from './load.ts';

const HEAD = 'apiVersion: net.brokkr.dev/v1\nkind: FlowSet\nmetadata: { name: shop }\nspec:\n';
const ZONES = '  zones: [{ name: app, namespace: shop }, { name: out }]\n';
const ENDPOINTS = '  endpoints:\n    web: { zone: app, pods: { app: web } }\n    world: { any: true }\n';
const FLOWS = '  flows:\n    - { id: in, from: world, to: web, ports: 80 }\n';

function problemsOf(text: string): string[] {
  try {
    loadFlowSet(text, 'f.yaml');
    return [];
  } catch (error) {
    if (!(error instanceof FlowSetError)) throw error;
    return error.message.split('\n');
  }
}

/** A set with further endpoints or flows, each on a line of its own. */
const withEndpoint = (endpoint: string) => `${HEAD}${ZONES}${ENDPOINTS}    ${endpoint}\n${FLOWS}`;
const withFlow = (flow: string) => `${HEAD}${ZONES}${ENDPOINTS}${FLOWS}    - ${flow}\n`;
const withSpec = (lines: string) => `${HEAD}${ZONES}${ENDPOINTS}${FLOWS}  ${lines}\n`;

describe('loadFlowSet', () => {
  it('reads a set', () => {
    const { name, flows, profiles } = loadFlowSet(`${HEAD}${ZONES}${ENDPOINTS}${FLOWS}`, 'f.yaml');
    expect({ name, profiles, ids: flows.map(({ flow }) => flow.id) }).toEqual({ name: 'shop', profiles: [], ids: ['in'] });
  });

  it.each([
    ['text that is no YAML', 'a: [', ['f.yaml:1:5: ']],
    ['nothing', '# nothing\n', ['f.yaml: the file holds no document']],
    ['a second document', `${HEAD}${ZONES}${ENDPOINTS}${FLOWS}---\na: 1\n`, ['the text has 2 documents, the limit is 1']],
    ['another kind', HEAD.replace('FlowSet', 'Flows') + ZONES + ENDPOINTS + FLOWS, ['f.yaml:2:1: kind must be FlowSet']],
    ['a missing field', HEAD + ZONES + ENDPOINTS, ['f.yaml:4:1: spec needs the field flows']],
    [
      'an unknown field',
      withFlow('{ id: b, from: web, to: world, port: 80, ports: 80 }'),
      ['f.yaml:11:38: unknown field port in spec.flows[1], known are id, from, to, ports, protocol'],
    ],
    [
      'an empty list of peers',
      withFlow('{ id: b, from: [], to: world, ports: 80 }'),
      ['f.yaml:11:16: spec.flows[1].from must not be empty'],
    ],
    ['an empty list of ports', withFlow('{ id: b, from: web, to: world, ports: [] }'), ['spec.flows[1].ports must not be empty']],
    ['an empty list of ranges', withEndpoint('none: { cidr: [] }'), ['f.yaml:9:13: spec.endpoints.none.cidr must not be empty']],
    [
      'an empty list of values',
      withEndpoint('some: { zone: app, pods: { matchExpressions: [{ key: a, operator: In, values: [] }] } }'),
      ['f.yaml:9:75: endpoint some: values are required with In'],
    ],
    [
      'an unknown operator',
      withEndpoint('some: { zone: app, pods: { matchExpressions: [{ key: a, operator: Has }] } }'),
      ['endpoint some: must be In, NotIn, Exists or DoesNotExist'],
    ],
    [
      'a label that is a number',
      withEndpoint('some: { zone: app, pods: { tier: 1 } }'),
      ['f.yaml:9:32: endpoint some: must be text'],
    ],
    [
      'an unknown endpoint',
      withFlow('{ id: b, from: wbe, to: world, ports: 80 }'),
      ['f.yaml:11:16: flow b: there is no endpoint wbe, known are web, world, dns'],
    ],
    [
      'an unknown proxy',
      withFlow('{ id: b, from: world, to: web, ports: 80, via: [{ endpoint: lb, port: 1 }] }'),
      ['flow b: there is no endpoint lb'],
    ],
    [
      'an unknown zone',
      withEndpoint('db: { zone: data, pods: {} }'),
      ['f.yaml:9:11: endpoint db: there is no zone data, known are app, out'],
    ],
    [
      'an unknown profile',
      `${withSpec('profiles: [live]')}`.replace('ports: 80', 'ports: 80, profiles: [dev]'),
      ['flow in: there is no profile dev, known are live'],
    ],
    ['options of nobody', withSpec('options: { db: { dns: false } }'), ['f.yaml:11:14: there is no endpoint db']],
    [
      'an acceptance for nobody',
      withSpec('accepted: [{ lint: BROAD-CIDR, subject: db, reason: why }]'),
      ['BROAD-CIDR is accepted for db, which is no flow, endpoint or zone'],
    ],
    ['an id twice', withFlow('{ id: in, from: web, to: world, ports: 80 }'), ['f.yaml:11:9: flow id in is used twice']],
    [
      'a zone twice',
      `${HEAD}${ZONES.replace('name: out', 'name: app')}${ENDPOINTS}${FLOWS}`,
      ['f.yaml:5:45: zone app is declared twice'],
    ],
    [
      'a namespace twice',
      `${HEAD}${ZONES.replace('name: out', 'name: b, namespace: shop')}${ENDPOINTS}${FLOWS}`,
      ['namespace shop is that of zone app already'],
    ],
    [
      'isolation without a namespace',
      `${HEAD}${ZONES.replace('name: out', 'name: out, isolate: [ingress]')}${ENDPOINTS}${FLOWS}`,
      ['zone out has no namespace, so nothing can be isolated in it'],
    ],
    [
      'endpoints that would share a policy',
      withEndpoint('WEB: { zone: app, pods: {} }'),
      ['f.yaml:9:5: endpoint WEB and endpoint web would have policies of one name'],
    ],
    [
      'nobody',
      withEndpoint('db: { zone: app }'),
      ['f.yaml:9:5: endpoint db needs exactly one of pods, namespaces, cidr, any, builtin, names'],
    ],
    ['two at once', withEndpoint('db: { any: true, cidr: 10.0.0.0/8 }'), ['endpoint db needs exactly one of', 'it has 2']],
    [
      'no CIDR',
      withEndpoint('db: { cidr: 10.0.0.0/33 }'),
      ['f.yaml:9:11: endpoint db: "10.0.0.0/33" is no CIDR and none of the named sets pods, services'],
    ],
    [
      'an exception outside',
      withEndpoint('db: { cidr: 10.0.0.0/8, except: [10.1.0.0/16, 11.0.0.0/16] }'),
      ['f.yaml:9:51: endpoint db: except 11.0.0.0/16 does not lie inside 10.0.0.0/8'],
    ],
    [
      'an exception that is all',
      withEndpoint('db: { cidr: 10.0.0.0/8, except: 10.0.0.0/8 }'),
      ['except 10.0.0.0/8 does not lie inside 10.0.0.0/8'],
    ],
    ['exceptions of nothing', withEndpoint('db: { any: true, except: 10.0.0.0/8 }'), ['endpoint db: except goes with cidr']],
    ['a port out of range', withFlow('{ id: b, from: web, to: world, ports: [0] }'), ['spec.flows[1].ports[0] must be >= 1']],
    [
      'a range out of range',
      withFlow('{ id: b, from: web, to: world, ports: 80-70000 }'),
      ['f.yaml:11:38: flow b: 80-70000 is not within 1 to 65535'],
    ],
    ['a range that is none', withFlow('{ id: b, from: web, to: world, ports: 90-80 }'), ['flow b: 90-80 ends before it begins']],
    [
      'a port that is nothing',
      withFlow('{ id: b, from: web, to: world, ports: Web_1 }'),
      ['flow b: "Web_1" is neither a port, first-last, all, nor the name of a port'],
    ],
    [
      'a day that is none',
      withFlow("{ id: b, from: web, to: world, ports: 80, expires: '2026-02-30' }"),
      ['flow b: 2026-02-30 is no date'],
    ],
    [
      'a need that is optional',
      withFlow('{ id: b, from: web, to: world, ports: 80, required: true, feature: x }'),
      ['flow b: it cannot be required and depend on the feature x'],
    ],
    [
      'a template without a parameter',
      withFlow('{ id: b, template: tier-ingress, with: { tier: web, from: world } }'),
      ['f.yaml:11:7: flow b: template tier-ingress needs with.ports'],
    ],
    [
      'a template with an unknown parameter',
      withFlow('{ id: b, template: isolate-namespace, with: { pods: web, to: web } }'),
      ['template isolate-namespace has no parameter to, known are pods'],
    ],
    [
      'a template that is overruled',
      withFlow('{ id: b, template: isolate-namespace, to: web, with: { pods: web } }'),
      ['template isolate-namespace says to; give its parameters in with'],
    ],
    [
      'a Service without its name',
      withEndpoint('db: { services: [{ name: db, type: ExternalName }] }'),
      ['service db: externalName goes with the type ExternalName'],
    ],
  ])('refuses %s, and says where and what is allowed', (_, text, expected) => {
    const problems = problemsOf(text).join('\n');
    for (const part of expected) expect(problems).toContain(part);
  });

  it('tells everything at once, and no more than a hundred problems', () => {
    const flows = Array.from({ length: 120 }, (_, at) => `    - { id: f${at}, from: web, to: nobody, ports: 80 }\n`).join('');
    const problems = problemsOf(HEAD + ZONES + ENDPOINTS + FLOWS + flows);
    expect(problems).toHaveLength(101);
    expect(problems.at(-1)).toBe('20 more problems are not shown (the limit is 100)');
  });

  it('expands templates into flows with ids of their own', () => {
    const text = withFlow(
      '{ id: b, template: platform-access, with: { pods: web, monitoring: world, metricsPorts: 9, logging: world, loggingPorts: 8 }, owner: ops }',
    );
    const { flows } = loadFlowSet(text, 'f.yaml');
    expect(flows.slice(1).map(({ flow }) => flow)).toEqual([
      { id: 'b-metrics', from: 'world', to: 'web', ports: 9, kind: 'metrics', owner: 'ops' },
      { id: 'b-logs', from: 'web', to: 'world', ports: 8, kind: 'system', owner: 'ops' },
    ]);
  });
});
