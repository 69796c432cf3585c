import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { load } from 'js-yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AGENT_SETTINGS } from '../../agent/config.ts';
import { BROKER_SETTINGS } from '../../broker/config.ts';
import { loadConfig } from '../../lib/config.ts';
import { type ChartName, chartPath, type Helm, merged, openHelm, type Rendered } from './helm.ts';
import { MATRIX } from './matrix.ts';

let helm: Helm;
beforeAll(async () => {
  helm = await openHelm('helm4');
});
afterAll(() => helm?.[Symbol.asyncDispose]());

const CASES = (Object.keys(MATRIX) as ChartName[]).flatMap((chart) =>
  Object.entries(MATRIX[chart]).map(([what, values]) => ({ chart, what, values })),
);

/** The one object of a kind with this name; throws when there is none. */
function the(objects: readonly Rendered[], kind: string, name: string): Rendered {
  const found = objects.find((each) => each.kind === kind && each.metadata.name === name);
  if (found === undefined) throw new Error(`no ${kind} ${name} among ${objects.map((each) => each.kind).join(', ')}`);
  return found;
}

function podOf(objects: readonly Rendered[], chart: ChartName): Rendered {
  return the(objects, 'Deployment', chart).spec.template.spec;
}

function secretText(objects: readonly Rendered[], name: string, key: string): string {
  return Buffer.from(the(objects, 'Secret', name).data[key], 'base64').toString();
}

describe.each(CASES)('$chart with $what', ({ chart, values }) => {
  let objects: Rendered[];
  beforeAll(async () => {
    objects = await helm.render(chart, values);
  });

  it('sets only what the process knows, and no secret in a ConfigMap', () => {
    const env = { ...the(objects, 'ConfigMap', chart).data, BROKKR__AGENT__PAK_FILE: undefined }; // mounted later
    const read = () => (chart === 'brokkr-broker' ? loadConfig(BROKER_SETTINGS, { env }) : loadConfig(AGENT_SETTINGS, { env }));
    expect(read).not.toThrow();
    for (const { kind, data } of objects) {
      if (kind === 'ConfigMap')
        expect(JSON.stringify(data)).not.toMatch(/p@ss|p%40ss|brokkr_key|PRIVATE KEY|__PAK"|PAK_HASH|DATABASE__URL/);
    }
  });

  it('runs without rights on the node', () => {
    for (const { kind, spec } of objects) {
      if (kind !== 'Deployment' && kind !== 'StatefulSet') continue;
      const pod = spec.template.spec;
      expect(pod.securityContext).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } });
      for (const { securityContext, resources } of pod.containers) {
        expect(securityContext).toMatchObject({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        });
        expect(resources).toMatchObject({ requests: { cpu: expect.any(String) }, limits: { memory: expect.any(String) } });
      }
    }
  });
});

describe('the chart of the broker', () => {
  const render = (values: object) => helm.render('brokkr-broker', values);
  const matrix = (what: string) => render(MATRIX['brokkr-broker'][what] ?? {});

  it('is a ClusterIP Service on 3000 with the bundled database behind it, by default', async () => {
    const objects = await render({});
    expect(the(objects, 'Service', 'brokkr-broker').spec).toMatchObject({
      type: 'ClusterIP',
      ports: [{ port: 3000, targetPort: 'http' }],
    });
    const [container] = podOf(objects, 'brokkr-broker').containers;
    expect(container.ports).toMatchObject([{ name: 'http', containerPort: 3000 }]);
    expect(container.livenessProbe.httpGet).toMatchObject({ path: '/healthz', scheme: 'HTTP' });
    expect(container.readinessProbe.httpGet).toMatchObject({ path: '/readyz' });
    expect(the(objects, 'Service', 'brokkr-broker-postgresql').spec).toMatchObject({
      type: 'ClusterIP',
      ports: [{ port: 5432 }],
    });
    the(objects, 'StatefulSet', 'brokkr-broker-postgresql');
    const { valueFrom } = container.env.find(({ name }: Rendered) => name === 'BROKKR__DATABASE__URL');
    expect(valueFrom.secretKeyRef).toEqual({ name: 'brokkr-broker-postgresql', key: 'database-url' });
    const url = new URL(secretText(objects, 'brokkr-broker-postgresql', 'database-url'));
    expect(url.host).toBe('brokkr-broker-postgresql:5432');
    expect(url.password).toBe(secretText(objects, 'brokkr-broker-postgresql', 'password'));
  });

  it('has names that Kubernetes takes, however long that of the release is', async () => {
    const release = 'r'.repeat(53); // Helm's limit
    const text = await helm.run(['template', release, chartPath('brokkr-broker')]);
    const names = [...text.matchAll(/^ {2}name: (\S+)$/gm)].map(([, name = '']) => name);
    expect(names.filter((name) => name.length > 52)).toEqual([]); // 11 more for a StatefulSet's revision, of 63
    expect(new Set(names).size).toBe(2);
  });

  it('makes another password for each installation', async () => {
    const [one, other] = [await render({}), await render({})].map((each) =>
      secretText(each, 'brokkr-broker-postgresql', 'password'),
    );
    expect(one).toMatch(/^[0-9A-Za-z]{32}$/);
    expect(one).not.toBe(other);
  });

  it('takes an external database, whatever its password has', async () => {
    const objects = await matrix('an external database');
    const url = new URL(secretText(objects, 'brokkr-broker', 'database-url'));
    expect(url).toMatchObject({
      host: 'db.example.com:6432',
      username: 'brokkr',
      pathname: '/brokkr',
      search: '?sslmode=require',
    });
    expect(decodeURIComponent(url.password)).toBe('p@ss/w rd');
    expect(the(objects, 'ConfigMap', 'brokkr-broker').data.BROKKR__DATABASE__SCHEMA).toBe('tenant_a');
    expect(objects.map(({ kind }) => kind)).not.toContain('StatefulSet');
  });

  it('takes the whole URL from a Secret', async () => {
    const objects = await matrix('a database by its URL, with policies');
    const [container] = podOf(objects, 'brokkr-broker').containers;
    expect(container.env).toEqual([{ name: 'BROKKR__DATABASE__URL', valueFrom: { secretKeyRef: { name: 'db', key: 'uri' } } }]);
    expect(objects.map(({ kind }) => kind)).not.toContain('Secret');
  });

  it('is exposed by the documented Ingress, and by hosts and paths', async () => {
    const { spec } = the(await matrix('the documented Ingress'), 'Ingress', 'brokkr-broker');
    const backend = { service: { name: 'brokkr-broker', port: { name: 'http' } } };
    expect(spec).toEqual({
      ingressClassName: 'nginx',
      tls: [{ secretName: 'brokkr-tls', hosts: ['broker.example.com'] }],
      rules: [{ host: 'broker.example.com', http: { paths: [{ path: '/', pathType: 'Prefix', backend }] } }],
    });
    const paths = the(await matrix('hosts and paths'), 'Ingress', 'brokkr-broker');
    expect(paths.spec.rules).toEqual([
      { host: 'a.example.com', http: { paths: [{ path: '/api', pathType: 'Exact', backend }] } },
    ]);
    expect(paths.metadata.annotations).toEqual({ 'cert-manager.io/issuer': 'ca' });
  });

  it('lets cert-manager issue its certificate', async () => {
    const objects = await matrix('the documented cert-manager');
    expect(the(objects, 'Certificate', 'brokkr-broker').spec).toEqual({
      secretName: 'brokkr-broker-tls',
      dnsNames: ['brokkr-broker', 'brokkr-broker.brokkr', 'brokkr-broker.brokkr.svc'],
      issuerRef: { group: 'cert-manager.io', kind: 'ClusterIssuer', name: 'letsencrypt-prod' },
    });
    const behind = {
      tls: { enabled: true, certManager: { enabled: true, issuer: 'acme' } },
      ingress: { enabled: true, hosts: [{ host: 'b.example.com' }] },
    };
    const exposed = await render(behind);
    expect(the(exposed, 'Certificate', 'brokkr-broker').spec.dnsNames).toEqual(['b.example.com']);
    expect(the(exposed, 'Ingress', 'brokkr-broker').metadata.annotations).toEqual({
      'cert-manager.io/cluster-issuer': 'acme',
      'nginx.ingress.kubernetes.io/backend-protocol': 'HTTPS',
    });
  });

  it.each([
    ['TLS from a Secret, behind a LoadBalancer', 'broker-tls'],
    ['TLS inline', 'brokkr-broker-tls'],
    ['the documented cert-manager', 'brokkr-broker-tls'],
  ])('serves TLS itself: %s', async (what, secretName) => {
    const objects = await matrix(what);
    const pod = podOf(objects, 'brokkr-broker');
    expect(pod.volumes).toContainEqual({ name: 'tls', secret: { secretName } });
    expect(pod.containers[0].volumeMounts).toContainEqual({ name: 'tls', mountPath: '/etc/brokkr/tls', readOnly: true });
    expect(pod.containers[0].livenessProbe.httpGet.scheme).toBe('HTTPS');
    expect(the(objects, 'ConfigMap', 'brokkr-broker').data).toMatchObject({
      BROKKR__TLS__CERT: '/etc/brokkr/tls/tls.crt',
      BROKKR__TLS__KEY: '/etc/brokkr/tls/tls.key',
    });
  });

  it('is a LoadBalancer with annotations, and a range of sources', async () => {
    const { metadata, spec } = the(await matrix('TLS from a Secret, behind a LoadBalancer'), 'Service', 'brokkr-broker');
    expect(metadata.annotations).toEqual({ cloud: 'internal' });
    expect(spec).toMatchObject({ type: 'LoadBalancer', ports: [{ port: 443 }], loadBalancerSourceRanges: ['10.0.0.0/8'] });
  });

  it('leaves the number of brokers to the autoscaler', async () => {
    expect(the(await render({ replicaCount: 3 }), 'Deployment', 'brokkr-broker').spec.replicas).toBe(3);
    const objects = await matrix('scaling, telemetry and settings');
    expect(the(objects, 'Deployment', 'brokkr-broker').spec).not.toHaveProperty('replicas');
    expect(the(objects, 'HorizontalPodAutoscaler', 'brokkr-broker').spec).toMatchObject({ minReplicas: 2, maxReplicas: 4 });
    expect(the(objects, 'PodDisruptionBudget', 'brokkr-broker').spec.maxUnavailable).toBe('50%');
  });

  it('runs a collector beside the broker, which sends to it', async () => {
    const objects = await matrix('scaling, telemetry and settings');
    expect(podOf(objects, 'brokkr-broker').containers.map(({ name }: Rendered) => name)).toEqual(['broker', 'collector']);
    expect(the(objects, 'ConfigMap', 'brokkr-broker').data.BROKKR__TELEMETRY__OTLP_ENDPOINT).toBe('http://localhost:4317');
    const config = the(objects, 'ConfigMap', 'brokkr-broker-collector').data['config.yaml'];
    expect(config).toContain('endpoint: "http://opentelemetry-collector.observability:4317"');
  });

  it('rolls its pods when settings or secrets change, and not otherwise', async () => {
    const checksums = async (values: object) =>
      the(await render(values), 'Deployment', 'brokkr-broker').spec.template.metadata.annotations;
    const before = await checksums({});
    expect(await checksums({ service: { port: 80 } })).toEqual(before);
    expect((await checksums({ broker: { logLevel: 'debug' } }))['checksum/config']).not.toBe(before['checksum/config']);
    expect((await checksums({ broker: { pakHash: 'x' } }))['checksum/secret']).not.toBe(before['checksum/secret']);
  });

  // N-143
  it('is found by the Prometheus operator', async () => {
    const { metadata, spec } = the(await matrix('monitors'), 'ServiceMonitor', 'brokkr-broker');
    expect(metadata.labels).toMatchObject({ release: 'prometheus' });
    expect(spec.endpoints).toEqual([{ port: 'http', path: '/metrics', interval: '30s' }]);
    const service = the(await render({}), 'Service', 'brokkr-broker');
    expect(service.metadata.labels).toMatchObject(spec.selector.matchLabels);
    expect(service.spec.ports).toMatchObject([{ name: 'http', targetPort: 'http' }]);
  });

  it.each([
    [
      'the names of the Service',
      {},
      { serverName: 'brokkr-broker', ca: { secret: { name: 'brokkr-broker-tls', key: 'ca.crt' } } },
    ],
    [
      'the host of the Ingress',
      { ingress: { enabled: true, hosts: [{ host: 'broker.example.com' }] } },
      { serverName: 'broker.example.com' },
    ],
    [
      'what the operator is told',
      { metrics: { serviceMonitor: { tlsConfig: { insecureSkipVerify: true } } } },
      { insecureSkipVerify: true },
    ],
  ])('is scraped over TLS by a certificate for %s', async (_, values, tlsConfig) => {
    const tls = { enabled: true, certManager: { enabled: true, issuer: 'acme' } };
    const { spec } = the(
      await render(merged({ tls, metrics: { serviceMonitor: { enabled: true } } }, values)),
      'ServiceMonitor',
      'brokkr-broker',
    );
    expect(spec.endpoints).toMatchObject([{ port: 'http', scheme: 'https', tlsConfig }]);
    const { dnsNames } = the(await render(merged({ tls }, values)), 'Certificate', 'brokkr-broker').spec;
    if ('serverName' in tlsConfig) expect(dnsNames).toContain(tlsConfig.serverName);
  });

  it('brings alerts and dashboards to those who look for them', async () => {
    const objects = await matrix('monitors');
    const rule = the(objects, 'PrometheusRule', 'brokkr-broker');
    expect(rule.metadata.labels).toMatchObject({ release: 'prometheus' });
    expect(rule.spec).toEqual(load(await readFile(join(chartPath('brokkr-broker'), 'alerts.yaml'), 'utf8')));
    const { metadata, data } = the(objects, 'ConfigMap', 'brokkr-broker-dashboards');
    expect(metadata.labels).toMatchObject({ grafana_dashboard: '1' });
    expect(Object.keys(data).toSorted()).toEqual([
      'brokkr-broker.json',
      'brokkr-edge.json',
      'brokkr-network.json',
      'brokkr-stacks.json',
    ]);
    expect(JSON.parse(data['brokkr-network.json'])).toMatchObject({ uid: 'brokkr-network' });
    const runbookUrl = 'https://wiki.example.com/alerts';
    const own = await render({ metrics: { prometheusRule: { enabled: true, runbookUrl } } });
    const [first] = the(own, 'PrometheusRule', 'brokkr-broker').spec.groups[0].rules;
    expect(first.annotations.runbook_url).toBe(`${runbookUrl}#brokkrbrokerdown`);
  });

  it('spreads the pods of this release', async () => {
    const [constraint] = podOf(await matrix('scaling, telemetry and settings'), 'brokkr-broker').topologySpreadConstraints;
    expect(constraint.labelSelector.matchLabels).toEqual({
      'app.kubernetes.io/name': 'brokkr-broker',
      'app.kubernetes.io/instance': 'brokkr-broker',
    });
  });
});

describe('the chart of the agent', () => {
  const render = (values: object) => helm.render('brokkr-agent', values);

  it('has the documented defaults, probes and paths', async () => {
    const objects = await render({});
    expect(the(objects, 'ConfigMap', 'brokkr-agent').data).toMatchObject({
      BROKKR__AGENT__BROKER_URL: 'http://brokkr-broker:3000',
      BROKKR__AGENT__POLLING_INTERVAL: '10s',
      BROKKR__AGENT__DEPLOYMENT_HEALTH_INTERVAL: '60s',
    });
    const [container] = podOf(objects, 'brokkr-agent').containers;
    expect(container.ports).toMatchObject([{ name: 'http', containerPort: 8080 }]);
    expect(container.livenessProbe.httpGet).toEqual({ path: '/healthz', port: 'http' });
    expect(container.readinessProbe.httpGet).toEqual({ path: '/readyz', port: 'http' });
    expect(objects.map(({ kind }) => kind)).not.toContain('Service');
  });

  it('has its key in a file, from a Secret given or made', async () => {
    expect(podOf(await render({}), 'brokkr-agent').volumes).toContainEqual({ name: 'key', secret: { secretName: 'agent-key' } });
    const objects = await render({ broker: { existingSecret: '', pak: 'brokkr_key' } });
    expect(secretText(objects, 'brokkr-agent', 'pak')).toBe('brokkr_key');
    expect(podOf(objects, 'brokkr-agent').volumes).toContainEqual({ name: 'key', secret: { secretName: 'brokkr-agent' } });
  });

  it('trusts a private authority', async () => {
    const objects = await render({ broker: { caSecret: 'company-ca', url: 'https://broker.example.com' } });
    expect(the(objects, 'ConfigMap', 'brokkr-agent').data).toMatchObject({
      BROKKR__AGENT__BROKER_URL: 'https://broker.example.com',
      BROKKR__AGENT__CA_FILE: '/run/brokkr/ca/ca.crt',
    });
    expect(podOf(objects, 'brokkr-agent').volumes).toContainEqual({ name: 'ca', secret: { secretName: 'company-ca' } });
  });

  it('is found by the Prometheus operator', async () => {
    const { spec } = the(await render({ metrics: { podMonitor: { enabled: true } } }), 'PodMonitor', 'brokkr-agent');
    expect(spec.podMetricsEndpoints).toEqual([{ port: 'http', path: '/metrics', interval: '30s' }]);
    const { metadata, spec: pod } = the(await render({}), 'Deployment', 'brokkr-agent').spec.template;
    expect(metadata.labels).toMatchObject(spec.selector.matchLabels);
    expect(pod.containers[0].ports).toMatchObject([{ name: 'http', containerPort: 8080 }]);
  });
});
