import { networkProblems } from '#lib/address-rule.ts';
import { type Config, ConfigError, defineConfig } from '#lib/config.ts';
import { telemetrySettings } from '#lib/telemetry.ts';

/** Settings of the agent: name, default, meaning. The reference page is made from it. */
export const AGENT_SETTINGS = defineConfig(
  {
    'agent.broker_url': {
      type: 'string',
      default: 'http://localhost:3000',
      pattern: /^https?:\/\/[^/]+/,
      aliases: ['BROKKR_BROKER_URL'],
      meaning: 'where the broker is: http:// or https://, host, port',
    },
    'agent.pak': { type: 'string', secret: true, aliases: ['BROKKR_PAK'], meaning: 'key of this agent' },
    'agent.pak_file': {
      type: 'string',
      meaning: 'file that holds the key; read at every connection, so that a rotated key needs no restart',
    },
    'agent.agent_name': {
      type: 'string',
      default: 'DEFAULT',
      meaning: 'name of this agent, for messages; the key decides who it is',
    },
    'agent.cluster_name': { type: 'string', default: 'DEFAULT', meaning: 'name of its cluster, for messages' },
    'agent.capabilities': {
      type: 'list',
      default: [],
      meaning: 'what selectors of stacks may look for besides what the agent finds out: key=value, for example region=eu',
    },
    'agent.kubeconfig_path': {
      type: 'string',
      meaning: 'kubeconfig file; otherwise KUBECONFIG, ~/.kube/config, or the service account of the pod',
    },
    'agent.polling_interval': {
      type: 'duration',
      default: '10s',
      min: 1_000,
      max: 25_000,
      meaning: 'how long a poll may be held where no stream works, and so how far behind a polling agent may be',
    },
    'agent.health_port': {
      type: 'int',
      default: 8080,
      min: 0,
      max: 65_535,
      meaning: 'port of /healthz, /readyz, /health and /metrics; 0 takes a free one',
    },
    'agent.health_host': { type: 'string', default: '0.0.0.0', meaning: 'address that port is bound to' },
    'agent.transport': {
      type: 'enum',
      values: ['auto', 'stream', 'poll'],
      default: 'auto',
      meaning: 'way to the broker: auto takes the stream and falls back to polling by itself',
    },
    'agent.stream_probe_interval': {
      type: 'duration',
      default: '10m',
      min: 1_000,
      meaning: 'how often a polling agent looks whether streams work again; varied by half',
    },
    'agent.ca_file': { type: 'string', meaning: 'PEM file of certificates to trust besides those of the system' },
    'agent.environment': {
      type: 'enum',
      values: ['production', 'development'],
      default: 'production',
      meaning: 'in development plain HTTP is nothing to speak of',
    },
    'agent.plain_http': {
      type: 'enum',
      values: ['allow', 'warn', 'refuse'],
      default: 'warn',
      meaning: 'what to do in production about a broker URL without TLS; loopback is always allowed',
    },
    'agent.data_dir': {
      type: 'string',
      meaning:
        'directory of cache and outbox, which may be lost; otherwise below XDG_STATE_HOME, the home directory, or the temporary one',
    },
    'agent.namespace': {
      type: 'string',
      meaning: 'namespace of the inventory; otherwise the one of the kubeconfig context or of the pod, or brokkr-agent',
    },
    'agent.leader_election': {
      type: 'enum',
      values: ['auto', 'on', 'off'],
      default: 'auto',
      meaning:
        'whether several replicas take turns by a Lease in the namespace of the inventory; auto goes on alone where Leases are forbidden',
    },
    'agent.lease_name': {
      type: 'string',
      meaning: 'name of that Lease; otherwise brokkr-agent- and eight digits made of the key',
    },
    'agent.watch_namespace': { type: 'string', meaning: 'the one namespace the agent acts in; otherwise the whole cluster' },
    'agent.rules_file': {
      type: 'string',
      meaning:
        'YAML file of what this environment allows (docs/apply.md); read again when it changes; while it is invalid nothing new is applied',
    },
    'agent.deployment_health_interval': {
      type: 'duration',
      default: '60s',
      min: 1_000,
      meaning: 'time between two reports of the health of everything; changes are reported at once',
    },
    'agent.verify_interval': {
      type: 'duration',
      default: '24h',
      min: 600_000,
      max: 604_800_000,
      meaning: 'time in which every object is verified once against the cluster, spread evenly over it',
    },
    'agent.concurrency': { type: 'int', default: 4, min: 1, max: 32, unit: 'stacks', meaning: 'stacks worked on at a time' },
    'agent.webhook_allowed_networks': {
      type: 'list',
      default: ['10.0.0.0/8', '100.64.0.0/10', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'],
      meaning:
        'networks that webhooks sent by this agent may reach although they are not public; link-local and metadata addresses only when named themselves',
    },
    'agent.generator_ids': {
      type: 'list',
      default: [],
      aliases: ['BROKKR_GENERATOR_IDS'],
      meaning: 'generators the agent registers itself with at the start',
    },
    'log.level': {
      type: 'enum',
      values: ['fatal', 'error', 'warn', 'info', 'debug', 'trace'],
      default: 'info',
      meaning: 'least important messages that are logged',
    },
    ...telemetrySettings('brokkr-agent'),
  },
  { foreignSections: ['broker', 'database', 'gateway', 'tls', 'limits', 'sync', 'cli', 'cors', 'pak'] },
);

/** Capabilities that can be set; the rest of what is told is what the cluster serves. */
const MAX_CAPABILITIES = 64;

/** Settings of the agent as values. */
export type AgentConfig = Config<typeof AGENT_SETTINGS.settings>;

/** Checks what one row alone cannot say. Returns a warning worth logging, or throws a `ConfigError`. */
export function checkAgentConfig({ agent }: AgentConfig): string | undefined {
  const problems: string[] = [];
  if (!agent.pak && !agent.pakFile) problems.push('no key: set BROKKR__AGENT__PAK or BROKKR__AGENT__PAK_FILE');
  for (const text of agent.capabilities) {
    const problem = capabilityProblem(text);
    if (problem) problems.push(`BROKKR__AGENT__CAPABILITIES: ${JSON.stringify(text)} ${problem}`);
  }
  if (agent.capabilities.length > MAX_CAPABILITIES) {
    problems.push(
      `BROKKR__AGENT__CAPABILITIES has ${agent.capabilities.length} entries, at most ${MAX_CAPABILITIES} are allowed`,
    );
  }
  problems.push(...networkProblems('agent.webhook_allowed_networks', agent.webhookAllowedNetworks));
  const url = URL.canParse(agent.brokerUrl) ? new URL(agent.brokerUrl) : undefined;
  if (!url) problems.push(`BROKKR__AGENT__BROKER_URL: ${JSON.stringify(agent.brokerUrl)} is not a URL`);
  const exposed = url?.protocol === 'http:' && !isLoopback(url.hostname) && agent.environment === 'production';
  if (exposed && agent.plainHttp === 'refuse') {
    problems.push('BROKKR__AGENT__BROKER_URL has no TLS, which agent.plain_http refuses in production: use https://');
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return exposed && agent.plainHttp === 'warn'
    ? 'the way to the broker is not encrypted: key and content can be read on it'
    : undefined;
}

/** What the agent finds out itself cannot be set. */
function capabilityProblem(text: string): string | undefined {
  const [, key = ''] = /^([^\s=]{1,64})=\S{1,64}$/.exec(text) ?? [];
  if (key === '') return 'is not key=value, each 1 to 64 characters without white space';
  return /^(kind:|api:|kubernetes_version$|kinds_truncated$)/.test(key)
    ? 'names something that the agent finds out itself'
    : undefined;
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '[::1]' || /^127\./.test(host);
}
