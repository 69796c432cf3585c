import { type Config, ConfigError, defineConfig, loadConfig } from '#lib/config.ts';
import { telemetrySettings } from '#lib/telemetry.ts';

/** Every setting of the gateway; also the reference page. */
export const GATEWAY_SETTINGS = defineConfig(
  {
    'gateway.listen': { type: 'string', default: '0.0.0.0:8443', meaning: 'address and port of TLS; port 0 takes a free one' },
    'gateway.certificates': {
      type: 'list',
      default: [],
      meaning:
        'directories with tls.crt and tls.key, as Secrets of the type kubernetes.io/tls are mounted; a client is shown the first that has the name it asks for, otherwise the first of all; changed files are taken into use by themselves',
    },
    'gateway.upstreams': {
      type: 'list',
      default: [],
      meaning: 'where requests go: http:// or https://, host, port; several share the work',
    },
    'gateway.upstream_protocol': {
      type: 'enum',
      values: ['http2', 'http1'],
      default: 'http2',
      meaning: 'version of HTTP spoken to them; gRPC needs http2, WebSockets always go by http1',
    },
    'gateway.upstream_ca_file': {
      type: 'string',
      meaning: 'PEM file of the only authorities that may have signed their certificates; otherwise those of the system',
    },
    'gateway.connect_timeout': {
      type: 'duration',
      default: '5s',
      min: 100,
      meaning: 'bound of reaching an upstream, TLS included',
    },
    'gateway.response_timeout': {
      type: 'duration',
      default: '60s',
      min: 1_000,
      meaning: 'bound of waiting for an answer to begin once the request has been sent whole',
    },
    'gateway.request_timeout': {
      type: 'duration',
      default: '5m',
      min: 1_000,
      meaning: 'time in which a client has to send an HTTP/1.1 request whole',
    },
    'gateway.header_timeout': {
      type: 'duration',
      default: '10s',
      min: 1_000,
      meaning: 'time in which a client has to send first bytes and headers',
    },
    'gateway.ping_interval': {
      type: 'duration',
      default: '30s',
      min: 1_000,
      meaning: 'how often HTTP/2 peers of both sides are pinged; one that has not answered by the next ping is given up',
    },
    'gateway.health_path': {
      type: 'string',
      default: '/readyz',
      pattern: /^\//,
      meaning: 'what upstreams are asked for; 2xx is healthy',
    },
    'gateway.health_interval': { type: 'duration', default: '5s', min: 100, meaning: 'how often each upstream is asked' },
    'gateway.drain': { type: 'duration', default: '20s', max: 25_000, meaning: 'how long requests may go on after SIGTERM' },
    'gateway.max_connections': {
      type: 'int',
      default: 20_000,
      min: 1,
      meaning: 'connections of clients; more are closed at once',
    },
    'gateway.admin_port': {
      type: 'int',
      default: 8080,
      min: 0,
      max: 65_535,
      meaning: 'port of /healthz, /readyz, /health and /metrics; 0 takes a free one',
    },
    'gateway.admin_host': { type: 'string', default: '0.0.0.0', meaning: 'address that port is bound to' },
    'log.level': {
      type: 'enum',
      values: ['fatal', 'error', 'warn', 'info', 'debug', 'trace'],
      default: 'info',
      meaning: 'least severe lines to print; each request is one of info',
    },
    ...telemetrySettings('brokkr-gateway'),
  },
  { foreignSections: ['broker', 'agent', 'database', 'tls', 'limits', 'sync', 'cli', 'cors', 'pak'] },
);

/** Settings of a gateway. */
export type GatewayConfig = Config<(typeof GATEWAY_SETTINGS)['settings']>;

/** Reads the settings; a `ConfigError` lists every problem. */
export function loadGatewayConfig(env: Readonly<Record<string, string | undefined>>): GatewayConfig {
  const config = loadConfig(GATEWAY_SETTINGS, { env });
  const { certificates, upstreams } = config.gateway;
  const problems: string[] = [];
  if (certificates.length === 0)
    problems.push('BROKKR__GATEWAY__CERTIFICATES is missing: name a directory with tls.crt and tls.key');
  if (upstreams.length === 0) problems.push('BROKKR__GATEWAY__UPSTREAMS is missing: name where requests go, http://host:port');
  for (const text of upstreams) {
    const url = URL.canParse(text) ? new URL(text) : undefined;
    if (url && /^https?:$/.test(url.protocol) && url.pathname === '/' && url.search === '' && url.username === '') continue;
    problems.push(`BROKKR__GATEWAY__UPSTREAMS: ${JSON.stringify(text)} is not of the form http://host:port or https://host:port`);
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return config;
}
