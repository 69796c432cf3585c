import { userInfo } from 'node:os';

/** Values of libpq's `sslmode` (PostgreSQL documentation, "SSL Support", table 32.1). */
export const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;
/** One of `SSL_MODES`. */
export type SslMode = (typeof SSL_MODES)[number];

/** Where a database is and how to talk to it, before any file is read or connection made. */
export interface ConnectionTarget {
  /** Host name, IP address (IPv6 without brackets) or, when it begins with `/`, the directory of a Unix socket. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string | undefined;
  readonly database: string;
  readonly sslMode: SslMode;
  /** PEM file of the certificate authorities to trust, or `system`. */
  readonly sslRootCert: string | undefined;
  readonly sslCert: string | undefined;
  readonly sslKey: string | undefined;
  readonly sslPassword: string | undefined;
  readonly sslNegotiation: 'postgres' | 'direct';
  readonly applicationName: string | undefined;
  /** Command-line options for the server, as in libpq's `options`. */
  readonly options: string | undefined;
}

/** The variables libpq would read; passed in, never read from the process. */
export type PostgresEnvironment = Readonly<Record<string, string | undefined>>;

/** libpq parameter → its environment variable. The order is that of the libpq documentation. */
const PARAMETERS: Readonly<Record<string, string | undefined>> = {
  host: 'PGHOST',
  port: 'PGPORT',
  dbname: 'PGDATABASE',
  user: 'PGUSER',
  password: 'PGPASSWORD',
  options: 'PGOPTIONS',
  application_name: 'PGAPPNAME',
  sslmode: 'PGSSLMODE',
  sslnegotiation: 'PGSSLNEGOTIATION',
  sslcert: 'PGSSLCERT',
  sslkey: 'PGSSLKEY',
  sslrootcert: 'PGSSLROOTCERT',
  sslpassword: undefined,
};
/** Understood by libpq, without effect here: we set our own time limits, keepalive and encoding. */
const WITHOUT_EFFECT = [
  'connect_timeout',
  'fallback_application_name',
  'client_encoding',
  'keepalives',
  'keepalives_idle',
  'keepalives_interval',
  'keepalives_count',
  'tcp_user_timeout',
  'gssencmode',
  'sslcompression',
  'sslsni',
];

/**
 * Reads a PostgreSQL connection URI as libpq does (PostgreSQL documentation, "Connection URIs"): percent-encoding, IPv6
 * in brackets, Unix socket directories as host, parameters after `?`; what the URI leaves out comes from `environment`,
 * then from libpq's defaults. Throws with a text that never contains the URI or the password. Not supported, and
 * refused: more than one host, parameters that would be ignored silently.
 */
export function parseConnectionUri(uri: string, environment: PostgresEnvironment): ConnectionTarget {
  const given = splitUri(uri);
  const value = (name: string): string | undefined => {
    const variable = PARAMETERS[name];
    return given.get(name) || (variable && environment[variable]) || undefined;
  };
  const host = value('host') ?? 'localhost';
  if (host.includes(',')) throw invalid('more than one host is not supported: put a proxy or a virtual address in front');
  const user = value('user') ?? userInfo().username;
  const sslMode = oneOf('sslmode', value('sslmode') ?? 'prefer', SSL_MODES);
  const sslNegotiation = oneOf('sslnegotiation', value('sslnegotiation') ?? 'postgres', ['postgres', 'direct']);
  const sslRootCert = value('sslrootcert');
  if (sslRootCert === 'system' && sslMode !== 'verify-full') {
    if (given.has('sslmode')) throw invalid(`sslmode=${sslMode} is too weak for sslrootcert=system: use sslmode=verify-full`);
  }
  const effectiveMode = sslRootCert === 'system' ? 'verify-full' : sslMode;
  if (sslNegotiation === 'direct' && !['require', 'verify-ca', 'verify-full'].includes(effectiveMode)) {
    throw invalid('sslnegotiation=direct needs sslmode=require or stronger');
  }
  return {
    host,
    port: portNumber(value('port') ?? '5432'),
    user,
    password: value('password'),
    database: value('dbname') ?? user,
    sslMode: effectiveMode,
    sslRootCert,
    sslCert: value('sslcert'),
    sslKey: value('sslkey'),
    sslPassword: value('sslpassword'),
    sslNegotiation,
    applicationName: value('application_name'),
    options: value('options'),
  };
}

/** The endpoint as people write it, for messages: `host:5432`, `[::1]:5432`, `/run/postgresql/.s.PGSQL.5432`. */
export function endpointText({ host, port }: Pick<ConnectionTarget, 'host' | 'port'>): string {
  if (host.startsWith('/')) return `${host}/.s.PGSQL.${port}`;
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

function splitUri(uri: string): ReadonlyMap<string, string> {
  const match = /^postgres(?:ql)?:\/\/(?:([^@/?]*)@)?([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(uri);
  if (!match) throw invalid('it must have the form postgresql://user@host:port/database?parameter=value');
  const [, userInfoPart, hostPart = '', database, query] = match;
  const parts = new Map<string, string>();
  if (userInfoPart !== undefined) {
    const colon = userInfoPart.indexOf(':');
    parts.set('user', decode('user', colon < 0 ? userInfoPart : userInfoPart.slice(0, colon)));
    if (colon >= 0) parts.set('password', decode('password', userInfoPart.slice(colon + 1)));
  }
  const address = /^(\[[^\]]*\]|[^:[\]]*)(?::(\d*))?$/.exec(hostPart);
  if (!address && !hostPart.includes(','))
    throw invalid('the host is malformed (IPv6 addresses go in brackets; / in a socket directory is %2F)');
  parts.set('host', address ? decode('host', (address[1] ?? '').replace(/^\[(.*)\]$/, '$1')) : hostPart);
  if (address?.[2]) parts.set('port', address[2]);
  if (database) parts.set('dbname', decode('database name', database));
  for (const pair of query ? query.split('&') : []) setParameter(parts, pair);
  return parts;
}

function setParameter(parts: Map<string, string>, pair: string): void {
  const equals = pair.indexOf('=');
  if (equals < 1) throw invalid('a parameter after ? has no value');
  const name = decode('parameter name', pair.slice(0, equals));
  const value = decode(name, pair.slice(equals + 1));
  if (name === 'ssl') {
    if (value !== 'true') throw invalid('ssl accepts only true: use sslmode');
    parts.set('sslmode', 'require'); // as libpq, for JDBC URIs
  } else if (name in PARAMETERS) {
    parts.set(name, value);
  } else if (!WITHOUT_EFFECT.includes(name) && !(name === 'target_session_attrs' && value === 'any')) {
    throw invalid(`the parameter ${JSON.stringify(name.slice(0, 40))} is not supported`);
  }
}

function decode(part: string, text: string): string {
  if (/%(?![0-9a-fA-F]{2})/.test(text)) throw invalid(`the ${part} has a % that begins no percent-encoded character (write %25)`);
  if (/%00/.test(text)) throw invalid(`the ${part} contains %00`);
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid(`the ${part} is not percent-encoded UTF-8`);
  }
}

function portNumber(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65_535) throw invalid('the port must be a number from 1 to 65535');
  return port;
}

function oneOf<const T extends string>(name: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((each) => each === value);
  if (found === undefined) throw invalid(`${name} must be one of ${allowed.join(', ')}`);
  return found;
}

function invalid(reason: string): Error {
  return new Error(`the database URI cannot be used: ${reason}`);
}
