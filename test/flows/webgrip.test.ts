import { describe, expect, it } from 'vitest';
import { compile } from '#flows/compile/compile.ts';
import { policyText } from '#flows/compile/policy-text.ts';
import { lintModel } from '#flows/lint/model-lints.ts';
import type { Protocol } from '#flows/model/model.ts';
import {
  cellsOf,
  documentsOf,
  evaluatorOf,
  exampleModel,
  examplePath,
  exampleText,
  isAllowed,
  type TruthCell,
  truthCsv,
} from './flow-rig.ts';

const isolated = [
  'ingress-traefik/traefik',
  'apps/web',
  'apps/api',
  'apps/stray',
  'platform/prometheus',
  'platform/grafana',
  'platform/loki',
];
const pods = [...isolated, 'kube-system/kube-dns', 'elsewhere/foreign'];
const [loadBalancer, bastion, beside, payments, apiServer] = [
  '203.0.113.20',
  '192.0.2.130',
  '192.0.2.144',
  '198.51.100.9',
  '10.0.0.2',
];
const addresses = [
  loadBalancer,
  bastion,
  beside,
  payments,
  apiServer,
  '10.96.0.1',
  '8.8.8.8',
  '10.244.9.9',
  '10.96.7.7',
  '10.0.7.7',
  '169.254.169.254',
];
const ports: readonly (readonly [number, Protocol])[] = [
  [53, 'UDP'],
  ...[53, 80, 443, 3000, 3100, 6443, 8000, 8080, 8443, 9000, 9090, 9100, 9102].map((port) => [port, 'TCP'] as const),
];
const cells = cellsOf(pods, addresses, ports);

/** What the documentation's tables and examples say, connection by connection: source, destination, TCP ports. */
const TABLE: readonly (readonly [source: string, destination: string, ports: readonly number[]])[] = [
  [loadBalancer, 'ingress-traefik/traefik', [8443]],
  ['ingress-traefik/traefik', 'apps/web', [8080]],
  ['apps/web', 'apps/api', [8080]],
  ['apps/api', payments, [443]],
  ['apps/api', '8.8.8.8', [443]],
  ...[loadBalancer, bastion, beside].map((address) => ['apps/api', address, [443]] as const), // addresses of the Internet, all of them
  ['ingress-traefik/traefik', apiServer, [443, 6443]],
  ['ingress-traefik/traefik', '10.96.0.1', [443, 6443]],
  ['platform/prometheus', 'apps/web', [9102]],
  ['platform/prometheus', 'apps/api', [9102]],
  ['platform/prometheus', 'ingress-traefik/traefik', [9100]],
  ...['apps/web', 'apps/api', 'ingress-traefik/traefik'].map((source) => [source, 'platform/loki', [3100]] as const),
  [bastion, 'platform/grafana', [3000]],
  [bastion, 'platform/prometheus', [9090]],
  [bastion, 'ingress-traefik/traefik', [9000]],
];

function tableAllows({ source, destination, protocol, port }: TruthCell): boolean {
  if (!isolated.includes(source) && !isolated.includes(destination)) return true;
  if (source.startsWith('platform/') && destination.startsWith('platform/')) return true;
  if (destination === 'kube-system/kube-dns') return port === 53 && source !== 'apps/stray';
  const rows = TABLE.filter(([from, to]) => from === source && to === destination);
  return protocol === 'TCP' && rows.some(([, , open]) => open.includes(port));
}

describe('WebGrip', () => {
  it('denies all that its documentation does not allow (W-012, W-020, W-022)', async () => {
    const { objects } = compile(await exampleModel('webgrip'));
    await expect(policyText(objects)).toMatchFileSnapshot(examplePath('webgrip', 'policies.yaml'));
    await expect(truthCsv(cells, tableAllows)).toMatchFileSnapshot(examplePath('webgrip', 'truth.csv'));
    const evaluator = evaluatorOf(documentsOf(await exampleText('webgrip', 'workloads', 'common.yaml')), objects);
    expect(cells.filter((cell) => isAllowed(evaluator, cell) !== tableAllows(cell))).toEqual([]);
  });

  it('opens ports of administration to the bastion alone (W-070)', () => {
    const admin = cells.filter(({ destination, port }) =>
      ['platform/grafana 3000', 'platform/prometheus 9090', 'ingress-traefik/traefik 9000'].includes(`${destination} ${port}`),
    );
    const outside = admin.filter((cell) => tableAllows(cell) && !cell.source.startsWith('platform/'));
    expect(outside.map(({ source }) => source)).toEqual([bastion, bastion, bastion]);
  });

  it('lets the web tier be reached on 8080 from the ingress namespace, found by the label that every namespace has (W-021)', async () => {
    const { objects } = compile(await exampleModel('webgrip'));
    const web = objects.find(({ metadata }) => metadata.name === 'webgrip.web');
    expect(web?.spec).toMatchObject({
      podSelector: { matchLabels: { tier: 'web' } },
      ingress: expect.arrayContaining([
        {
          from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'ingress-traefik' } }, podSelector: {} }],
          ports: [{ port: 8080, protocol: 'TCP' }],
        },
      ]),
    });
    expect(JSON.parse(web?.metadata.annotations['net.brokkr.dev/flows'] ?? '').ingress).toEqual([
      ['browse', 'web-in'],
      ['apps-metrics'],
    ]);
  });

  it('keeps the ranges of the cluster out of what is meant for the Internet (W-011)', async () => {
    const { endpoints } = await exampleModel('webgrip');
    const { peer } = endpoints.get('internet') ?? {};
    expect(peer).toMatchObject({ cidrs: ['0.0.0.0/0'], except: expect.arrayContaining(['10.0.0.0/8']) });
  });

  it('has no open finding', async () => {
    expect(lintModel(await exampleModel('webgrip')).filter(({ accepted }) => accepted === undefined)).toEqual([]);
  });
});
