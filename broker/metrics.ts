import type { Clock } from '#lib/clock.ts';
import type { ListenerCounts } from '#lib/listener.ts';
import { declareListenerMetrics } from '#lib/listener-metrics.ts';
import type { Metrics } from '#lib/metrics.ts';
import { declareSegmentMetrics } from '#lib/segment-metrics.ts';
import type { FailureKind } from '#lib/webhook-send.ts';
import type { YamlPool } from '#lib/yaml-pool.ts';
import type { Database } from './database.ts';
import { declareFleetMetrics } from './fleet/metrics.ts';
import type { FleetCounts } from './fleet/store.ts';
import type { ServedRequest } from './http/dispatch.ts';
import type { Delivered } from './sync/ingest-store.ts';
import type { Sync } from './sync/sync.ts';

/** What the gauges look at. */
export interface BrokerView {
  readonly poolUse: Database['poolUse'];
  readonly sessions: Sync['sessions'];
  /** Reports of agents that are not stored yet. */
  readonly pendingEvents: () => number;
  readonly yaml: Pick<YamlPool, 'counts' | 'queued'>;
  readonly listener: () => ListenerCounts;
  /** Attempts to deliver a webhook under way. */
  readonly webhookAttempts: () => number;
  readonly fleet: () => Promise<FleetCounts | undefined>;
  readonly clock: Clock;
}

/** What to call when something happens. */
export type BrokerMetrics = ReturnType<typeof declareBrokerMetrics>;

/** Declares the broker's metrics; labels are closed sets, never ids. */
export function declareBrokerMetrics(metrics: Metrics, view: BrokerView) {
  declareListenerMetrics(metrics, '', view.listener, view.clock);
  declareSegmentMetrics(metrics, '');
  declareNow(metrics, view);
  declareFleetMetrics(metrics, view.fleet);
  return { ...requestMetrics(metrics), ...syncMetrics(metrics), ...webhookMetrics(metrics, view) };
}

/** This replica now. */
function declareNow(metrics: Metrics, { poolUse, sessions, pendingEvents, yaml }: BrokerView): void {
  metrics.gauge({
    name: 'database_pool_connections',
    help: 'connections of the pool by state; waiting counts callers',
    labels: ['state'],
    collect(gauge) {
      const { inUse, idle, waiting } = poolUse();
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
      for (const transport of ['stream', 'poll']) gauge.set({ transport }, 0);
      for (const session of sessions()) gauge.inc({ transport: session.options.transport });
    },
  });
  metrics.gauge({
    name: 'dirty_keys',
    help: 'stacks waiting to be sent, over all sessions of this replica',
    collect: (gauge) => gauge.set(sessions().reduce((sum, session) => sum + session.dirtyCount, 0)),
  });
  metrics.gauge({
    name: 'pending_events',
    help: 'events of agents that are not stored yet; at 50,000 agents are told to wait',
    collect: (gauge) => gauge.set(pendingEvents()),
  });
  metrics.counter({
    name: 'yaml_tasks_total',
    help: 'tasks the YAML threads have begun, by kind',
    labels: ['task'],
    total: () => Object.entries(yaml.counts).map(([task, count]) => [{ task }, count] as const),
  });
  metrics.gauge({
    name: 'yaml_queue',
    help: 'tasks that wait for a YAML thread',
    collect: (gauge) => gauge.set(yaml.queued),
  });
}

const METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

function requestMetrics(metrics: Metrics) {
  const requests = metrics.counter({
    name: 'http_requests_total',
    help: 'requests answered, by RPC method (REST included), plain path or none; status is that of HTTP; the stream of an agent counts as a session',
    labels: ['endpoint', 'method', 'status'],
  });
  const seconds = metrics.histogram({
    name: 'http_request_duration_seconds',
    help: 'time from the headers of a request to the end of its answer; streams and polls, which last as they please, are left out',
    labels: ['endpoint', 'method'],
  });
  return {
    /** A request was answered. */
    served({ target, httpMethod, status, isHeld, durationMs }: ServedRequest): void {
      const method = METHODS.has(httpMethod) ? httpMethod : 'other';
      requests.inc({ endpoint: target, method, status });
      if (!isHeld) seconds.observe({ endpoint: target, method }, durationMs / 1000);
    },
  };
}

function syncMetrics(metrics: Metrics) {
  const deliveries = metrics.histogram({
    name: 'delivery_duration_seconds',
    help: 'from the publication of a generation to the report that an agent has received it, applied it, is healthy with it; of agents whose session began before the publication',
    labels: ['stage'],
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800],
  });
  return {
    sessionsOpened: metrics.counter({
      name: 'sessions_opened_total',
      help: 'sessions opened, by transport',
      labels: ['transport'],
    }),
    sessionsRefused: metrics.counter({
      name: 'sessions_refused_total',
      help: 'sessions that were not opened, by the name of the error (docs/reference/errors.md)',
      labels: ['code'],
    }),
    digestMismatches: metrics.counter({
      name: 'digest_mismatches_total',
      help: 'agents that held something else than they should without anything under way, and were put right; 0 in a healthy fleet',
    }),
    refusedFrames: metrics.counter({
      name: 'refused_frames_total',
      help: 'frames that an agent did not take, by its reason',
      labels: ['reason'],
    }),
    /** Agents told how far they are. */
    delivered(items: readonly Delivered[]): void {
      for (const { stage, seconds } of items) deliveries.observe({ stage }, seconds);
    },
  };
}

function webhookMetrics(metrics: Metrics, { webhookAttempts }: BrokerView) {
  const attempts = metrics.counter({
    name: 'webhook_attempts_total',
    help: 'attempts to deliver a webhook by result: delivered, or the kind of failure',
    labels: ['result'],
  });
  const seconds = metrics.histogram({
    name: 'webhook_attempt_duration_seconds',
    help: 'how long attempts to deliver a webhook take',
  });
  const unreadable = metrics.counter({
    name: 'webhook_decrypt_failures_total',
    help: 'attempts to deliver a webhook for which URL and secrets could not be decrypted',
  });
  metrics.gauge({
    name: 'webhook_attempts_in_flight',
    help: 'attempts to deliver a webhook under way on this replica',
    collect: (gauge) => gauge.set(webhookAttempts()),
  });
  return {
    /** An attempt has ended. */
    attempted(result: 'delivered' | FailureKind, durationSeconds: number): void {
      attempts.inc({ result });
      seconds.observe(durationSeconds);
      if (result === 'key') unreadable.inc();
    },
    dnsSeconds: metrics.histogram({
      name: 'dns_lookup_duration_seconds',
      help: 'how long it takes to resolve the names of webhook endpoints, failures included',
    }),
  };
}
