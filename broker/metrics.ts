import { createMetrics, type Metrics } from '#lib/metrics.ts';
import type { YamlPool } from '#lib/yaml-pool.ts';
import type { Database } from './database.ts';
import type { Sync } from './sync/sync.ts';
import type { DeliveriesDeps } from './webhooks/deliveries.ts';

/** What the broker's gauges look at. */
export interface BrokerMetricsDeps {
  readonly db: Database;
  readonly sync: Sync;
  readonly yaml: YamlPool;
}

/** The broker's metrics; labels are closed sets, never ids. */
export function createBrokerMetrics({ db, sync, yaml }: BrokerMetricsDeps): Metrics {
  const metrics = createMetrics({ processMetrics: true });
  metrics.gauge({
    name: 'database_pool_connections',
    help: 'connections of the pool by state; waiting counts callers',
    labels: ['state'],
    collect(gauge) {
      const { inUse, idle, waiting } = db.poolUse();
      gauge.set({ state: 'in_use' }, inUse);
      gauge.set({ state: 'idle' }, idle);
      gauge.set({ state: 'waiting' }, waiting);
    },
  });
  metrics.gauge({
    name: 'sessions',
    help: 'agents with a session on this replica by transport',
    labels: ['transport'],
    collect(gauge) {
      gauge.reset();
      for (const session of sync.sessions()) gauge.inc({ transport: session.options.transport });
    },
  });
  metrics.gauge({
    name: 'dirty_keys',
    help: 'stacks waiting to be sent, over all sessions',
    collect: (gauge) => gauge.set(sync.sessions().reduce((sum, session) => sum + session.dirtyCount, 0)),
  });
  metrics.gauge({
    name: 'yaml_tasks',
    help: 'tasks the YAML pool has run by kind',
    labels: ['task'],
    collect(gauge) {
      for (const [task, count] of Object.entries(yaml.counts)) gauge.set({ task }, count);
    },
  });
  return metrics;
}

/** The metrics of webhooks: what to call at the end of each attempt. `inFlight` is read at every scrape. */
export function createWebhookMetrics(metrics: Metrics, inFlight: () => number): DeliveriesDeps['attempted'] {
  const attempts = metrics.counter({
    name: 'webhook_attempts_total',
    help: 'attempts to deliver a webhook by result: delivered, or the kind of failure',
    labels: ['result'],
  });
  const durations = metrics.histogram({
    name: 'webhook_attempt_duration_seconds',
    help: 'how long attempts to deliver a webhook take',
  });
  metrics.gauge({
    name: 'webhook_attempts_in_flight',
    help: 'attempts to deliver a webhook under way on this replica',
    collect: (gauge) => gauge.set(inFlight()),
  });
  return (result, seconds) => {
    attempts.inc({ result });
    durations.observe(seconds);
  };
}
