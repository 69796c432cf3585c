import { load } from 'js-yaml';
import { AGENT, BROKER, CERT_MANAGER, INGRESS } from '../flows/chart-cells.ts';
import type { ChartName } from './helm.ts';

const PEM = (what: string) => `-----BEGIN ${what}-----\nAAAA\n-----END ${what}-----\n`;

const external = { enabled: false, external: { host: 'db.example.com', port: 6432, password: 'p@ss/w rd', schema: 'tenant_a' } };

/** Scheduling and what else both charts have. */
const pods = load(`
  image: {tag: 1.2.3, pullSecrets: [{name: pull}]}
  podDisruptionBudget: {enabled: true, maxUnavailable: 50%}
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway}]
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/arch, operator: In, values: [amd64, arm64]}]}]
  tolerations: [{key: dedicated, operator: Exists, effect: NoSchedule}]
  nodeSelector: {kubernetes.io/os: linux}
  podAnnotations: {team: platform}
  podLabels: {tier: control}
  serviceAccount: {annotations: {team: platform}}
  extraEnv: [{name: NODE_EXTRA_CA_CERTS, value: /etc/ca/ca.crt}]
  extraVolumes: [{name: ca, configMap: {name: company-ca}}]
  extraVolumeMounts: [{name: ca, mountPath: /etc/ca, readOnly: true}]
`) as object;

const MONITOR = { enabled: true, labels: { release: 'prometheus' } };

/** Values that users set, by what they set; all render to objects that the API server takes. */
export const MATRIX: Readonly<Record<ChartName, Readonly<Record<string, object>>>> = {
  'brokkr-broker': {
    'the defaults': {},
    'the documented network policy': BROKER,
    'the documented Ingress': INGRESS,
    'the documented cert-manager': CERT_MANAGER,
    'an external database': { postgresql: external },
    'a database by its URL, with policies': {
      postgresql: { enabled: false, existingSecret: 'db', existingSecretKey: 'uri', external: { cidr: '10.9.9.9/32' } },
      networkPolicy: { enabled: true, allowWebhookEgress: false },
    },
    'TLS from a Secret, behind a LoadBalancer': {
      tls: { enabled: true, existingSecret: 'broker-tls' },
      service: { type: 'LoadBalancer', port: 443, annotations: { cloud: 'internal' }, loadBalancerSourceRanges: ['10.0.0.0/8'] },
    },
    'TLS inline': { tls: { enabled: true, cert: PEM('CERTIFICATE'), key: PEM('PRIVATE KEY') } },
    'hosts and paths': {
      ingress: { enabled: true, hosts: [{ host: 'a.example.com', paths: [{ path: '/api', pathType: 'Exact' }] }] },
      tls: { certManager: { enabled: true, issuer: 'ca', issuerKind: 'Issuer' } },
    },
    'scaling, telemetry and settings': {
      ...pods,
      autoscaling: { enabled: true, maxReplicas: 4 },
      telemetry: { enabled: true, sidecar: { enabled: true } },
      broker: {
        pakHash: 'abc',
        encryptionKeySecret: 'at-rest',
        settings: { 'database.pool_max': 5, 'broker.reflection': false },
      },
    },
    monitors: { metrics: { serviceMonitor: MONITOR, prometheusRule: MONITOR, dashboards: { enabled: true } } },
  },
  'brokkr-agent': {
    'the defaults': {},
    'the documented network policy': AGENT,
    'a key as value, for one namespace': {
      broker: { existingSecret: '', pak: 'brokkr_key', url: 'https://broker.example.com', caSecret: 'company-ca' },
      rbac: { clusterWide: false, secretAccess: { enabled: true } },
    },
    'Secrets with contents and more rules': {
      rbac: {
        secretAccess: { enabled: true, readContents: true },
        additionalRules: [{ apiGroups: ['cert-manager.io'], resources: ['certificates'], verbs: ['*'] }],
      },
    },
    'scheduling, telemetry and settings': {
      ...pods,
      replicaCount: 2,
      telemetry: { enabled: true },
      agent: { name: 'edge-1', clusterName: 'edge', pollingInterval: 5, settings: { 'agent.concurrency': 8 } },
    },
    'a broker by its address': {
      networkPolicy: {
        enabled: true,
        kubernetesApiCidr: '10.0.0.1/32',
        brokerEndpoint: { ipBlock: { cidr: '203.0.113.0/24' } },
        brokerPort: 443,
      },
    },
    monitors: { metrics: { podMonitor: MONITOR, prometheusRule: MONITOR, dashboards: { enabled: true } } },
  },
};
