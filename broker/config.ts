import { networkProblems } from '#lib/address-rule.ts';
import { type Config, ConfigError, defineConfig, loadConfig } from '#lib/config.ts';
import { telemetrySettings } from '#lib/telemetry.ts';

/** Every setting of the broker; also the reference page. */
export const BROKER_SETTINGS = defineConfig(
  {
    'database.url': {
      type: 'string',
      secret: true,
      aliases: ['DATABASE_URL'],
      meaning:
        'PostgreSQL connection URI; sslmode and the rest mean what libpq means by them. Without it the broker runs a PostgreSQL of its own in broker.data_dir',
    },
    'database.schema': {
      type: 'string',
      default: 'public',
      meaning: 'schema of this instance; several instances may share a database',
    },
    'database.pool_max': { type: 'int', default: 20, min: 2, max: 500, meaning: 'connections of the pool' },
    'database.statement_timeout': { type: 'duration', default: '30s', meaning: 'bound of one statement' },
    'database.acquire_timeout': { type: 'duration', default: '10s', meaning: 'bound of waiting for a connection' },
    'database.connect_timeout': { type: 'duration', default: '30s', meaning: 'how long to go on trying at start' },
    'log.level': {
      type: 'enum',
      values: ['fatal', 'error', 'warn', 'info', 'debug', 'trace'],
      default: 'info',
      meaning: 'least severe lines to print',
    },
    'broker.listen': { type: 'string', default: '0.0.0.0:3000', meaning: 'address and port; port 0 takes a free one' },
    'broker.data_dir': {
      type: 'string',
      meaning: 'where a PostgreSQL of its own lives; /var/lib/brokkr as root, else below the user data directory',
    },
    'broker.pak_hash': {
      type: 'string',
      pattern: /^[0-9a-f]{64}$/,
      meaning: 'hash of the admin key, taken on first start; otherwise a key is minted and printed once',
    },
    'broker.agent_acceptance': {
      type: 'enum',
      values: ['all', 'registered'],
      default: 'all',
      meaning: 'whose stacks reach agents: those of every generator, or of those an agent is registered with',
    },
    'broker.auth_cache_ttl_seconds': {
      type: 'int',
      default: 60,
      min: 0,
      max: 3600,
      unit: 's',
      meaning: 'how long a key is believed without asking the database',
    },
    'broker.heartbeat_interval': { type: 'duration', default: '20s', meaning: 'time between heartbeats of an agent' },
    'broker.health_interval': { type: 'duration', default: '60s', meaning: 'time between health reports of an agent' },
    'broker.poll_hold': { type: 'duration', default: '10s', meaning: 'how long a poll is held, at most 25 s' },
    'broker.stream_age': { type: 'duration', default: '30m', meaning: 'age at which a stream is renewed' },
    'broker.hellos_per_second': { type: 'int', default: 500, min: 1, max: 100_000, meaning: 'sessions opened per second' },
    'broker.drain_window': { type: 'duration', default: '10s', meaning: 'over which time agents come back after a stop' },
    'broker.yaml_threads': { type: 'int', default: 2, min: 1, max: 16, meaning: 'threads that parse publications' },
    'broker.max_documents': { type: 'int', default: 5000, min: 1, max: 10_000, meaning: 'documents in one publication' },
    'broker.max_publish_bytes': {
      type: 'int',
      default: 16_777_216,
      min: 1024,
      max: 67_108_864,
      unit: 'bytes',
      meaning: 'YAML text of one publication',
    },
    'broker.encryption_key': {
      type: 'string',
      secret: true,
      pattern: /^[0-9a-f]{64}$/,
      meaning: 'AES-256 key, hex, for content and for secrets of webhooks at rest; none: they are not encrypted',
    },
    'broker.encryption_key_id': { type: 'string', default: 'default', meaning: 'name of that key' },
    'broker.encryption_old_keys': {
      type: 'list',
      default: [],
      secret: true,
      meaning:
        'keys that were: id=hex each; what they encrypt can still be read, and secrets of webhooks are encrypted anew at start',
    },
    'broker.webhook_delivery_batch_size': {
      type: 'int',
      default: 50,
      min: 1,
      max: 1000,
      meaning: 'webhook deliveries taken at a time',
    },
    'broker.webhook_delivery_interval_seconds': {
      type: 'int',
      default: 5,
      min: 1,
      max: 3600,
      unit: 's',
      meaning: 'how late a webhook delivery is sent when no commit wakes the broker',
    },
    'broker.webhook_cleanup_retention_days': {
      type: 'int',
      default: 7,
      min: 1,
      max: 3650,
      unit: 'd',
      meaning: 'how long webhook deliveries are kept that were taken or given up, or that nobody may send',
    },
    'broker.webhook_allowed_networks': {
      type: 'list',
      default: [],
      meaning:
        'networks such as 10.1.0.0/16 that webhooks may reach although they are private or loopback; link-local and metadata addresses only when named themselves',
    },
    'broker.reflection': { type: 'bool', default: true, meaning: 'gRPC reflection without a key' },
    'broker.metrics': { type: 'bool', default: true, meaning: '/metrics without a key' },
    'tls.cert': { type: 'string', meaning: 'file with the certificate chain; serves TLS together with tls.key' },
    'tls.key': { type: 'string', meaning: 'file with the private key' },
    ...telemetrySettings('brokkr-broker'),
  },
  { foreignSections: ['agent', 'pak', 'cors', 'gateway'] },
);

/** Settings of a broker. */
export type BrokerConfig = Config<(typeof BROKER_SETTINGS)['settings']>;

/** Reads the settings; a `ConfigError` lists every problem. */
export function loadBrokerConfig(env: Readonly<Record<string, string | undefined>>): BrokerConfig {
  const config = loadConfig(BROKER_SETTINGS, { env });
  if ((config.tls.cert === undefined) !== (config.tls.key === undefined)) {
    throw new ConfigError(['BROKKR__TLS__CERT and BROKKR__TLS__KEY go together: set both or neither']);
  }
  const wrong = networkProblems('broker.webhook_allowed_networks', config.broker.webhookAllowedNetworks);
  if (wrong.length > 0) throw new ConfigError(wrong);
  const problem = oldKeysProblem(config.broker);
  if (problem !== undefined) throw new ConfigError([`broker.encryption_old_keys: ${problem}`]);
  return config;
}

/** What is wrong with the old keys; says nothing of their values. */
function oldKeysProblem({ encryptionKey, encryptionKeyId, encryptionOldKeys: old }: BrokerConfig['broker']): string | undefined {
  if (old.length === 0) return undefined;
  if (encryptionKey === undefined) return 'there is no broker.encryption_key that takes over from them';
  if (!old.every((key) => /^[^=]+=[0-9a-f]{64}$/.test(key))) return 'not all are of the form id=hex with 64 hex digits';
  const ids = [encryptionKeyId, ...old.map((key) => key.split('=')[0])];
  return new Set(ids).size < ids.length
    ? `two keys have the same id, broker.encryption_key_id (${encryptionKeyId}) included`
    : undefined;
}
