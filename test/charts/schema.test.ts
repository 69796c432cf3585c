import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { helmNames } from '../../hack/helm/helm.ts';
import { type ChartName, type Helm, merged, openHelm } from './helm.ts';

/** Values that are wrong, and what of the message names the place. */
const REFUSED: readonly (readonly [chart: ChartName, what: string, values: object, named: RegExp])[] = [
  ['brokkr-broker', 'an unknown value', { replicas: 3 }, /replicas/],
  [
    'brokkr-broker',
    'an unknown value deep inside',
    { networkPolicy: { allowIngresFrom: [] } },
    /networkPolicy.*allowIngresFrom/s,
  ],
  ['brokkr-broker', 'text for a number', { service: { port: 'http' } }, /service.port/],
  ['brokkr-broker', 'a port that is none', { postgresql: { external: { port: 65_536 } } }, /postgresql.external.port/],
  ['brokkr-broker', 'a service type that is none', { service: { type: 'Ingress' } }, /service.type/],
  ['brokkr-broker', 'a peer that is nobody', { networkPolicy: { allowIngressFrom: [{}] } }, /networkPolicy.allowIngressFrom.0/],
  [
    'brokkr-broker',
    'a peer by address and selector',
    { networkPolicy: { allowMetricsFrom: [{ ipBlock: { cidr: '10.0.0.0/8' }, podSelector: {} }] } },
    /networkPolicy.allowMetricsFrom.0/,
  ],
  [
    'brokkr-broker',
    'an address for a range',
    { networkPolicy: { allowIngressFrom: [{ ipBlock: { cidr: '10.0.0.1' } }] } },
    /networkPolicy.allowIngressFrom.0.ipBlock.cidr/,
  ],
  ['brokkr-broker', 'nobody to resolve names', { networkPolicy: { dns: { to: [] } } }, /networkPolicy.dns.to/],
  ['brokkr-broker', 'two databases', { postgresql: { external: { host: 'db' } } }, /postgresql.external.host/],
  ['brokkr-broker', 'two databases, one by its URL', { postgresql: { existingSecret: 'db' } }, /postgresql.existingSecret/],
  ['brokkr-broker', 'no database', { postgresql: { enabled: false } }, /postgresql.external.host/],
  [
    'brokkr-broker',
    'a policy for a database anywhere',
    { postgresql: { enabled: false, external: { host: 'db', cidr: '0.0.0.0/0' } } },
    /postgresql.external.cidr/,
  ],
  [
    'brokkr-broker',
    'a policy for a database nowhere',
    { postgresql: { enabled: false, external: { host: 'db' } }, networkPolicy: { enabled: true } },
    /postgresql.external.cidr/,
  ],
  ['brokkr-broker', 'a schema name with SQL', { postgresql: { external: { schema: 'a"; drop' } } }, /postgresql.external.schema/],
  ['brokkr-broker', 'TLS without a certificate', { tls: { enabled: true } }, /tls.cert/],
  ['brokkr-broker', 'TLS twice', { tls: { enabled: true, existingSecret: 'a', cert: 'b' } }, /tls.cert/],
  ['brokkr-broker', 'cert-manager without an issuer', { tls: { certManager: { enabled: true } } }, /tls.certManager.issuer/],
  ['brokkr-broker', 'a sidecar without telemetry', { telemetry: { sidecar: { enabled: true } } }, /telemetry.enabled/],
  ['brokkr-broker', 'a collector without a port', { telemetry: { otlpEndpoint: 'http://collector' } }, /telemetry.otlpEndpoint/],
  ['brokkr-agent', 'a collector without a scheme', { telemetry: { otlpEndpoint: 'collector:4317' } }, /telemetry.otlpEndpoint/],
  ['brokkr-broker', 'more than all traces', { telemetry: { samplingRate: 2 } }, /telemetry.samplingRate/],
  ['brokkr-broker', 'a credential as a setting', { broker: { settings: { 'database.url': 'x' } } }, /broker.settings/],
  ['brokkr-agent', 'no key', {}, /broker.pak/],
  ['brokkr-agent', 'two keys', { broker: { pak: 'a', existingSecret: 'b' } }, /broker.pak/],
  ['brokkr-agent', 'a broker without a scheme', { broker: { pak: 'a', url: 'broker:3000' } }, /broker.url/],
  [
    'brokkr-agent',
    'a polling interval beyond the limit',
    { broker: { pak: 'a' }, agent: { pollingInterval: 60 } },
    /agent.pollingInterval/,
  ],
  [
    'brokkr-agent',
    'a credential as a setting',
    { broker: { pak: 'a' }, agent: { settings: { 'agent.pak': 'x' } } },
    /agent.settings/,
  ],
  [
    'brokkr-agent',
    'a policy without the API server',
    { broker: { pak: 'a' }, networkPolicy: { enabled: true } },
    /networkPolicy.kubernetesApiCidr/,
  ],
  [
    'brokkr-agent',
    'a policy for an API server anywhere',
    { broker: { pak: 'a' }, networkPolicy: { enabled: true, kubernetesApiCidr: '0.0.0.0/0' } },
    /networkPolicy.kubernetesApiCidr/,
  ],
  [
    'brokkr-agent',
    'a broker by address and selector',
    { broker: { pak: 'a' }, networkPolicy: { brokerEndpoint: { ipBlock: { cidr: '10.0.0.1/32' }, podSelector: {} } } },
    /networkPolicy.brokerEndpoint/,
  ],
  [
    'brokkr-agent',
    'every API group, Secrets included',
    { broker: { pak: 'a' }, rbac: { clusterApiGroups: ['*'] } },
    /rbac.clusterApiGroups.0/,
  ],
  [
    'brokkr-agent',
    'the core group, Secrets included',
    { broker: { pak: 'a' }, rbac: { namespaceApiGroups: [''] } },
    /rbac.namespaceApiGroups.0/,
  ],
  [
    'brokkr-agent',
    'contents of Secrets without Secrets',
    { broker: { pak: 'a' }, rbac: { secretAccess: { readContents: true } } },
    /rbac.secretAccess.enabled/,
  ],
];

describe.each(helmNames)('%s', (name) => {
  let helm: Helm;
  beforeAll(async () => {
    helm = await openHelm(name);
  });
  afterAll(() => helm?.[Symbol.asyncDispose]());

  it.each(REFUSED)('refuses %s with %s, and names it', async (chart, _, values, named) => {
    const message = await helm
      .render(chart, chart === 'brokkr-agent' ? merged({ broker: { existingSecret: '' } }, values) : values)
      .then(
        () => 'accepted',
        (error: Error) => error.message,
      );
    expect(message).toContain("values don't meet the specifications of the schema");
    expect(message.replaceAll("'", '').replaceAll('/', '.')).toMatch(named);
  });
});
