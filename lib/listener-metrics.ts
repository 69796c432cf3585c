import type { Clock } from './clock.ts';
import type { ListenerCounts } from './listener.ts';
import type { Metrics } from './metrics.ts';

/**
 * Declares what every port of ours is measured by. `prefix` is put before the names (`gateway_`); `counts` is read at every
 * scrape.
 */
export function declareListenerMetrics(metrics: Metrics, prefix: string, counts: () => ListenerCounts, clock: Clock): void {
  metrics.gauge({
    name: `${prefix}connections`,
    help: 'open connections of clients',
    collect: (gauge) => gauge.set(counts().connections),
  });
  metrics.counter({
    name: `${prefix}connections_accepted_total`,
    help: 'connections taken',
    total: () => [[{}, counts().accepted]],
  });
  metrics.counter({
    name: `${prefix}connections_dropped_total`,
    help: 'connections closed at once because too many were open',
    total: () => [[{}, counts().dropped]],
  });
  metrics.counter({
    name: `${prefix}network_bytes_total`,
    help: 'bytes on connections of clients, TLS included; direction is in or out',
    labels: ['direction'],
    total: () => [
      [{ direction: 'in' }, counts().bytesIn],
      [{ direction: 'out' }, counts().bytesOut],
    ],
  });
  metrics.counter({
    name: `${prefix}tls_handshake_failures_total`,
    help: 'handshakes that failed: certificate (the client refused ours), left, version, timeout, plain (no TLS), other',
    labels: ['reason'],
    total: () => Object.entries(counts().handshakeFailures).map(([reason, number]) => [{ reason }, number] as const),
  });
  metrics.gauge({
    name: `${prefix}certificate_expiry_seconds`,
    help: 'time until the certificate in use ceases to be valid, negative afterwards; none without TLS',
    labels: ['file'],
    collect(gauge) {
      gauge.reset();
      for (const { certFile, validToMs } of counts().certificates)
        gauge.set({ file: certFile }, (validToMs - clock.now()) / 1000);
    },
  });
}
