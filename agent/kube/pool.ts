import { type Dispatcher, Pool, ProxyAgent } from 'undici';
import type { TlsMaterial } from './credentials.ts';
import type { KubeCredentials } from './kubeconfig.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const HEADERS_TIMEOUT_MS = 30_000;
const KEEP_ALIVE_MS = 30_000;
const TCP_KEEP_ALIVE_MS = 15_000;

/** Bounds of a set of connections. */
export interface PoolLimits {
  readonly connections: number;
  /** Longest silence within an answer, in milliseconds; 0 for any. */
  readonly bodyTimeout: number;
  /** Bytes of an answer; -1 for any. */
  readonly maxResponseSize: number;
}

/** Connections to one server, over its proxy where one is named. Opens none by itself. */
export function openPool(config: KubeCredentials, origin: string, tls: TlsMaterial, limits: PoolLimits): Dispatcher {
  const socket = { timeout: CONNECT_TIMEOUT_MS, keepAlive: true, keepAliveInitialDelay: TCP_KEEP_ALIVE_MS };
  const connect = {
    ...socket,
    rejectUnauthorized: !config.insecureSkipTlsVerify,
    ...(tls.ca !== undefined && { ca: tls.ca }),
    ...(tls.cert !== undefined && { cert: tls.cert }),
    ...(tls.key !== undefined && { key: tls.key }),
    ...(config.tlsServerName !== undefined && { servername: config.tlsServerName }),
  };
  const options: Pool.Options = {
    ...limits,
    pipelining: 1,
    allowH2: false, // on by default in undici 8; one connection for all stalls all streams at once when it half-dies
    headersTimeout: HEADERS_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MS,
  };
  if (config.proxyUrl === undefined) return new Pool(origin, { ...options, connect });
  return new ProxyAgent({ ...options, uri: config.proxyUrl, requestTls: connect, proxyTls: socket });
}
