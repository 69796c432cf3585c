import { BlockList, isIP } from 'node:net';
import type { Env } from './kubeconfig.ts';

/**
 * The proxy that the environment names for a server, with kubectl's meaning of HTTPS_PROXY, HTTP_PROXY and NO_PROXY (upper or lower case):
 * hosts, `.suffixes`, addresses, CIDR ranges, `*`, each with an optional port. Loopback never goes through a proxy.
 */
export function proxyFromEnv(server: string, env: Env): string | undefined {
  const { protocol, hostname, port } = new URL(server);
  const name = protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY';
  const proxy = env[name] || env[name.toLowerCase()];
  const host = hostname.replace(/^\[|\]$/g, '');
  if (!proxy || host === 'localhost' || isLoopback(host)) return undefined;
  const excluded = (env.NO_PROXY || env.no_proxy || '').split(',').map((entry) => entry.trim());
  if (excluded.some((entry) => matches(entry, host, port || (protocol === 'https:' ? '443' : '80')))) return undefined;
  return proxy.includes('://') ? proxy : `http://${proxy}`;
}

function matches(entry: string, host: string, port: string): boolean {
  if (entry === '*') return true;
  if (entry.includes('/')) return inRange(entry, host);
  const [, pattern = '', wantedPort] = /^\[?(.*?)\]?(?::(\d+))?$/.exec(isIP(entry) === 6 ? `[${entry}]` : entry) ?? [];
  if (pattern === '' || (wantedPort !== undefined && wantedPort !== port)) return false;
  const suffix = pattern.replace(/^\*?\./, '').toLowerCase();
  return host === suffix || (isIP(host) === 0 && host.endsWith(`.${suffix}`));
}

function inRange(range: string, host: string): boolean {
  const [address = '', bits = ''] = range.split('/');
  const family = isIP(address);
  if (family === 0 || isIP(host) !== family) return false;
  const list = new BlockList();
  list.addSubnet(address, Number(bits), family === 6 ? 'ipv6' : 'ipv4');
  return list.check(host, family === 6 ? 'ipv6' : 'ipv4');
}

function isLoopback(host: string): boolean {
  return host === '::1' || inRange('127.0.0.0/8', host);
}
