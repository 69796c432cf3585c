import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { abortable } from '#lib/signal.ts';
import type { Kube } from './kube/kube.ts';
import type { Links } from './session/links.ts';

/** One thing an agent cannot work without. */
export interface ReachCheck {
  /** As in `the broker answered`. */
  readonly reached: string;
  /** As in `the broker did not answer`. */
  readonly unreached: string;
  /** Asks once, over nothing that was open before. Rejects when there is no answer. */
  readonly ask: (signal: AbortSignal) => Promise<void>;
}

/** What an agent has to reach, now: names and files are read anew. Rejects when they cannot be read. */
export type Reach = () => Promise<readonly ReachCheck[]>;

/**
 * The broker (a new connection and an authenticated call), the API server (a new connection and a GET) and DNS for their names, or those
 * of the proxies before them. Addresses ask DNS nothing.
 */
export function createReach(links: Pick<Links, 'readEndpoint' | 'check'>, kube: Pick<Kube, 'transport'>): Reach {
  const resolve = createLookup();
  return async () => {
    const { url, proxy } = await links.readEndpoint();
    const hosts = [proxy === undefined ? url.hostname : new URL(proxy).hostname, kube.transport.host];
    const names = [...new Set(hosts)].filter((host) => isIP(host.replace(/^\[|\]$/g, '')) === 0);
    return [
      { reached: 'the broker', unreached: 'the broker did not answer', ask: (signal) => links.check(signal) },
      { reached: 'the API server', unreached: 'the API server did not answer', ask: (signal) => kube.transport.reach(signal) },
      ...names.map((name) => ({
        reached: `DNS for ${name}`,
        unreached: `DNS did not resolve ${name}`,
        ask: (signal: AbortSignal) => resolve(name, signal),
      })),
    ];
  };
}

/** Resolves names as connections do (getaddrinfo, which keeps nothing). A lookup cannot be cancelled and holds a thread: one a name at a time. */
function createLookup(): (name: string, signal: AbortSignal) => Promise<void> {
  const asked = new Map<string, Promise<unknown>>();
  return async (name, signal) => {
    const pending = asked.get(name) ?? lookup(name).finally(() => asked.delete(name));
    asked.set(name, pending);
    await abortable(pending, signal);
  };
}
