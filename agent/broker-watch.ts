import { once } from 'node:events';
import { isIP } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import { dialSocket, portOf } from '#lib/check-network.ts';
import type { Clock } from '#lib/clock.ts';
import { reachFailure } from '#lib/reach-failure.ts';
import type { Task } from '#lib/run.ts';
import { abortable } from '#lib/signal.ts';
import type { AgentMetrics } from './metrics.ts';
import type { Endpoint } from './transport/endpoint.ts';

/** Time between two looks at DNS. */
const LOOK_MS = 60_000;
/** A certificate is looked at that often: a handshake costs the broker a millisecond, and there may be thousands of agents. */
const CERTIFICATE_AGE_MS = 60 * 60_000;
/** Bound of one look. */
const TIMEOUT_MS = 10_000;

/** What the watch needs. */
export interface BrokerWatchDeps {
  readonly readEndpoint: () => Promise<Endpoint>;
  /** Resolves a name as connections do. */
  readonly lookup: (host: string) => Promise<unknown>;
  readonly clock: Clock;
  readonly metrics: Pick<AgentMetrics, 'dnsSeconds' | 'connectionFailures' | 'brokerCertificateValidTo'>;
}

/**
 * Measures what the sessions do not show: how long the broker's name, or that of the proxy before it, takes to resolve, and until when
 * the broker's certificate is valid (not through a proxy, and of a certificate that is trusted).
 */
export function createBrokerWatch({ readEndpoint, lookup, clock, metrics }: BrokerWatchDeps): Task {
  let certificateAtMs = Number.NEGATIVE_INFINITY;
  const failed = (to: string, error: unknown) => metrics.connectionFailures.inc({ to, kind: reachFailure(error) ?? 'unknown' });

  const resolve = async (host: string, signal: AbortSignal) => {
    const startedMs = clock.monotonic();
    try {
      await abortable(lookup(host), signal);
    } catch (error) {
      failed('dns', error);
    }
    metrics.dnsSeconds.observe((clock.monotonic() - startedMs) / 1000);
  };
  const look = async (signal: AbortSignal) => {
    const endpoint = await readEndpoint();
    const { host, port } = portOf(endpoint.proxy === undefined ? endpoint.url : new URL(endpoint.proxy));
    if (isIP(host) === 0) await resolve(host, signal);
    if (endpoint.ca === undefined || endpoint.proxy !== undefined) return;
    if (clock.monotonic() - certificateAtMs < CERTIFICATE_AGE_MS) return;
    metrics.brokerCertificateValidTo.ms = await validTo(host, port, endpoint.ca, signal);
    certificateAtMs = clock.monotonic();
  };
  return {
    name: 'broker watch',
    async run(signal) {
      while (!signal.aborted) {
        using deadline = clock.deadline(TIMEOUT_MS, signal);
        await look(deadline.signal).catch(() => undefined); // the session that needs it says so
        await clock.sleep(LOOK_MS, signal).catch(() => undefined);
      }
    },
  };
}

/** When the certificate of a TLS server ceases to be valid, milliseconds since 1970. Rejects when it is not trusted. */
async function validTo(host: string, port: number, ca: readonly string[], signal: AbortSignal): Promise<number> {
  const socket = await dialSocket({ host, port }, signal);
  const tls = tlsConnect({ socket, host, ca: [...ca], ...(isIP(host) === 0 && { servername: host }) });
  try {
    await once(tls, 'secureConnect', { signal });
    return Date.parse(tls.getPeerCertificate().valid_to);
  } finally {
    tls.destroy();
    socket.destroy();
  }
}
