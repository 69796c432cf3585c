import { createMetrics, type Metrics } from '#lib/metrics.ts';
import type { YamlPool } from '#lib/yaml-pool.ts';
import type { Database } from './database.ts';
import type { Sync } from './sync/sync.ts';

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
